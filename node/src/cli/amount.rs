//! Amounts as people write them: `1.5mill`, `1500000000`, `20grain`.

use proofmill_chain::types::units::{Amount, GRAIN_PER_MILL, SUPPLY_MAX};

const DECIMALS: usize = 9;

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with an optional unit.
    #[error("`{0}` is not an amount: write 1500000000 or 1500000000grain, or 1.5mill")]
    Malformed(String),
    /// A part of a grain.
    #[error("`{0}`: a grain is not divided; only mill has decimals")]
    GrainDecimals(String),
    /// More than nine decimals.
    #[error("`{0}` has more than 9 decimals; a grain is 0.000000001mill")]
    Decimals(String),
    /// More than there can be.
    #[error("`{0}` is more than any chain holds (2^63 grain, about 9.2 thousand million mill)")]
    TooMuch(String),
}

/// Reads an amount: a count of grain without a unit, or with the unit `grain` or `mill`.
///
/// # Errors
/// When the text is not an amount that can exist, exactly.
pub fn parse(text: &str) -> Result<Amount, AmountError> {
    let shown = || text.chars().take(40).collect::<String>();
    let lower = text.trim().to_ascii_lowercase();
    let (number, mill) = match (lower.strip_suffix("mill"), lower.strip_suffix("grain")) {
        (Some(number), _) => (number, true),
        (None, Some(number)) => (number, false),
        (None, None) => (lower.as_str(), false),
    };
    let number = number.trim_end();
    let (whole, part) = match number.split_once('.') {
        Some((whole, part)) => (whole, Some(part)),
        None => (number, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || part.is_some_and(|part| !digits(part)) {
        return Err(AmountError::Malformed(shown()));
    }
    if !mill && part.is_some() {
        return Err(AmountError::GrainDecimals(shown()));
    }
    let part = part.unwrap_or_default();
    if part.len() > DECIMALS {
        return Err(AmountError::Decimals(shown()));
    }
    let scale = if mill { GRAIN_PER_MILL } else { 1 };
    let grain = if part.is_empty() {
        Some(0)
    } else {
        format!("{part:0<DECIMALS$}").parse::<u64>().ok()
    };
    whole
        .parse::<u64>()
        .ok()
        .and_then(|whole| whole.checked_mul(scale))
        .zip(grain)
        .and_then(|(whole, grain)| whole.checked_add(grain))
        .filter(|amount| *amount < SUPPLY_MAX)
        .map(Amount::new)
        .ok_or_else(|| AmountError::TooMuch(shown()))
}

/// An amount for people: `1.5 MILL (1500000000 grain)`.
#[must_use]
pub fn both(amount: Amount) -> String {
    format!("{} ({amount} grain)", amount.in_mill())
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::units::Amount;

    use super::{AmountError, both, parse};

    #[test]
    fn amounts_are_grain_or_mill() {
        for (text, grain) in [
            ("0", 0),
            ("1500000000", 1_500_000_000),
            ("20grain", 20),
            ("20 grain", 20),
            ("1.5mill", 1_500_000_000),
            ("1.5 MILL", 1_500_000_000),
            ("3mill", 3_000_000_000),
            ("0.000000001mill", 1),
            ("0.1mill", 100_000_000),
            ("9223372036854775807", 9_223_372_036_854_775_807),
            ("9223372036.854775807mill", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(parse(text), Ok(Amount::new(grain)), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused_by_name() {
        for text in [
            "",
            "mill",
            "-1",
            "+1",
            "1e9",
            "1,5mill",
            ".5mill",
            "1.mill",
            "1.2.3mill",
            "1 2",
            "0x10",
            "1mil",
            "１",
        ] {
            assert_eq!(parse(text), Err(AmountError::Malformed(text.into())));
        }
        for text in ["1.5", "1.5grain"] {
            assert_eq!(parse(text), Err(AmountError::GrainDecimals(text.into())));
        }
        let text = "0.0000000001mill";
        assert_eq!(parse(text), Err(AmountError::Decimals(text.into())));
        for text in [
            "9223372036854775808",
            "9223372036.854775808mill",
            "18446744073709551616",
            "18446744074mill",
            "99999999999999999999999mill",
        ] {
            assert_eq!(parse(text), Err(AmountError::TooMuch(text.into())));
        }
    }

    #[test]
    fn an_amount_is_shown_in_both_units() {
        assert_eq!(
            both(Amount::new(1_500_000_000)),
            "1.5 MILL (1500000000 grain)"
        );
    }
}
