// Global alignment of two DNA sequences (Needleman-Wunsch): match +1, mismatch -1, gap -1.
//
// Input: FASTA text with exactly two records, at most 65,536 bytes. A record is a line that begins with
// '>' and then lines of A, C, G, T in either case; line feeds and carriage returns are skipped. Each
// sequence has 1 to LENGTH_MAX bases. Anything else traps.
//
// Output, little endian: score i32, matches u32, columns u32, length of a u32, length of b u32.
//
// Of the many best alignments one is meant: walking back from the end, the diagonal is taken if it gives
// the score, else up (a base of `a` against a gap), else left (a base of `b` against a gap). What a cell
// prefers depends only on its three neighbours, so the matches of the meant path are carried forward with
// the score and no matrix is kept: score = matches - (columns - matches) gives the columns.
//
// Cells are computed along anti-diagonals, where they do not depend on each other, eight to a vector. Cell
// (i, j), after i bases of `a` and j of `b`, lies on anti-diagonal i + j and is stored at index i. The last
// vector of an anti-diagonal runs up to seven lanes past its end into cells nobody reads before they are
// written again. Every value, those included, differs by at most 1 from a value of an earlier anti-diagonal,
// so none exceeds 2 * LENGTH_MAX = 32,766 and 16 bits are enough.
#define INPUT_MAX 65536
#define OUTPUT_MAX 20
#include "../guest.h"

#include <wasm_simd128.h>

#define LENGTH_MAX 16383
#define DIAGONALS_PER_STEP 128
#define LANES 8

typedef struct {
    int16_t score[LENGTH_MAX + 1 + LANES];
    int16_t matches[LENGTH_MAX + 1 + LANES];
} diagonal;

// `a` from index 1, `b` backwards, so that both are read upwards along an anti-diagonal. 16-bit like the
// cells: lanes then line up.
static int16_t a[LENGTH_MAX + 1 + LANES];
static int16_t b_backwards[LENGTH_MAX + LANES];
static int32_t a_len, b_len;
static diagonal diagonals[3];
static int32_t next;  // the anti-diagonal to compute next

static int16_t base(uint8_t letter) {
    letter &= 0xdf;  // upper case
    require(letter == 'A' || letter == 'C' || letter == 'G' || letter == 'T');
    return letter;
}

// Reads one record from `*at` on into `bases`, leaves `*at` behind it, returns its length.
static int32_t read_record(uint32_t *at, int16_t *bases) {
    uint32_t i = *at;
    require(i < input_len && input_buffer[i] == '>');
    while (i < input_len && input_buffer[i] != '\n') i++;
    int32_t len = 0;
    for (; i < input_len; i++) {
        uint8_t letter = input_buffer[i];
        if (letter == '\n' || letter == '\r') continue;
        if (letter == '>' && input_buffer[i - 1] == '\n') break;
        require(len < LENGTH_MAX);
        bases[len++] = base(letter);
    }
    require(len > 0);
    *at = i;
    return len;
}

// Cells first..last of one anti-diagonal from the two before it; cell i compares a[i] with
// b_backwards[i + shift].
static void compute(diagonal *to, const diagonal *before, const diagonal *before2, int32_t shift,
                    int32_t first, int32_t last) {
    const v128_t one = wasm_i16x8_splat(1);
    for (int32_t i = first; i <= last; i += LANES) {
        // -1 where the bases are the same, else 0
        v128_t same = wasm_i16x8_eq(wasm_v128_load(a + i),
                                     wasm_v128_load(b_backwards + (i + shift)));
        v128_t reward = wasm_v128_or(wasm_v128_not(same), one);
        v128_t score = wasm_i16x8_add(wasm_v128_load(before2->score + i - 1), reward);
        v128_t matches = wasm_i16x8_sub(wasm_v128_load(before2->matches + i - 1), same);

        v128_t up = wasm_i16x8_sub(wasm_v128_load(before->score + i - 1), one);
        v128_t better = wasm_i16x8_gt(up, score);
        score = wasm_i16x8_max(up, score);
        matches = wasm_v128_bitselect(wasm_v128_load(before->matches + i - 1), matches, better);

        v128_t left = wasm_i16x8_sub(wasm_v128_load(before->score + i), one);
        better = wasm_i16x8_gt(left, score);
        score = wasm_i16x8_max(left, score);
        matches = wasm_v128_bitselect(wasm_v128_load(before->matches + i), matches, better);

        wasm_v128_store(to->score + i, score);
        wasm_v128_store(to->matches + i, matches);
    }
}

static void compute_diagonal(int32_t k) {
    diagonal *to = &diagonals[k % 3];
    int32_t first = k > b_len ? k - b_len : 1;
    int32_t last = k > a_len ? a_len : k - 1;
    // b_backwards[b_len - j] is base j, and j = k - i.
    compute(to, &diagonals[(k + 2) % 3], &diagonals[(k + 1) % 3], b_len - k, first, last);
    // The edges: only gaps, no match.
    if (k <= b_len) {
        to->score[0] = (int16_t)-k;
        to->matches[0] = 0;
    }
    if (k <= a_len) {
        to->score[k] = (int16_t)-k;
        to->matches[k] = 0;
    }
}

EXPORT(init) void init(const uint8_t *ptr, uint32_t len) {
    take_input(ptr, len);
    uint32_t at = 0;
    a_len = read_record(&at, a + 1);
    b_len = read_record(&at, b_backwards);
    require(at == input_len);
    for (int32_t i = 0, j = b_len - 1; i < j; i++, j--) {
        int16_t swapped = b_backwards[i];
        b_backwards[i] = b_backwards[j];
        b_backwards[j] = swapped;
    }
    next = 1;  // anti-diagonal 0 is one cell, and it is zero
}

EXPORT(step) int32_t step(void) {
    for (int n = 0; n < DIAGONALS_PER_STEP && next <= a_len + b_len; n++) compute_diagonal(next++);
    if (next <= a_len + b_len) return STEP_MORE;
    const diagonal *end = &diagonals[(a_len + b_len) % 3];
    int32_t score = end->score[a_len];
    int32_t matches = end->matches[a_len];
    put_i32(score);
    put_u32((uint32_t)matches);
    put_u32((uint32_t)(2 * matches - score));
    put_u32((uint32_t)a_len);
    put_u32((uint32_t)b_len);
    return STEP_DONE;
}
