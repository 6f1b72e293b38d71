//! The blocks of a data directory that is only read: nothing in it is locked, written or repaired,
//! and a node may go on running in it.

use std::path::Path;

use proofmill_chain::codec;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use rocksdb::DB;

use super::keys::{self, Family};
use super::view::{CERTIFICATE_BYTES_MAX, parse_head};
use super::{StoreError, open};

/// A data directory as it was when this was opened.
pub struct History {
    db: DB,
}

impl History {
    /// Opens a data directory for reading.
    ///
    /// # Errors
    /// When there is none, or it is another chain's, of another layout, damaged or unreadable.
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        let history = Self::open_any(path)?;
        open::check_identity(path, genesis.hash(), |key| history.get(Family::Meta, key))?
            .ok_or_else(|| StoreError::corrupt("the layout's version is missing"))?;
        Ok(history)
    }

    fn open_any(path: &Path) -> Result<Self, StoreError> {
        if !path.join("CURRENT").exists() {
            return Err(StoreError::Io(format!(
                "{} holds no database",
                path.display()
            )));
        }
        let options = open::reading_options();
        let families = Family::ALL.map(|family| family.name());
        let db = DB::open_cf_for_read_only(&options, path, families, false)
            .map_err(|error| StoreError::from_open(error.as_ref(), path, true))?;
        Ok(Self { db })
    }

    /// What is wrong with a directory of another layout than this version's; `None` when there is no
    /// database, or none of another layout.
    #[must_use]
    pub fn other_layout(path: &Path) -> Option<StoreError> {
        match Self::open_any(path) {
            Ok(history) => {
                let genesis = Hash::ZERO;
                let meta = |key: &[u8]| history.get(Family::Meta, key);
                let refused = open::check_identity(path, genesis, meta).err();
                refused.filter(|error| matches!(error, StoreError::OtherSchema { .. }))
            }
            Err(_) => None,
        }
    }

    /// The height of the last committed block; zero when there is only genesis.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn head(&self) -> Result<Height, StoreError> {
        parse_head(self.get(Family::Meta, keys::META_HEAD)?)
    }

    /// A block's encoding: its header, then its body.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn block_bytes(&self, height: Height) -> Result<Vec<u8>, StoreError> {
        let key = keys::height_key(height);
        let mut bytes = self.present(Family::Header, &key)?;
        bytes.extend_from_slice(&self.present(Family::Body, &key)?);
        Ok(bytes)
    }

    /// The certificate that makes a block final.
    ///
    /// # Errors
    /// When it is missing, cannot be read or does not decode.
    pub fn certificate(&self, height: Height) -> Result<Certificate, StoreError> {
        let bytes = self.present(Family::Certificate, &keys::height_key(height))?;
        codec::decode::<Certificate, CERTIFICATE_BYTES_MAX>(&bytes)
            .map_err(|error| StoreError::undecodable("the certificate", &error))
    }

    /// The height of the block with this hash.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn height_of(&self, block: &Hash) -> Result<Option<Height>, StoreError> {
        let entry = self.get(Family::Index, &keys::block_index(block))?;
        Ok(entry.and_then(|bytes| keys::parse_height(&bytes)))
    }

    fn present(&self, family: Family, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.get(family, key)?
            .ok_or_else(|| StoreError::corrupt(format!("the {} is missing", family.name())))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let column = self
            .db
            .cf_handle(family.name())
            .expect("every column family was opened with the database");
        Ok(self.db.get_cf(column, key)?)
    }
}
