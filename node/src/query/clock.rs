//! Whether this machine's clock agrees with the validators'.

use proofmill_consensus::CLOCK_DRIFT_MS_MAX;

/// How far this machine's clock is from the validators', milliseconds: positive when it is ahead.
///
/// `ahead_of_us_ms` is by the times of the blocks that the validators have just built. Until those
/// are known, a final block from the future says that this clock is at least so far behind.
pub(super) fn skew_ms(ahead_of_us_ms: Option<i64>, head_ms: u64, clock_ms: u64) -> Option<i64> {
    let from_head = || {
        let behind = head_ms.saturating_sub(clock_ms);
        (behind > CLOCK_DRIFT_MS_MAX).then(|| i64::try_from(behind).unwrap_or(i64::MAX))
    };
    ahead_of_us_ms.or_else(from_head).map(i64::saturating_neg)
}

/// Why a node with this skew is not ready.
pub(super) fn reason(skew_ms: Option<i64>) -> Option<String> {
    let skew_ms = skew_ms?;
    let off_ms = skew_ms.unsigned_abs();
    let side = if skew_ms > 0 { "ahead of" } else { "behind" };
    (off_ms > CLOCK_DRIFT_MS_MAX).then(|| {
        format!(
            "the machine's clock is {off_ms} ms {side} the validators' clocks by their recent \
             blocks, at most {CLOCK_DRIFT_MS_MAX} ms are tolerated: set the clock right"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{reason, skew_ms};

    #[test]
    fn a_clock_within_the_drift_is_no_reason() {
        for ahead in [None, Some(0), Some(500), Some(-500)] {
            assert_eq!(reason(skew_ms(ahead, 1_000, 1_400)), None, "{ahead:?}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_named_with_its_side() {
        let behind = skew_ms(Some(7_200_000), 0, 0);
        assert_eq!(behind, Some(-7_200_000));
        let words = reason(behind).expect("not ready");
        assert!(words.contains("7200000 ms behind"), "{words}");
        let words = reason(skew_ms(Some(-501), 0, 0)).expect("not ready");
        assert!(words.contains("501 ms ahead of"), "{words}");
    }

    #[test]
    fn a_final_block_from_the_future_says_that_the_clock_is_behind() {
        assert_eq!(skew_ms(None, 600_000, 0), Some(-600_000));
        assert_eq!(skew_ms(None, 500, 0), None);
        // What the validators' new blocks say counts more than the head.
        assert_eq!(skew_ms(Some(-3), 600_000, 0), Some(3));
    }
}
