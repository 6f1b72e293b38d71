//! A tiny run and what becomes of its figures.

use super::figures::DECIMALS;
use super::measure::STAGES;
use super::report::{COMMIT_STAGE, Report};
use super::workload::{Pattern, Shape};
use super::{BenchError, Options, PAIRS_MIN, check_shape, plot, saved, temporary};
use crate::home::Home;

const TINY: Options = Options {
    shape: Shape {
        pattern: Pattern::Uniform,
        accounts: 200,
        txs: 50,
    },
    threads: 2,
    blocks: 2,
    seen: 0,
};

fn verify(options: &Options) -> Result<Report, BenchError> {
    let place = temporary().expect("a directory");
    super::verify(options, place.path(), &|_, _, _| {})
}

const RATIOS: [&str; 9] = [
    "signature_vs_bare_parsed",
    "signature_vs_bare_cached",
    "signature_vs_naive",
    "batch_vs_bare_parsed",
    "batch_vs_bare_cached",
    "block_vs_bare_parsed",
    "durable_vs_bare_parsed",
    "block_cached_vs_bare_cached",
    "seen_vs_unseen",
];

fn positive(value: &serde_json::Value) -> bool {
    value
        .as_f64()
        .is_some_and(|number| number.is_finite() && number > 0.0)
}

/// Whether every number below a value has no more decimals than a report's.
fn all_rounded(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.as_f64().is_some_and(|number| {
            let shown = format!("{number:.0$}", DECIMALS as usize);
            shown.parse() == Ok(number)
        }),
        serde_json::Value::Array(list) => list.iter().all(all_rounded),
        serde_json::Value::Object(object) => object.values().all(all_rounded),
        _ => true,
    }
}

#[test]
fn a_tiny_run_gives_every_figure_and_they_come_back_from_json() {
    let report = verify(&TINY).expect("a run");
    let object = serde_json::to_value(&report).expect("plain JSON");
    for (name, value) in [
        ("threads", 2),
        ("accounts", 200),
        ("txs", 50),
        ("blocks", 2),
    ] {
        assert_eq!(object[name], value, "{name}");
    }
    assert_eq!(object["pattern"], "uniform");
    assert!(object["backend"].is_string() && object["processor"].is_string());
    let stages: Vec<_> = report
        .stages
        .iter()
        .map(|line| line.name.as_str())
        .collect();
    assert_eq!(stages, [&STAGES[..], &[COMMIT_STAGE]].concat());
    for line in object["stages"].as_array().expect("a list") {
        assert!(positive(&line["us_per_tx_min"]), "{line}");
        assert!(positive(&line["us_per_tx_median"]), "{line}");
    }
    assert!(report.pairs >= PAIRS_MIN);
    assert!(positive(&object["tx_per_s"]) && positive(&object["root_ms"]));
    let ratios = &object["ratios"];
    for name in RATIOS {
        assert!(positive(&ratios[name]), "{name}: {ratios}");
        let spread = &object["ratios_spread"][name];
        assert_eq!(spread[1], ratios[name], "the median stands in the middle");
        assert!(spread[0].as_f64() <= spread[2].as_f64());
    }
    for name in ["signature", "block"] {
        assert!(positive(&ratios["thread_scaling"][name]), "{ratios}");
        let spread = &object["ratios_spread"][format!("thread_scaling.{name}")];
        assert_eq!(spread[1], ratios["thread_scaling"][name]);
    }
    assert!(all_rounded(&object), "{object}");
    let back: Report = serde_json::from_value(object).expect("a report");
    assert_eq!(back, report);

    let svg = plot::svg(&report);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for name in stages {
        assert!(
            svg.contains(&format!(">{name} ")),
            "{name} is in the legend"
        );
    }

    let place = tempfile::tempdir().expect("a directory");
    let home = Home::new(place.path().join("home"));
    saved::save(&home, "before", &report).expect("kept");
    let kept = saved::load(&home, "before").expect("read");
    assert_eq!(kept, report);
    let changes = saved::changes(&report, &kept);
    assert_eq!(changes.len(), report.stages.len() + report.totals.len());
    assert!(changes.iter().all(|change| change.percent.abs() < 1e-9));
    assert!(saved::differences(&report, &kept).is_empty());
    let unknown = saved::load(&home, "after")
        .expect_err("none such")
        .to_string();
    assert!(unknown.contains("no baseline `after`"), "{unknown}");
    assert!(unknown.contains("there are before"), "{unknown}");
}

#[test]
fn a_run_of_every_other_pattern_and_of_seen_transactions_works() {
    for pattern in [Pattern::Zipf, Pattern::Mixed, Pattern::OneRecipient] {
        let mut options = TINY;
        options.shape.pattern = pattern;
        options.blocks = 6;
        options.seen = 100;
        let report = verify(&options).expect("a run");
        assert_eq!(report.pattern, pattern);
        if pattern == Pattern::Mixed {
            assert!(report.signatures > 50.0, "sponsors, consents, attestations");
        }
    }
}

#[test]
fn numbers_out_of_range_are_refused_by_name_value_and_rule() {
    type Change = fn(&mut Options);
    let cases: [(Change, &str); 7] = [
        (|of| of.shape.txs = 0, "--txs 0: 1 to 20000 are possible"),
        (
            |of| of.shape.txs = 20_001,
            "--txs 20001: 1 to 20000 are possible",
        ),
        (|of| of.shape.accounts = 1, "--accounts 1: 2 to "),
        (|of| of.threads = 0, "--threads 0: 1 to "),
        (|of| of.blocks = 0, "--blocks 0: 1 to "),
        (|of| of.seen = 50, "--seen 50: 0 for none"),
        (|of| of.shape.accounts = usize::MAX, "--accounts "),
    ];
    for (change, words) in cases {
        let mut options = TINY;
        change(&mut options);
        let refused = verify(&options).expect_err(words);
        assert!(matches!(refused, BenchError::Argument { .. }), "{refused}");
        assert!(refused.to_string().starts_with(words), "{refused}");
    }
}

#[test]
fn the_largest_block_of_every_pattern_fits() {
    for pattern in [
        Pattern::Uniform,
        Pattern::Zipf,
        Pattern::Mixed,
        Pattern::OneRecipient,
    ] {
        let shape = Shape {
            pattern,
            accounts: 2,
            txs: super::TXS_MAX,
        };
        check_shape(&shape).expect("it fits");
    }
    let params = crate::devnet::genesis(4, 0).params;
    assert_eq!(params.block_transactions_max as usize, super::TXS_MAX);
}

#[test]
fn a_name_of_figures_stays_in_its_directory() {
    for good in ["before", "a", "1.2-rc_3", &"a".repeat(64)] {
        saved::check_name("save", good).expect(good);
    }
    for bad in ["", "../x", "a/b", ".hidden", "a b", "ä", &"a".repeat(65)] {
        let refused = saved::check_name("save", bad).expect_err(bad).to_string();
        assert!(refused.starts_with(&format!("--save {bad}: ")), "{refused}");
    }
}
