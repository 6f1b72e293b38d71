//! Nodes' homes: copied, damaged, and nodes that must refuse to start in them.

use std::fs;
use std::path::Path;

use super::{Said, proofmill, run};

/// Starts a node in a home; it must end by itself.
#[track_caller]
pub(crate) fn start(home: &Path, rpc: &str) -> Said {
    run(proofmill()
        .args(["start", "--rpc-listen", rpc, "--home"])
        .arg(home)
        .args(["--consensus-listen", "/ip4/127.0.0.1/tcp/0"])
        .args(["--gossip-listen", "/ip4/127.0.0.1/tcp/0"]))
}

pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry").path();
        let to = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            // With its mode.
            fs::copy(&entry, &to).expect("a copy");
        }
    }
}

/// Overwrites bytes in the middle of the database's files whose name is `like`; says how many.
pub(crate) fn damage(home: &Path, like: impl Fn(&str) -> bool) -> usize {
    let mut damaged = 0;
    for entry in fs::read_dir(home.join("data/db")).expect("a database") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        if !like(name.expect("a name")) {
            continue;
        }
        let mut bytes = fs::read(&path).expect("a file");
        let middle = bytes.len() / 2;
        let Some(part) = bytes.get_mut(middle..middle + 32) else {
            continue;
        };
        part.iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, bytes).expect("written");
        damaged += 1;
    }
    damaged
}
