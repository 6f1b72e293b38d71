//! The picture in `docs/architecture.md`, checked against the manifests and the sources:
//! which crate may use which, which crates stay free of effects, and which names stay in one room.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

/// Every member and the members it may use, in what it ships and in its tests.
/// Nothing uses `benches`.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "benches",
        &["chain", "compute", "signer", "consensus", "rpc", "node"],
    ),
    ("chain", &[]),
    ("compute", &[]),
    ("consensus", &["chain", "signer"]),
    ("node", &["chain", "compute", "signer", "consensus", "rpc"]),
    ("rpc", &["chain"]),
    ("signer", &["chain"]),
];

/// All that a pure crate may ship with: none of these opens a file or a socket, or reads a clock or the
/// system's random numbers, with the features that the workspace gives it.
const PURE: &[(&str, &[&str])] = &[
    (
        "chain",
        &[
            "bech32",
            "bincode",
            "bs58",
            "curve25519-dalek",
            "ed25519-dalek",
            "hex",
            "rayon",
            "serde",
            "sha2",
            "smallvec",
            "subtle",
            "thiserror",
            "vrf-rfc9381",
            "zeroize",
        ],
    ),
    (
        "compute",
        &[
            "serde",
            "sha2",
            "thiserror",
            "wasm-encoder",
            "wasmi",
            "wasmparser",
            "wasmtime",
        ],
    ),
];

/// What the tests of the pure crates may use besides.
const PURE_TESTS: &[&str] = &[
    "ed25519-zebra",
    "hex",
    "proptest",
    "serde_json",
    "wasmi",
    "wat",
];

/// How the names of some packages begin, how sources name them, and the only member that may.
const ROOMS: &[(&str, &str, &str)] = &[
    ("arc-malachitebft", "arc_malachitebft", "consensus"),
    ("axum", "axum::", "rpc"),
    ("bincode", "bincode", "chain"),
    ("librocksdb", "librocksdb_sys", "node"),
    ("rocksdb", "rocksdb::", "node"),
];

/// The entries of the top level; beside them only dot-files and dot-directories.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "benches",
    "chain",
    "compute",
    "consensus",
    "docs",
    "examples",
    "genesis.json",
    "node",
    "rpc",
    "signer",
];

/// The pure part of `consensus`, and what its sources may not name: whatever waits, reads a clock or
/// draws random numbers, and the engine beyond its core types.
const PURE_CORE: &str = "consensus/src/core";
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "async",
    "await",
    "arc_malachitebft",
    "Mutex",
    "SystemTime",
    "Instant",
    "std::thread",
    "std::fs",
    "std::net",
    "tracing",
    "rand",
    "crate::adapter::",
    "crate::engine",
    "crate::context",
    "HashMap",
    "HashSet",
];

const CODEC: &str = "chain/src/codec.rs";
const THIS_FILE: &str = "node/tests/layering.rs";

#[test]
fn every_member_is_in_the_picture() {
    let drawn: BTreeSet<&str> = ARROWS.iter().map(|(member, _)| *member).collect();
    let members = members();
    let listed: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(listed, drawn);
}

