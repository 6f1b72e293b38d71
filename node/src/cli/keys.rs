//! `proofmill keys`: account keys in the user's home.

use anyhow::{Context, bail};
use clap::Subcommand;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::Hash;
use serde_json::{Map, Value, json};

use crate::cli::session::{key_file, key_names};
use crate::cli::{Global, out};
use crate::home::Home;
use crate::{dev_keys, keys};

/// Make and show account keys
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  proofmill keys new alice
  proofmill keys list

A key is a file keys/accounts/NAME.json below --home, readable by its owner alone. It is not
encrypted: whoever reads it owns the account.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new key
    #[command(after_help = "Example:\n  proofmill keys new alice")]
    New {
        /// What to call it: lower-case letters, digits, hyphens and underscores
        name: String,
    },
    /// Show a key's account; its seed only with --secret
    #[command(after_help = "Examples:\n  proofmill keys show alice\n  proofmill keys show dev0")]
    Show {
        /// The key's name
        name: String,
        /// Show the seed too: whoever sees it owns the account
        #[arg(long)]
        secret: bool,
    },
    /// List the keys
    #[command(after_help = "Example:\n  proofmill keys list")]
    List,
}

/// Runs the command.
///
/// # Errors
/// When a name or a key file is refused.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let home = global.home()?;
    match args.command {
        KeysCommand::New { name } => {
            let key = new(&home, &name)?;
            print(&view(&home, &name, &key, false), global.json)
        }
        KeysCommand::Show { name, secret } => show(&home, &name, secret, global.json),
        KeysCommand::List => list(&home, global.json),
    }
}

fn new(home: &Home, name: &str) -> anyhow::Result<SecretKey> {
    keys::check_name(name)?;
    if dev_keys::named(name).is_some() {
        bail!("`{name}` is the name of a development key, which everybody has: choose another");
    }
    let path = home.accounts().join(format!("{name}.json"));
    let key = keys::generate()?;
    keys::write_new(&path, &key)?;
    Ok(key)
}

fn show(home: &Home, name: &str, secret: bool, json: bool) -> anyhow::Result<()> {
    let key = match key_file(home, name)? {
        Some(key) => key,
        None => dev_keys::named(name).with_context(|| {
            format!(
                "there is no key `{name}` in {}: `proofmill keys list` shows those there are",
                home.accounts().display()
            )
        })?,
    };
    print(&view(home, name, &key, secret), json)
}

fn list(home: &Home, json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for name in key_names(home)? {
        match key_file(home, &name) {
            Ok(Some(key)) => {
                rows.push(vec![name.clone(), key.public().to_string()]);
                values.push(Value::Object(view(home, &name, &key, false)));
            }
            Ok(None) => {}
            Err(error) => {
                rows.push(vec![name.clone(), format!("unusable: {error}")]);
                values.push(json!({ "name": name, "error": error.to_string() }));
            }
        }
    }
    if json {
        out::json(&json!({ "keys": values }))
    } else if rows.is_empty() {
        out::text(&format!(
            "no keys in {}: `proofmill keys new NAME` makes one",
            home.accounts().display()
        ))
    } else {
        out::text(&out::table(&["NAME", "ACCOUNT"], &rows))
    }
}

fn view(home: &Home, name: &str, key: &SecretKey, secret: bool) -> Map<String, Value> {
    let account = key.public();
    let path = home.accounts().join(format!("{name}.json"));
    let mut view = Map::new();
    view.insert("name".into(), name.into());
    view.insert("account".into(), account.to_string().into());
    view.insert("did".into(), account.did().into());
    let place = if path.exists() {
        path.display().to_string()
    } else {
        "none: a development key, the same for everybody".into()
    };
    view.insert("path".into(), place.into());
    if secret {
        let seed = Hash::new(key.seed()).to_string();
        view.insert("seed".into(), seed.into());
    }
    view
}

fn print(view: &Map<String, Value>, json: bool) -> anyhow::Result<()> {
    if json {
        return out::json(view);
    }
    let order = ["name", "account", "did", "path", "seed"];
    let pairs: Vec<_> = order
        .iter()
        .filter_map(|name| Some((*name, view.get(*name)?.as_str()?.to_owned())))
        .collect();
    out::text(&out::pairs(&pairs))
}

#[cfg(test)]
mod tests {
    use super::{new, view};
    use crate::cli::session::key_file;
    use crate::home::Home;

    #[test]
    fn a_new_key_gets_a_name_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::new(folder.path());
        new(&home, "alice").expect("made");
        let again = new(&home, "alice").expect_err("it exists").to_string();
        assert!(again.contains("never overwritten"), "{again}");
        let taken = new(&home, "dev0").expect_err("reserved").to_string();
        assert!(taken.contains("development key"), "{taken}");
        assert!(new(&home, "../x").is_err());
    }

    #[test]
    fn the_seed_is_shown_only_when_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::new(folder.path());
        let key = new(&home, "alice").expect("made");
        let read = key_file(&home, "alice").expect("read").expect("there");
        assert_eq!(read.seed(), key.seed());
        let digits = hex::encode(key.seed());
        let shown = |secret| format!("{:?}", view(&home, "alice", &key, secret));
        assert!(!shown(false).contains(&digits) && shown(true).contains(&digits));
    }
}
