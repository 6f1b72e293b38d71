// The examples computed natively, in plain Rust and another way than the guest programs do it, to be compared
// with what the network answers. No dependencies; included by tests with `#[path]`. Each function takes a
// task's input and returns the bytes of its output.

/// The text form of the digit network, as `digits/train.py` writes it.
const WEIGHTS: &str = include_str!("../digits/weights.txt");

/// Global alignment of the two FASTA records in `input`: match +1, mismatch −1, gap −1; walking back from the
/// end, diagonal before up (gap in the second) before left (gap in the first).
///
/// Returns score i32, matches u32, columns u32 and both lengths u32, little endian. The guest carries
/// the matches forward; here the whole score matrix is kept and walked back.
///
/// # Panics
///
/// On input that the guest program traps on.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a test that includes this file may need only one"
)]
pub fn genome_align(input: &[u8]) -> Vec<u8> {
    let records = fasta(input);
    assert_eq!(records.len(), 2, "two records are expected");
    let (a, b) = (&records[0], &records[1]);
    let mut score = vec![vec![0_i32; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            score[i][j] = match (i, j) {
                (0, 0) => 0,
                (0, _) => score[0][j - 1] - 1,
                (_, 0) => score[i - 1][0] - 1,
                _ => (score[i - 1][j - 1] + pair(a[i - 1], b[j - 1]))
                    .max(score[i - 1][j] - 1)
                    .max(score[i][j - 1] - 1),
            };
        }
    }

    let (mut i, mut j) = (a.len(), b.len());
    let (mut matches, mut columns) = (0_u32, 0_u32);
    while i > 0 || j > 0 {
        columns += 1;
        if i > 0 && j > 0 && score[i][j] == score[i - 1][j - 1] + pair(a[i - 1], b[j - 1]) {
            matches += u32::from(a[i - 1] == b[j - 1]);
            i -= 1;
            j -= 1;
        } else if i > 0 && score[i][j] == score[i - 1][j] - 1 {
            i -= 1;
        } else {
            j -= 1;
        }
    }

    let mut output = score[a.len()][b.len()].to_le_bytes().to_vec();
    for number in [matches, columns, length(a), length(b)] {
        output.extend_from_slice(&number.to_le_bytes());
    }
    output
}

/// The digits read from the rows in `input` (64 pixels of 0 to 16, then the label).
///
/// Returns rows u32, rows predicted right u32 (little endian), and one byte for each row, the digit predicted.
///
/// # Panics
///
/// On input that the guest program traps on.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a test that includes this file may need only one"
)]
pub fn digits(input: &[u8]) -> Vec<u8> {
    assert!(
        !input.is_empty() && input.len() <= 65_536,
        "1 to 65,536 bytes"
    );
    assert_eq!(input.len() % 65, 0, "whole rows");
    let (shift, bias1, bias2) = (
        numbers("shift")[0][0],
        numbers("bias1")[0].clone(),
        numbers("bias2")[0].clone(),
    );
    let (weights1, weights2) = (numbers("weights1"), numbers("weights2"));

    let mut right = 0_u32;
    let mut predictions = Vec::new();
    for row in input.chunks(65) {
        let (pixels, label) = (&row[..64], row[64]);
        assert!(pixels.iter().all(|&p| p <= 16) && label <= 9, "a row");
        let pixels: Vec<i32> = pixels.iter().map(|&p| i32::from(p)).collect();
        let hidden: Vec<i32> = layer(&weights1, &bias1, &pixels)
            .iter()
            .map(|&sum| (sum.max(0) >> shift).min(127))
            .collect();
        let mut best = 0_u8;
        let scores = layer(&weights2, &bias2, &hidden);
        for digit in 1..10_u8 {
            if scores[usize::from(digit)] > scores[usize::from(best)] {
                best = digit;
            }
        }
        right += u32::from(best == label);
        predictions.push(best);
    }

    let mut output = length(&predictions).to_le_bytes().to_vec();
    output.extend_from_slice(&right.to_le_bytes());
    output.extend_from_slice(&predictions);
    output
}

/// The sequences of FASTA text, in upper case.
fn fasta(input: &[u8]) -> Vec<Vec<u8>> {
    assert!(input.len() <= 65_536, "at most 65,536 bytes");
    let mut records: Vec<Vec<u8>> = Vec::new();
    for line in input.split(|&byte| byte == b'\n') {
        if line.first() == Some(&b'>') {
            records.push(Vec::new());
            continue;
        }
        for letter in line.iter().filter(|&&byte| byte != b'\r') {
            let letter = letter.to_ascii_uppercase();
            assert!(b"ACGT".contains(&letter), "a base, got {letter}");
            records.last_mut().expect("a header first").push(letter);
        }
    }
    assert!(
        input.first() == Some(&b'>') && records.iter().all(|r| (1..=16_383).contains(&r.len())),
        "every record has a header and 1 to 16,383 bases"
    );
    records
}

fn pair(a: u8, b: u8) -> i32 {
    if a == b { 1 } else { -1 }
}

/// Every list of that name in the weights file, in order.
fn numbers(name: &str) -> Vec<Vec<i32>> {
    WEIGHTS
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map(|list| {
            list.split(' ')
                .map(|number| number.parse().expect("train.py writes integers"))
                .collect()
        })
        .collect()
}

fn layer(weights: &[Vec<i32>], bias: &[i32], values: &[i32]) -> Vec<i32> {
    weights
        .iter()
        .zip(bias)
        .map(|(line, b)| b + line.iter().zip(values).map(|(w, v)| w * v).sum::<i32>())
        .collect()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the input is at most 64 KiB")
}
