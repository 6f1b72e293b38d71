//! A command's view of the world: a node, the chain it serves, and the keys and names at hand.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, bail};
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::genesis::DEVNET_PREFIX;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::Action;
use proofmill_rpc::api::NodeInfo;

use crate::cli::{Global, NodeArgs, out};
use crate::client::{Client, Error, Options, Sent, Wallet};
use crate::dev_keys;
use crate::home::Home;
use crate::keys::{self, KeyFileError};

/// Development workers, validators and their accounts with a lower index are shown by name.
const NAMED: u32 = 16;

/// A node, its chain and the user's keys.
pub(crate) struct Session {
    /// The node.
    pub(crate) client: Client,
    /// What it says it is.
    pub(crate) info: NodeInfo,
    home: Home,
    names: OnceCell<BTreeMap<AccountId, String>>,
}

impl Session {
    /// Asks the node what it is.
    pub(crate) fn open(node: &NodeArgs, global: &Global) -> anyhow::Result<Self> {
        let client = Client::new(&node.rpc)?;
        let info = client.node_info()?;
        Ok(Self {
            client,
            info,
            home: global.home()?,
            names: OnceCell::new(),
        })
    }

    /// Whether the well-known development keys may be used on this chain.
    pub(crate) fn is_devnet(&self) -> bool {
        is_devnet(&self.info.chain_id)
    }

    /// The key of a name: a key file's, or a development key on a devnet.
    pub(crate) fn key(&self, name: &str) -> anyhow::Result<SecretKey> {
        match key_file(&self.home, name)? {
            Some(key) => Ok(key),
            None => match dev_keys::named(name) {
                Some(key) if self.is_devnet() => Ok(key),
                Some(_) => bail!(
                    "`{name}` is a development key, which everybody has; {} is no devnet and refuses it",
                    self.info.chain_id
                ),
                None => bail!(
                    "there is no key `{name}` in {}: make it with `proofmill keys new {name}`{}",
                    self.home.accounts().display(),
                    if self.is_devnet() {
                        "; on a devnet dev0 to dev9 and faucet always work"
                    } else {
                        ""
                    }
                ),
            },
        }
    }

    /// The wallet of a name.
    pub(crate) fn wallet(&self, name: &str) -> anyhow::Result<Wallet> {
        let key = self.key(name)?;
        Ok(Wallet::new(
            self.client.clone(),
            self.info.genesis_hash,
            key,
        ))
    }

    /// Sends a transaction, and prints its id on standard error before any byte of it leaves.
    pub(crate) fn send(
        &self,
        wallet: &Wallet,
        action: &Action,
        options: &Options,
    ) -> Result<Sent, Error> {
        wallet.send_announced(action, options, &mut |sent| {
            out::note(&format!(
                "sending {} {}, valid until block {}",
                action.name(),
                sent.transaction,
                sent.expires_at
            ));
        })
    }

    /// An account, given as such or as the name of a key.
    pub(crate) fn account(&self, text: &str) -> anyhow::Result<AccountId> {
        if text.starts_with("mill1") {
            return Ok(text.parse()?);
        }
        let key = self.key(text);
        Ok(key
            .with_context(|| format!("`{text}` is neither an account (mill1…) nor a key's name"))?
            .public())
    }

    /// What to call an account: its key's name when it has one here, else its shortened text.
    pub(crate) fn name_of(&self, account: &AccountId) -> String {
        let names = self.names.get_or_init(|| self.names());
        names
            .get(account)
            .cloned()
            .unwrap_or_else(|| shortened(account))
    }

    fn names(&self) -> BTreeMap<AccountId, String> {
        let mut names = if self.is_devnet() {
            development_names()
        } else {
            BTreeMap::new()
        };
        names.extend(key_file_names(&self.home));
        names
    }
}

/// The names of all accounts whose keys are known here, whatever chain is asked.
pub(crate) fn names_at_hand(home: &Home) -> BTreeMap<AccountId, String> {
    let mut names = development_names();
    names.extend(key_file_names(home));
    names
}

fn development_names() -> BTreeMap<AccountId, String> {
    type Role = (&'static str, fn(u32) -> SecretKey);
    let roles: [Role; 4] = [
        ("worker", dev_keys::worker),
        ("operator", dev_keys::operator),
        ("validator", dev_keys::validator),
        ("reward", dev_keys::reward),
    ];
    let mut names = BTreeMap::new();
    for (role, key) in roles {
        names.extend((0..NAMED).map(|i| (key(i).public(), format!("{role}{i}"))));
    }
    names.extend(dev_keys::accounts().map(|(name, key)| (key.public(), name)));
    names
}

fn key_file_names(home: &Home) -> BTreeMap<AccountId, String> {
    let mut names = BTreeMap::new();
    // A key that cannot be read has no name; the command that needs it says why.
    for name in key_names(home).unwrap_or_default() {
        if let Ok(Some(key)) = key_file(home, &name) {
            names.insert(key.public(), name);
        }
    }
    names
}

/// Whether a chain of this CAIP-2 name may use the development keys.
fn is_devnet(chain_id: &str) -> bool {
    chain_id
        .strip_prefix("proofmill:")
        .is_some_and(|name| name.starts_with(DEVNET_PREFIX))
}

/// The key of a key file, `None` when there is no such file.
pub(crate) fn key_file(home: &Home, name: &str) -> anyhow::Result<Option<SecretKey>> {
    keys::check_name(name)?;
    match keys::read(&home.accounts().join(format!("{name}.json"))) {
        Ok(key) => Ok(Some(key)),
        Err(KeyFileError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names of the key files, sorted.
pub(crate) fn key_names(home: &Home) -> anyhow::Result<Vec<String>> {
    let folder = home.accounts();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("cannot list {}: {error}", folder.display()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
        names.extend(
            name.filter(|name| keys::check_name(name).is_ok())
                .map(str::to_owned),
        );
    }
    names.sort_unstable();
    Ok(names)
}

fn shortened(account: &AccountId) -> String {
    let text = account.to_string();
    match (text.get(..11), text.get(text.len().saturating_sub(5)..)) {
        (Some(start), Some(end)) => format!("{start}…{end}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_devnet, key_file, key_names, shortened};
    use crate::home::Home;
    use crate::{dev_keys, keys};

    #[test]
    fn development_keys_work_on_devnets_alone() {
        assert!(is_devnet("proofmill:devnet") && is_devnet("proofmill:devnet-7"));
        assert!(!is_devnet("proofmill:mainnet") && !is_devnet("devnet") && !is_devnet(""));
    }

    #[test]
    fn key_files_are_found_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::new(folder.path());
        assert!(key_names(&home).expect("no folder yet").is_empty());
        let key = dev_keys::account(3);
        for name in ["bob", "alice"] {
            let path = home.accounts().join(format!("{name}.json"));
            keys::write_new(&path, &key).expect("written");
        }
        std::fs::write(home.accounts().join("README"), "").expect("written");
        assert_eq!(key_names(&home).expect("names"), ["alice", "bob"]);
        let found = key_file(&home, "alice").expect("read").expect("there");
        assert_eq!(found.public(), key.public());
        assert!(key_file(&home, "carol").expect("not there").is_none());
        assert!(key_file(&home, "../alice").is_err());
    }

    #[test]
    fn an_account_is_shortened_to_both_its_ends() {
        let account = dev_keys::account(0).public();
        let text = account.to_string();
        let short = shortened(&account);
        let (start, end) = short.split_once('…').expect("cut");
        assert!(text.starts_with(start) && text.ends_with(end));
        assert!(short.chars().count() < 20);
    }
}
