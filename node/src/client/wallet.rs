//! A key that acts on a chain: nonces, fees, signatures, sending and waiting.

use std::thread;
use std::time::{Duration, Instant};

use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::task::escrow;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::params::FeeRates;
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height};
use proofmill_rpc::api::{BlockSummary, ReceiptResult, ReceiptView};

use crate::client::{Client, Error, LOOK_EVERY, Patience, Sent};

/// Blocks in which a transaction may be included, unless told.
pub const EXPIRES_IN: u64 = 100;
/// How long a chain may stand still before waiting for it ends.
pub const HALT_MAX: Duration = Duration::from_secs(60);
/// How often a transaction is made again because its nonce was taken meanwhile.
pub const RACES_MAX: u32 = 5;

/// How a transaction is sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the proposer gets.
    pub tip: Amount,
    /// The most for fee and tip together; what the chain asks when left out.
    pub max_fee: Option<Amount>,
    /// In how many blocks from the head it may be included.
    pub expires_in: u64,
    /// Who pays the fee in the sender's place.
    pub sponsor: Option<SecretKey>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tip: Amount::ZERO,
            max_fee: None,
            expires_in: EXPIRES_IN,
            sponsor: None,
        }
    }
}

/// A key on a chain.
#[derive(Clone, Debug)]
pub struct Wallet {
    client: Client,
    genesis_hash: Hash,
    key: SecretKey,
}

/// The fee that the chain takes for a transaction, without tip.
///
/// # Errors
/// When it does not fit into 64 bits.
pub fn fee(signed: &SignedTransaction, rates: FeeRates) -> Result<Amount, Error> {
    // The encoding has fixed widths: neither amounts nor signatures change its length.
    let bytes = codec::encode(signed).len();
    let fee = rates.fee(&signed.transaction, bytes);
    fee.ok_or_else(|| Error::FeeOverflow {
        weight: signed.transaction.weight(bytes),
        base_fee: rates.base_fee,
    })
}

/// What an action takes from its sender beside the fee.
#[must_use]
pub fn spends(action: &Action) -> Amount {
    match action {
        Action::Transfer { amount, .. } => *amount,
        Action::RegisterWorker { collateral, .. } => *collateral,
        Action::UpdateWorker { add_collateral, .. } => *add_collateral,
        // An escrow beyond 64 bits is more than anybody has.
        Action::SubmitTask(spec) => {
            escrow(spec.price_per_mgas, spec.gas_limit, spec.mode).unwrap_or(Amount::new(u64::MAX))
        }
        Action::RetireWorker { .. } | Action::PublishProgram { .. } | Action::CancelTask { .. } => {
            Amount::ZERO
        }
    }
}

impl Wallet {
    /// The wallet of `key` on the chain that `client` asks and `genesis_hash` names.
    #[must_use]
    pub const fn new(client: Client, genesis_hash: Hash, key: SecretKey) -> Self {
        Self {
            client,
            genesis_hash,
            key,
        }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.key.public()
    }

    /// The client it uses.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Makes and signs a transaction with the account's next nonce.
    ///
    /// # Errors
    /// When the node cannot be asked, or when the balances do not cover fee and action.
    pub fn build(&self, action: &Action, options: &Options) -> Result<SignedTransaction, Error> {
        let head = self.client.head()?;
        let sender = self.client.account(&self.account())?;
        let mut signed = self.unsigned(action, options, &head);
        signed.transaction.nonce = sender.next_nonce;
        let rates = FeeRates {
            base_fee: head.base_fee,
            // Asked for only where it counts.
            module_byte_price: match action {
                Action::PublishProgram { .. } => self.client.params()?.module_byte_price,
                _ => Amount::ZERO,
            },
        };
        self.price(&mut signed, options, rates)?;
        let cost = signed.transaction.max_fee;
        let spent = spends(action);
        let balance = |account, what, needed, available| Error::Balance {
            account,
            what,
            needed,
            available,
        };
        if let Some(sponsor) = &options.sponsor {
            let available = self.client.account(&sponsor.public())?.balance;
            if available < cost {
                let account = sponsor.public();
                return Err(balance(account, "the fee it sponsors", cost, available));
            }
            if sender.balance < spent {
                let what = "what the transaction spends";
                return Err(balance(self.account(), what, spent, sender.balance));
            }
        } else {
            let needed = spent.saturating_plus(cost.get());
            if sender.balance < needed {
                let what = "what the transaction spends, and its fee";
                return Err(balance(self.account(), what, needed, sender.balance));
            }
        }
        self.sign(&mut signed, options);
        Ok(signed)
    }

