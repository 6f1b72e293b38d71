//! The well-known development keys: everybody has them, so a public chain refuses them.
//!
//! The seed of a key is `SHA-256("proofmill/dev-key/v1/<role>/<index>")`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Hash};

/// Keys with a lower index are known as development keys.
pub const INDEX_MAX: u32 = 64;
/// How many accounts a development network has, `dev0` and on.
pub const ACCOUNTS: u32 = 10;

const ROLES: [&str; 8] = [
    "validator",
    "beacon",
    "network",
    "reward",
    "account",
    "faucet",
    "worker",
    "operator",
];

/// The key with which validator `index` votes.
#[must_use]
pub fn validator(index: u32) -> SecretKey {
    key("validator", index)
}

/// Validator `index`'s beacon key.
#[must_use]
pub fn beacon(index: u32) -> SecretKey {
    key("beacon", index)
}

/// The key that names node `index` in the network.
#[must_use]
pub fn network(index: u32) -> SecretKey {
    key("network", index)
}

/// The account that validator `index`'s tips and shares go to.
#[must_use]
pub fn reward(index: u32) -> SecretKey {
    key("reward", index)
}

/// The account `dev<index>`.
#[must_use]
pub fn account(index: u32) -> SecretKey {
    key("account", index)
}

/// The account that has money to give away.
#[must_use]
pub fn faucet() -> SecretKey {
    key("faucet", 0)
}

/// Worker `index`'s key.
#[must_use]
pub fn worker(index: u32) -> SecretKey {
    key("worker", index)
}

/// The account that worker `index` works for.
#[must_use]
pub fn operator(index: u32) -> SecretKey {
    key("operator", index)
}

/// The key of an account by its name: `dev0` to `dev9`, `faucet`.
#[must_use]
pub fn named(name: &str) -> Option<SecretKey> {
    if name == "faucet" {
        return Some(faucet());
    }
    (0..ACCOUNTS)
        .find(|index| name.strip_prefix("dev") == Some(index.to_string().as_str()))
        .map(account)
}

/// The names that [`named`] knows, with their keys: `dev0` to `dev9`, then `faucet`.
pub fn accounts() -> impl Iterator<Item = (String, SecretKey)> {
    (0..ACCOUNTS)
        .map(|index| (format!("dev{index}"), account(index)))
        .chain([("faucet".into(), faucet())])
}

/// Whether everybody has this key's secret.
#[must_use]
pub fn is_dev_key(id: &AccountId) -> bool {
    static ALL: LazyLock<BTreeSet<AccountId>> = LazyLock::new(|| {
        ROLES
            .iter()
            .flat_map(|role| (0..INDEX_MAX).map(|index| key(role, index).public()))
            .collect()
    });
    ALL.contains(id)
}

fn key(role: &str, index: u32) -> SecretKey {
    let seed = Hash::of(&format!("proofmill/dev-key/v1/{role}/{index}"), &[]);
    SecretKey::from_seed(seed.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{accounts, faucet, is_dev_key, named, operator, validator};
    use proofmill_chain::crypto::sign::SecretKey;

    #[test]
    fn the_accounts_are_the_same_for_ever() {
        let id = |name| named(name).expect("a known name").public().to_string();
        assert_eq!(
            id("dev0"),
            "mill1w5kmz7maddmsjzpmte28hxcdd50qr684fhyxk2ka50v6c6qlvnns6j74hz"
        );
        assert_eq!(
            id("faucet"),
            "mill1ranc93z2qq88q607eg6nyv8x0g9yn9qy9jqardv677zw9qxxh54s0l7k6r"
        );
        assert!(named("dev10").is_none() && named("dev01").is_none() && named("bob").is_none());
        let all: BTreeSet<_> = accounts().map(|(_, key)| key.public()).collect();
        assert_eq!(all.len(), 11);
    }

    #[test]
    fn development_keys_are_told_from_others() {
        for key in [validator(0), validator(63), operator(2), faucet()] {
            assert!(is_dev_key(&key.public()));
        }
        assert!(!is_dev_key(&SecretKey::from_seed(&[1; 32]).public()));
    }
}