#[test]
fn no_arrow_is_drawn_that_is_not_in_the_picture() {
    let members = members();
    let mut violations = Vec::new();
    for (member, may_use) in ARROWS {
        for (kind, packages) in members[*member].kinds() {
            for package in packages {
                if let Some(other) = package.strip_prefix("proofmill-")
                    && !may_use.contains(&other)
                {
                    violations.push(format!("{member} {kind} {other}"));
                }
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn pure_crates_use_only_pure_crates() {
    let members = members();
    let mut violations = Vec::new();
    for (member, pure) in PURE {
        let uses = &members[*member];
        let pure: BTreeSet<&str> = pure.iter().copied().collect();
        let in_tests = pure.iter().chain(PURE_TESTS).copied().collect();
        for (kind, packages, allowed) in [
            ("ships with", &uses.shipped, &pure),
            ("is tested with", &uses.tests, &in_tests),
        ] {
            for package in packages {
                if !allowed.contains(package.as_str()) {
                    violations.push(format!(
                        "{member} {kind} {package}, not known to have no effects"
                    ));
                }
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn each_engine_stays_in_its_room() {
    let mut violations = Vec::new();
    for (member, uses) in &members() {
        let sources = sources(member);
        for (prefix, name, room) in ROOMS.iter().filter(|(.., room)| room != member) {
            for (kind, packages) in uses.kinds() {
                for package in packages.iter().filter(|name| name.starts_with(prefix)) {
                    violations.push(format!("{member} {kind} {package}, which only {room} may"));
                }
            }
            for (file, _) in sources.iter().filter(|(_, text)| text.contains(name)) {
                violations.push(format!("{file} names {prefix}, which only {room} may"));
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn the_core_of_consensus_has_no_effects() {
    let core: Vec<_> = sources("consensus")
        .into_iter()
        .filter(|(file, _)| file.starts_with(PURE_CORE))
        .collect();
    assert!(core.len() > 5, "{PURE_CORE} is gone");
    let mut violations = Vec::new();
    for (file, text) in &core {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code: Vec<_> = code.collect();
        for name in NOT_IN_CORE {
            if code.iter().any(|line| names(line, name)) {
                violations.push(format!("{file} names {name}"));
            }
        }
    }
    assert_none(&violations);
}

/// Whether a line has a name that does not go on as a longer word before it.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    })
}

#[test]
fn only_the_codec_names_bincode() {
    let naming: Vec<String> = sources("chain")
        .into_iter()
        .filter(|(_, text)| text.contains("bincode"))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(naming, [CODEC]);
}

#[test]
fn the_top_level_has_only_its_rooms() {
    let violations: Vec<String> = top_level()
        .into_iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| format!("{name} does not belong at the top level"))
        .collect();
    assert_none(&violations);
}

/// The dependencies of one member, under the names of their packages.
#[derive(Default)]
struct Uses {
    shipped: BTreeSet<String>,
    tests: BTreeSet<String>,
}

impl Uses {
    fn kinds(&self) -> [(&'static str, &BTreeSet<String>); 2] {
        [
            ("ships with", &self.shipped),
            ("is tested with", &self.tests),
        ]
    }
}

/// Every member's dependencies, by its directory.
fn members() -> BTreeMap<String, Uses> {
    let root = root();
    let workspace = manifest(&root.join("Cargo.toml"));
    let shared = workspace["workspace"]["dependencies"]
        .as_table()
        .expect("the workspace has dependencies");
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("the workspace has members");
    members
        .iter()
        .map(|member| {
            let member = member.as_str().expect("a member is a path");
            let table = manifest(&root.join(member).join("Cargo.toml"));
            let mut uses = Uses::default();
            for kind in ["dependencies", "build-dependencies"] {
                collect(&table, kind, shared, &mut uses.shipped);
            }
            collect(&table, "dev-dependencies", shared, &mut uses.tests);
            (member.to_owned(), uses)
        })
        .collect()
}

/// Adds the packages of one kind of dependency, also those under `[target.'…']`.
fn collect(table: &Table, kind: &str, shared: &Table, into: &mut BTreeSet<String>) {
    let dependencies = table.get(kind).and_then(Value::as_table);
    for (key, value) in dependencies.into_iter().flatten() {
        let renamed = |value: &Value| Some(value.get("package")?.as_str()?.to_owned());
        let package = renamed(value).or_else(|| shared.get(key).and_then(renamed));
        into.insert(package.unwrap_or_else(|| key.clone()));
    }
    let targets = table.get("target").and_then(Value::as_table);
    for target in targets
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table)
    {
        collect(target, kind, shared, into);
    }
}

/// The Rust sources of a member but this file, as paths from the root with their text. A crate of its
/// own inside a member's directory is outside the workspace and no part of the member.
fn sources(member: &str) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut pending = vec![root.join(member)];
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path).expect("a member's directories are readable") {
            let path = entry.expect("an entry is readable").path();
            if path.is_dir() {
                if !path.ends_with("target") && !path.join("Cargo.toml").exists() {
                    pending.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(&root).expect("found under the root");
                if file != Path::new(THIS_FILE) {
                    found.push((file.display().to_string(), read(&path)));
                }
            }
        }
    }
    assert!(!found.is_empty(), "{member} has no sources");
    found
}

/// The names at the top level: of what git tracks, or every one but `target` where this is no checkout.
fn top_level() -> BTreeSet<String> {
    let listing = Command::new("git")
        .arg("ls-files")
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty());
    if let Some(listing) = listing {
        return String::from_utf8_lossy(&listing.stdout)
            .lines()
            .filter_map(|path| path.split('/').next())
            .map(str::to_owned)
            .collect();
    }
    std::fs::read_dir(root())
        .expect("the root is readable")
        .map(|entry| entry.expect("an entry is readable").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name != "target")
        .collect()
}

#[test]
fn a_crate_outside_the_workspace_is_excluded_by_name() {
    let root = root();
    let workspace = manifest(&root.join("Cargo.toml"));
    let excluded = workspace["workspace"]["exclude"]
        .as_array()
        .expect("the workspace excludes some");
    for path in excluded {
        let path = root.join(path.as_str().expect("a path"));
        let table = manifest(&path.join("Cargo.toml"));
        assert!(table.contains_key("workspace"), "{}", path.display());
        assert!(path.join("Cargo.lock").exists(), "{}", path.display());
    }
}

fn root() -> PathBuf {
    let node = Path::new(env!("CARGO_MANIFEST_DIR"));
    node.parent()
        .expect("node is inside the workspace")
        .to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(path: &Path) -> Table {
    read(path)
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}
