//! `proofmill validator guard`, and what a home without a usable guard or with swapped keys says.

mod scenario_support;

use std::fs;
use std::path::Path;

use proofmill_node::exit::Exit;
use scenario_support::homes::{ANY_PORT, copy, start};
use scenario_support::{Devnet, Said, proofmill, run};

fn guard(home: &Path, words: &[&str]) -> Said {
    let command = ["validator", "guard"];
    run(proofmill()
        .args(command)
        .args(words)
        .arg("--home")
        .arg(home))
}

/// Refused because of the guard, which has an exit status of its own.
#[track_caller]
fn guarded(said: &Said, words: &[&str]) {
    assert_eq!(
        said.status.code(),
        Some(i32::from(Exit::Guard.code())),
        "{said:?}"
    );
    let line = said.err.lines().last().unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "`{word}` is missing in: {line}");
    }
}

#[test]
fn a_used_home_without_its_guard_or_with_swapped_keys_is_refused_with_the_remedy() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 0);
    devnet.advance(2);
    let node = devnet.node();
    start(&node, ANY_PORT).refused(&["already in use by another process"]);
    guard(&node, &["init", "--above", "1000"]).refused(&["held by another process"]);
    let shown = guard(&node, &["show", "--json"]).json();
    assert_eq!(shown["floor"], "0", "{shown}");
    assert!(shown["last"]["message"].is_string(), "{shown}");
    let head = devnet.head().get();
    devnet.stop();

    let lost = place.path().join("lost");
    copy(&node, &lost);
    fs::remove_dir_all(lost.join("guard")).expect("a guard");
    let remedy = ["proofmill validator guard init --home", "--above H"];
    guarded(
        &start(&lost, ANY_PORT),
        &["guard/signed is missing", remedy[0], remedy[1]],
    );
    // A height below what the database holds could let it sign against its past.
    guard(&lost, &["init", "--above", "1"]).refused(&["holds block", "at least"]);
    let above = (head + 100).to_string();
    let made = guard(&lost, &["init", "--above", &above, "--json"]).json();
    assert_eq!(made["floor"], above.as_str(), "{made}");
    guard(&lost, &["init", "--above", &(head + 50).to_string()]).refused(&["has signed at height"]);
    // All logs lost: the height that was open, and none below it.
    let again = |above: u64| {
        let above = above.to_string();
        guard(&lost, &["init", "--all-logs-lost", "--above", &above])
    };
    again(head + 98).refused(&["has signed at height", "at least"]);
    fs::rename(lost.join("data/db"), lost.join("data/db-away")).expect("a database");
    again(0).refused(&["has signed at height", "at least"]);
    let made = again(head + 99);
    assert_eq!(made.status.code(), Some(0));
    let open = format!("what was signed at height {}", head + 100);
    assert!(made.out.contains(&open), "{}", made.out);

    let damaged = place.path().join("damaged");
    copy(&node, &damaged);
    let path = damaged.join("guard/signed");
    let mut bytes = fs::read(&path).expect("a guard");
    // Each record is there twice: damage at one place is repaired.
    for quarter in 0..4 {
        let at = quarter * bytes.len() / 4;
        bytes[at + 20] ^= 1;
    }
    fs::write(&path, bytes).expect("written");
    guarded(
        &start(&damaged, ANY_PORT),
        &["guard/signed is damaged", "check sum", remedy[0]],
    );

    let swapped = place.path().join("swapped");
    copy(&node, &swapped);
    let key = |name: &str| swapped.join("keys").join(name);
    fs::rename(key("validator.json"), key("x.json")).expect("moved");
    fs::rename(key("beacon.json"), key("validator.json")).expect("moved");
    fs::rename(key("x.json"), key("beacon.json")).expect("moved");
    start(&swapped, ANY_PORT).refused(&[
        "keys/validator.json",
        "keys/beacon.json",
        "swap the two files",
    ]);
}
