//! Which value wins, and what is said about the others.

use std::collections::BTreeSet;

use super::{Config, ConfigError, Effective, KEYS, LogFormat, Overrides, Source, flat};
use crate::home::Home;

struct Place {
    home: Home,
    _directory: tempfile::TempDir,
}

fn place(config: &str) -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let home = Home::new(directory.path());
    std::fs::write(home.config(), config).expect("a file");
    Place {
        home,
        _directory: directory,
    }
}

fn refusal(config: &str) -> String {
    let place = place(config);
    Effective::load(&place.home, &Overrides::default(), |_| None)
        .expect_err("a refusal")
        .to_string()
}

#[test]
fn flags_come_before_environment_before_file_before_defaults() {
    let place = place("moniker = \"file\"\n[block]\nidle_ms = 7\n[log]\nbytes_max = 70000\n");
    let environment = |name: &str| match name {
        "PROOFMILL_MONIKER" => Some("environment".into()),
        "PROOFMILL_BLOCK_IDLE_MS" => Some("8".to_owned()),
        "PROOFMILL_LOG" => Some("debug".to_owned()),
        _ => None,
    };
    let mut flags = Overrides::default();
    flags.set("moniker", Some("flag"));
    flags.set("rpc.listen", None);
    let effective = Effective::load(&place.home, &flags, environment).expect("a configuration");
    assert_eq!(effective.config.moniker, "flag");
    assert_eq!(effective.config.block.idle_ms, 8);
    assert_eq!(effective.config.log.bytes_max, 70_000);
    assert_eq!(effective.config.log.level, "debug");
    assert_eq!(effective.config.rpc, Config::default().rpc);
    let source = |key| {
        let mut settings = effective.settings.iter();
        settings
            .find(|setting| setting.key == key)
            .map(|setting| setting.source)
    };
    assert_eq!(source("moniker"), Some(Source::Flag));
    assert_eq!(source("block.idle_ms"), Some(Source::Environment));
    assert_eq!(source("log.bytes_max"), Some(Source::File));
    assert_eq!(source("rpc.listen"), Some(Source::Default));
}

#[test]
fn the_table_has_every_field_and_no_other() {
    let fields: BTreeSet<_> = flat(&Config::default()).keys().cloned().collect();
    let keys: BTreeSet<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields, keys);
}

#[test]
fn a_written_file_is_read_back() {
    let mut config = Config {
        moniker: "a \"quoted\" name".into(),
        ..Config::default()
    };
    config.log.format = LogFormat::Json;
    config.gossip.peers = vec!["/ip4/127.0.0.1/tcp/1".parse().expect("an address")];
    let place = place(&config.to_commented_toml());
    let read = Effective::load(&place.home, &Overrides::default(), |_| None);
    let read = read.expect("a configuration");
    assert_eq!(read.config, config);
    assert!(
        read.settings
            .iter()
            .all(|setting| setting.source == Source::File)
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    let message = refusal("[rpc]\nlisen = \"127.0.0.1:1\"\n");
    assert!(
        message.ends_with("unknown key `rpc.lisen`: did you mean `rpc.listen`?"),
        "{message}"
    );
    let message = refusal("[rcp]\nlisten = \"127.0.0.1:1\"\n");
    assert!(message.ends_with("did you mean `rpc.listen`?"), "{message}");
    let message = refusal("wholly_other = 1\n");
    assert!(
        message.contains("`wholly_other`; `proofmill config show`"),
        "{message}"
    );
}

#[test]
fn a_value_that_cannot_be_is_named_with_its_origin() {
    let cases = [
        ("moniker = \"\"", "1 to 64 bytes"),
        ("[rpc]\nlisten = \"localhost\"", "an address and a port"),
        ("[rpc]\nlisten = 5", "a string is expected, not an integer"),
        (
            "[rpc]\ncors_origins = [\"example.org\"]",
            "\"example.org\" is not an origin",
        ),
        ("[rpc]\nlisten = \"::1:0\"", "or \"[::1]:26650\""),
        (
            "[rpc]\nhosts = [\"http://a\"]",
            "\"http://a\" is not a host name",
        ),
        ("[rpc]\nhosts = [\"a:80\"]", "\"a:80\" is not a host name"),
        ("[rpc]\nconnections_max = 0", "at least 1"),
        (
            "[rpc]\nconnections_per_address_max = 65537",
            "at most 65536",
        ),
        ("[rpc]\nrequests_max = 1", "at least 2"),
        ("[rpc]\nanswers_bytes_max = 33554431", "at least 33554432"),
        ("[consensus]\nlisten = \"127.0.0.1:5\"", "a multiaddress"),
        (
            "[gossip]\npeers = [\"/ip4/1.2.3.4/tcp/5\", 5]",
            "5 is not a multiaddress",
        ),
        ("[block]\nidle_ms = 60001", "at most 60000"),
        ("[memory]\ncaches_mib = 31", "at least 32"),
        ("[supply]\nverify_every = -1", "at least 0"),
        ("[log]\nlevel = \"inof\"", "did you mean `info`?"),
        ("[log]\nlevel = \"info,x=loud\"", "`loud` is no level"),
        ("[log]\nformat = \"xml\"", "\"text\" or \"json\""),
        ("[log]\nbytes_max = 1", "at least 65536"),
        ("[log]\nfiles_max = 0", "at least 1"),
    ];
    for (config, expected) in cases {
        let message = refusal(config);
        assert!(message.contains(expected), "{config}: {message}");
        assert!(message.contains("config.toml"), "{message}");
    }
    let place = place("");
    let environment = |name: &str| (name == "PROOFMILL_BLOCK_IDLE_MS").then(|| "soon".to_owned());
    let message = Effective::load(&place.home, &Overrides::default(), environment)
        .expect_err("a refusal")
        .to_string();
    assert!(
        message.contains("environment PROOFMILL_BLOCK_IDLE_MS"),
        "{message}"
    );
    let mut flags = Overrides::default();
    flags.set("rpc.listen", Some("nowhere"));
    let message = Effective::load(&place.home, &flags, |_| None).expect_err("a refusal");
    assert!(
        message.to_string().contains("flag --rpc-listen"),
        "{message}"
    );
}

#[test]
fn a_home_without_a_file_is_told_to_init() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = Effective::load(&Home::new(directory.path()), &Overrides::default(), |_| {
        None
    });
    assert!(matches!(&missing, Err(ConfigError::Missing(_))));
    assert!(
        missing
            .expect_err("a refusal")
            .to_string()
            .contains("proofmill init")
    );
    assert!(refusal("= 1").contains("is not TOML"));
}

#[test]
fn every_key_is_documented() {
    let manual = include_str!("../../../docs/operators.md");
    for key in KEYS {
        assert!(
            manual.contains(&format!("`{}`", key.name)),
            "{} is not in the manual",
            key.name
        );
        assert!(
            manual.contains(&format!("`{}`", key.variable())),
            "{} is not in the manual",
            key.variable()
        );
    }
}
