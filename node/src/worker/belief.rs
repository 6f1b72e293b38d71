//! What is believed of what a node says.
//!
//! What costs a seat when it is false is not done on one node's word: as long as there are no proofs of
//! state, a second node must say the same, or the only one that answers must say it again and again.

use std::time::{Duration, Instant};

use proofmill_chain::types::hash::Hash;

/// How many looks in a row the only node that answers must say what ends a seat: five seconds of looks,
/// some blocks, so that no passing confusion of that node ends it.
pub(super) const TELLINGS: u32 = 25;
/// How long it must say so while another node is silent: that one is asked some five times meanwhile,
/// so that to silence it for a moment does not end a seat.
const SILENCE_BELIEVED: Duration = Duration::from_secs(60);

/// What a node says that costs a seat when it is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// The worker does not hold this seat any more, of this task and draw.
    Lost((Hash, u8)),
    /// The task of this seat has been over for long.
    Over((Hash, u8)),
}

/// What follows from what a node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// It is so.
    Believed,
    /// It may be so: to be asked again.
    Open,
    /// Another node says the opposite, this one. Which of the two lies is not known.
    Contradicted {
        /// Its index.
        by: usize,
    },
}

/// How often and since when something has been said.
pub(super) struct Told {
    /// At so many looks in a row.
    looks: u32,
    since: Instant,
}

impl Told {
    /// Nothing has been said yet.
    pub(super) fn begin() -> Self {
        Self {
            looks: 0,
            since: Instant::now(),
        }
    }

    /// It is said at one look more, when these are the answers of the other nodes and one of them may be
    /// silent.
    pub(super) fn again(&mut self, others: &[(usize, bool)], is_one_silent: bool) -> Belief {
        self.looks = self.looks.saturating_add(1);
        let despite_silence = is_one_silent.then(|| self.since.elapsed());
        believed(others, self.looks, despite_silence)
    }
}

/// What to believe of what a node has said so many looks in a row when these are the answers of the others,
/// true where one says the same: two nodes of the operator's choice that say the same are believed, one is
/// not as long as another one contradicts it, and one that is alone has to say it [`TELLINGS`] times.
/// `despite_silence` is for how long it has said so, when another one is silent: no less than
/// [`SILENCE_BELIEVED`] is enough then.
fn believed(others: &[(usize, bool)], looks: u32, despite_silence: Option<Duration>) -> Belief {
    if others.iter().any(|(_, says_so)| *says_so) {
        return Belief::Believed;
    }
    if let Some((by, _)) = others.first() {
        return Belief::Contradicted { by: *by };
    }
    let is_long_enough = despite_silence.is_none_or(|lasting| lasting >= SILENCE_BELIEVED);
    if looks >= TELLINGS && is_long_enough {
        Belief::Believed
    } else {
        Belief::Open
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Belief, SILENCE_BELIEVED, TELLINGS, believed};

    #[test]
    fn one_node_s_word_ends_no_seat_as_long_as_another_one_says_otherwise() {
        let contradicted = Belief::Contradicted { by: 1 };
        for (others, looks, belief) in [
            (&[(1, true)][..], 1, Belief::Believed),
            (&[(1, false), (2, true)], 1, Belief::Believed),
            (&[(1, false)], 1, contradicted),
            (&[(1, false), (2, false)], TELLINGS, contradicted),
            (&[], 1, Belief::Open),
            (&[], TELLINGS - 1, Belief::Open),
            (&[], TELLINGS, Belief::Believed),
        ] {
            assert_eq!(believed(others, looks, None), belief, "{others:?} {looks}");
        }
    }

    #[test]
    fn one_node_s_word_is_believed_late_while_another_one_is_silent() {
        let early = SILENCE_BELIEVED.saturating_sub(Duration::from_millis(1));
        for (looks, lasting, belief) in [
            (TELLINGS, early, Belief::Open),
            (u32::MAX, early, Belief::Open),
            (TELLINGS - 1, SILENCE_BELIEVED, Belief::Open),
            (TELLINGS, SILENCE_BELIEVED, Belief::Believed),
        ] {
            assert_eq!(believed(&[], looks, Some(lasting)), belief, "{looks}");
        }
        let said = believed(&[(2, true)], 1, Some(Duration::ZERO));
        assert_eq!(said, Belief::Believed, "a third one says the same");
    }
}