    /// Makes, signs and sends a transaction; makes it again when another transaction of the
    /// account took its nonce meanwhile, up to [`RACES_MAX`] times.
    ///
    /// # Errors
    /// As [`Wallet::build`], when the node refuses the transaction, and
    /// [`Error::OutcomeUnknown`].
    pub fn send(&self, action: &Action, options: &Options) -> Result<Sent, Error> {
        self.send_announced(action, options, &mut |_| {})
    }

    /// As [`Wallet::send`]; calls `announce` before any byte of a transaction leaves, so that its
    /// id is known whatever happens to the answer.
    ///
    /// # Errors
    /// As [`Wallet::send`].
    pub fn send_announced(
        &self,
        action: &Action,
        options: &Options,
        announce: &mut dyn FnMut(&Sent),
    ) -> Result<Sent, Error> {
        let mut races = 0;
        loop {
            let signed = self.build(action, options)?;
            let sent = Sent::of(&signed, &self.genesis_hash);
            announce(&sent);
            match self.client.deliver(&signed, &sent) {
                Ok(()) => return Ok(sent),
                Err(error) if races < RACES_MAX && self.has_raced(&error, &signed)? => races += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until a transaction is in a final block and did what it says.
    ///
    /// # Errors
    /// When it failed there, when it expired before, or when the chain stands still.
    pub fn wait_included(&self, sent: &Sent) -> Result<ReceiptView, Error> {
        self.client.wait_applied(sent)
    }

    fn unsigned(
        &self,
        action: &Action,
        options: &Options,
        head: &BlockSummary,
    ) -> SignedTransaction {
        let unsigned = Signature::new([0; 64]);
        SignedTransaction {
            transaction: Transaction {
                chain: self.genesis_hash.prefix(),
                sender: self.account(),
                nonce: proofmill_chain::types::units::Nonce::ZERO,
                max_fee: Amount::ZERO,
                tip: options.tip,
                expires_at: head.height.saturating_plus(options.expires_in),
                sponsor: options.sponsor.as_ref().map(SecretKey::public),
                action: action.clone(),
            },
            signature: unsigned,
            sponsor_signature: options.sponsor.as_ref().map(|_| unsigned),
        }
    }

    fn price(
        &self,
        signed: &mut SignedTransaction,
        options: &Options,
        rates: FeeRates,
    ) -> Result<(), Error> {
        let fee = fee(signed, rates)?;
        let needed = fee.saturating_plus(options.tip.get());
        let max_fee = options.max_fee.unwrap_or(needed);
        if needed > max_fee {
            return Err(Error::MaxFee { needed, max_fee });
        }
        signed.transaction.max_fee = max_fee;
        Ok(())
    }

    fn sign(&self, signed: &mut SignedTransaction, options: &Options) {
        let transaction = &signed.transaction;
        signed.signature = self.key.sign(&transaction.sign_bytes(&self.genesis_hash));
        signed.sponsor_signature = options
            .sponsor
            .as_ref()
            .map(|sponsor| sponsor.sign(&transaction.sponsor_sign_bytes(&self.genesis_hash)));
    }

    /// Whether a refusal came because the nonce was no longer the account's next one.
    fn has_raced(&self, error: &Error, signed: &SignedTransaction) -> Result<bool, Error> {
        match error.name() {
            "TX_NONCE_TOO_LOW" | "TX_NONCE_GAP" | "TX_REFUSED" => {
                let now = self.client.account(&self.account())?.next_nonce;
                Ok(now != signed.transaction.nonce)
            }
            _ => Ok(false),
        }
    }
}

impl Client {
    /// Waits until a transaction is in a final block, whatever it did there.
    ///
    /// # Errors
    /// When it expired before, when the chain stands still, or when the node stays away.
    pub fn wait_receipt(&self, sent: &Sent) -> Result<ReceiptView, Error> {
        let mut patience = Patience::default();
        let mut seen = (Height::ZERO, Instant::now());
        loop {
            let answer = self.head().and_then(|head| {
                let receipt = self.receipt_if_included(&sent.transaction)?;
                Ok((head.height, receipt))
            });
            match patience.bear(answer)? {
                Some((_, Some(receipt))) => return Ok(receipt),
                // The receipt was asked for after the height, so no block can still bring it.
                Some((height, None)) if height >= sent.expires_at => {
                    return Err(Error::Expired {
                        transaction: sent.transaction,
                        expires_at: sent.expires_at,
                    });
                }
                Some((height, None)) if height > seen.0 => seen = (height, Instant::now()),
                _ => {}
            }
            let after = seen.1.elapsed();
            if after >= HALT_MAX {
                return Err(Error::Halted {
                    transaction: sent.transaction,
                    height: seen.0,
                    after,
                });
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until a transaction is in a final block and did what it says.
    ///
    /// # Errors
    /// As [`Client::wait_receipt`], and [`Error::Failed`].
    pub fn wait_applied(&self, sent: &Sent) -> Result<ReceiptView, Error> {
        let receipt = self.wait_receipt(sent)?;
        match (&receipt.result, &receipt.failure) {
            (ReceiptResult::Failed, Some(failure)) => Err(Error::Failed {
                transaction: receipt.transaction,
                height: receipt.height,
                failure: failure.clone(),
            }),
            _ => Ok(receipt),
        }
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::check::check_transaction;
    use proofmill_chain::codec;
    use proofmill_chain::crypto::sign::SecretKey;
    use proofmill_chain::crypto::verify::{Item, verify};
    use proofmill_chain::types::hash::{Blob, Hash, Signature};
    use proofmill_chain::types::params::FeeRates;
    use proofmill_chain::types::task::{Mode, Requirements, TaskSpec};
    use proofmill_chain::types::transaction::{Action, SignedTransaction, TRANSACTION_BYTES_MAX};
    use proofmill_chain::types::units::{Amount, Gas, Height};
    use proofmill_chain::types::worker::WorkerTerms;
    use proofmill_rpc::api::BlockSummary;

    use super::{Options, Wallet, fee, spends};
    use crate::client::{Client, Error};

    const BASE_FEE: Amount = Amount::new(8);
    const RATES: FeeRates = FeeRates {
        base_fee: BASE_FEE,
        module_byte_price: Amount::new(1_000),
    };

    fn key(index: u8) -> SecretKey {
        SecretKey::from_seed(&[index; 32])
    }

    fn genesis() -> Hash {
        Hash::of("test genesis", &[])
    }

    fn wallet() -> Wallet {
        let client = Client::new("127.0.0.1:1").expect("an address");
        Wallet::new(client, genesis(), key(1))
    }

    fn head() -> BlockSummary {
        BlockSummary {
            height: Height::new(7),
            hash: genesis(),
            parent: genesis(),
            time_ms: 1,
            proposer: key(2).public(),
            round: Default::default(),
            state_root: genesis(),
            transactions: 0,
            attestations: 0,
            assignments: 0,
            base_fee: BASE_FEE,
            bytes: 0,
        }
    }

    fn terms() -> WorkerTerms {
        WorkerTerms {
            price_per_mgas: Amount::new(3),
            gas_limit_max: Gas::new(5),
            memory_pages_max: 7,
            tags: vec!["gpu".into()],
            active: true,
        }
    }

    fn actions() -> Vec<Action> {
        let worker = key(3).public();
        let consent = Signature::new([0; 64]);
        let (collateral, add_collateral) = (Amount::new(11), Amount::new(12));
        let module = Blob::new(b"\0asm module".to_vec());
        vec![
            Action::Transfer {
                to: key(4).public(),
                amount: Amount::new(13),
            },
            Action::RegisterWorker {
                worker,
                terms: terms(),
                collateral,
                consent,
            },
            Action::UpdateWorker {
                worker,
                terms: terms(),
                add_collateral,
            },
            Action::RetireWorker { worker },
            Action::PublishProgram { module },
            Action::SubmitTask(TaskSpec {
                program: genesis(),
                input: Blob::new(vec![1; 1000]),
                gas_limit: Gas::new(1_500_000),
                memory_pages: 1,
                mode: Mode::Replicated { replicas: 3 },
                price_per_mgas: Amount::new(10),
                insured_value: Amount::ZERO,
                requirements: Requirements::default(),
                wait_max: 9,
            }),
            Action::CancelTask { task: genesis() },
        ]
    }

    fn made(action: &Action, options: &Options) -> Result<SignedTransaction, Error> {
        let wallet = wallet();
        let mut signed = wallet.unsigned(action, options, &head());
        wallet.price(&mut signed, options, RATES)?;
        wallet.sign(&mut signed, options);
        Ok(signed)
    }

    #[test]
    fn every_transaction_is_good_and_pays_what_the_chain_asks() {
        for sponsor in [None, Some(key(5))] {
            for action in actions() {
                let options = Options {
                    tip: Amount::new(21),
                    sponsor: sponsor.clone(),
                    ..Options::default()
                };
                let signed = made(&action, &options).expect("within the default fee");
                let name = action.name();
                // The chain's rule: the weight counts the bytes that check_transaction counts.
                let bytes = check_transaction(&signed, &genesis()).expect(name);
                let module = match &action {
                    Action::PublishProgram { module } => 1_000 * module.len() as u64,
                    _ => 0,
                };
                let asked = BASE_FEE
                    .checked_mul(signed.transaction.weight(bytes).get())
                    .map(|fee| fee.saturating_plus(module));
                let paid = signed.transaction.max_fee.checked_sub(Amount::new(21));
                assert_eq!(paid, asked, "{name}");
                assert_eq!(fee(&signed, RATES).ok(), asked, "{name}");
                assert_eq!(signed.transaction.expires_at, Height::new(107));
                let decoded = codec::decode::<_, TRANSACTION_BYTES_MAX>(&codec::encode(&signed));
                assert_eq!(decoded.as_ref(), Ok(&signed), "{name}");
                assert!(verify(&Item {
                    key: signed.transaction.sender.as_bytes(),
                    message: &signed.transaction.sign_bytes(&genesis()),
                    signature: signed.signature.as_bytes(),
                }));
                if let (Some(sponsor), Some(signature)) = (&sponsor, &signed.sponsor_signature) {
                    assert!(verify(&Item {
                        key: sponsor.public().as_bytes(),
                        message: &signed.transaction.sponsor_sign_bytes(&genesis()),
                        signature: signature.as_bytes(),
                    }));
                }
            }
        }
    }

    #[test]
    fn a_max_fee_below_the_fee_is_refused_before_anything_is_sent() {
        let action = &actions()[0];
        let good = made(action, &Options::default()).expect("the default");
        let exact = good.transaction.max_fee;
        let with = |max_fee| {
            let max_fee = Some(max_fee);
            made(
                action,
                &Options {
                    max_fee,
                    ..Options::default()
                },
            )
        };
        let signed = with(exact).expect("exactly the fee");
        assert_eq!(signed.transaction.max_fee, exact);
        let less = Amount::new(exact.get() - 1);
        let refused = with(less).expect_err("less than the fee");
        assert!(
            matches!(refused, Error::MaxFee { needed, max_fee } if needed == exact && max_fee == less)
        );
    }

    #[test]
    fn a_fee_beyond_64_bits_is_refused() {
        let signed = made(&actions()[0], &Options::default()).expect("the default");
        let refused = fee(
            &signed,
            FeeRates {
                base_fee: Amount::new(u64::MAX),
                ..RATES
            },
        )
        .expect_err("too much");
        assert!(matches!(refused, Error::FeeOverflow { .. }));
    }

    #[test]
    fn an_action_spends_what_the_chain_takes_for_it() {
        let spent: Vec<_> = actions()
            .iter()
            .map(|action| spends(action).get())
            .collect();
        // The escrow: 1.5 million gas for three workers at 10 grain per million.
        assert_eq!(spent, [13, 11, 12, 0, 0, 45, 0]);
    }
}
