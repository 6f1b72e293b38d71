use clap::Parser as _;

use crate::cli::Cli;

fn proofmill(arguments: &[&str]) -> anyhow::Result<()> {
    let words = std::iter::once("proofmill").chain(arguments.iter().copied());
    Cli::try_parse_from(words).expect("a command").run()
}

/// A tiny run in a home.
fn tiny<'a>(home: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let verify = ["bench", "verify", "--home", home, "--json"];
    let shape = ["--txs", "20", "--accounts", "50", "--blocks", "1"];
    [&verify[..], &shape, more].concat()
}

#[test]
fn arguments_out_of_range_are_refused_before_anything_is_made() {
    for (arguments, words) in [
        (&["--txs", "20001"][..], "--txs 20001: 1 to 20000"),
        (&["--accounts", "1"], "--accounts 1: 2 to"),
        (&["--threads", "0"], "--threads 0: 1 to"),
        (&["--blocks", "0"], "--blocks 0: 1 to"),
        (&["--seen", "7"], "--seen 7: 0 for none"),
        (&["--save", "../x"], "--save ../x: a name is"),
    ] {
        let arguments = [&["bench", "verify"], arguments].concat();
        let refused = proofmill(&arguments).expect_err(words).to_string();
        assert!(refused.starts_with(words), "{refused}");
    }
}

#[test]
fn what_is_no_number_or_no_pattern_is_refused_with_what_was_given() {
    for (arguments, words) in [
        (&["--txs", "many"][..], "invalid value 'many' for '--txs"),
        (&["--seen", "300"], "invalid value '300' for '--seen"),
        (&["--pattern", "chaos"], "one-recipient"),
        (&["--save", "a", "--baseline", "b"], "cannot be used with"),
    ] {
        let words_given = [&["proofmill", "bench", "verify"], arguments].concat();
        let refused = Cli::try_parse_from(words_given)
            .expect_err(words)
            .to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn an_unknown_baseline_is_refused_with_those_there_are() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().to_str().expect("a text");
    let none = proofmill(&tiny(home, &["--baseline", "x"])).expect_err("none yet");
    let words = none.to_string();
    assert!(
        words.contains("`x`") && words.contains("none yet"),
        "{words}"
    );
    let picture = place.path().join("verify.svg");
    let picture = picture.to_str().expect("a text");
    proofmill(&tiny(home, &["--save", "first", "--plot", picture])).expect("a run");
    assert!(
        std::fs::read_to_string(picture)
            .expect("a file")
            .contains("</svg>")
    );
    let other = proofmill(&tiny(home, &["--baseline", "x"])).expect_err("another");
    assert!(other.to_string().contains("there are first"), "{other}");
    proofmill(&tiny(home, &["--baseline", "first"])).expect("a run beside the first");
}

#[test]
fn a_chain_is_made_only_in_a_new_home() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::write(place.path().join("mine"), "x").expect("a file");
    let home = place.path().to_str().expect("a text");
    let refused = proofmill(&["bench", "chain", "--home", home]).expect_err("not empty");
    assert!(refused.to_string().contains("is not empty"), "{refused}");
    let path = place.path().join("new");
    let home = path.to_str().expect("a text");
    let refused = proofmill(&["bench", "chain", "--home", home, "--accounts", "5000000"]);
    let words = refused.expect_err("too many accounts").to_string();
    assert!(
        words.starts_with("--accounts 5000000: their genesis file"),
        "{words}"
    );
    assert!(!path.exists());
}
