//! From output bytes to named values, as a manifest describes them.

use serde_json::{Map, json};

use crate::manifest::{Kind, Manifest};

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer of four bytes or less.
    Small(i64),
    /// An integer of eight bytes.
    Large(i128),
    /// The rest of the output.
    Bytes(Vec<u8>),
}

impl Value {
    const fn integer(&self) -> Option<i128> {
        match self {
            Self::Small(value) => Some(*value as i128),
            Self::Large(value) => Some(*value),
            Self::Bytes(_) => None,
        }
    }

    /// The value in JSON: a number, a decimal string when it has 64 bits, or hex.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Small(value) => json!(value),
            Self::Large(value) => json!(value.to_string()),
            Self::Bytes(bytes) => json!(format!("0x{}", hex::encode(bytes))),
        }
    }

    /// The value for people; many bytes are cut.
    #[must_use]
    pub fn to_text(&self) -> String {
        const SHOWN: usize = 24;
        match self {
            Self::Small(value) => value.to_string(),
            Self::Large(value) => value.to_string(),
            Self::Bytes(bytes) => match bytes.get(..SHOWN) {
                Some(start) if bytes.len() > SHOWN => {
                    format!("{} bytes 0x{}…", bytes.len(), hex::encode(start))
                }
                _ => format!("{} bytes 0x{}", bytes.len(), hex::encode(bytes)),
            },
        }
    }
}

/// An output, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The fields in order.
    pub fields: Vec<(String, Value)>,
    /// The derived values in order: percentages with two decimals, rounded towards zero.
    pub derived: Vec<(String, String)>,
}

impl Answer {
    /// The answer in JSON: the members `output` and `derived`.
    #[must_use]
    pub fn to_json(&self) -> (serde_json::Value, serde_json::Value) {
        let fields: Map<_, _> = self
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), value.to_json()))
            .collect();
        let derived: Map<_, _> = self
            .derived
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        (fields.into(), derived.into())
    }

    /// Names and values for people.
    pub fn to_text(&self) -> impl Iterator<Item = (&str, String)> {
        let fields = self.fields.iter();
        fields
            .map(|(name, value)| (name.as_str(), value.to_text()))
            .chain(
                self.derived
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.clone())),
            )
    }
}

/// Why an output is not what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("the output ends within field `{field}`: {given} of {needed} bytes are there")]
    Short {
        /// The field.
        field: String,
        /// How many bytes are left.
        given: usize,
        /// How many the field has.
        needed: usize,
    },
    /// It goes on after the last field.
    #[error("the output has {0} bytes behind its last field")]
    Trailing(usize),
    /// A share of nothing.
    #[error("derived value `{name}`: `{whole}` is zero")]
    ZeroWhole {
        /// The derived value.
        name: String,
        /// The whole.
        whole: String,
    },
}

impl Manifest {
    /// Reads an output. One without fields is not looked at.
    ///
    /// # Errors
    /// When the bytes do not fit the fields, or a derived value has none.
    pub fn decode(&self, output: &[u8]) -> Result<Answer, DecodeError> {
        if self.output.is_empty() {
            return Ok(Answer::default());
        }
        let mut rest = output;
        let mut fields = Vec::with_capacity(self.output.len());
        for field in &self.output {
            let value = match field.kind {
                Kind::U8 => Value::Small(u8::from_le_bytes(take(&mut rest, &field.name)?).into()),
                Kind::U32 => Value::Small(u32::from_le_bytes(take(&mut rest, &field.name)?).into()),
                Kind::I32 => Value::Small(i32::from_le_bytes(take(&mut rest, &field.name)?).into()),
                Kind::U64 => Value::Large(u64::from_le_bytes(take(&mut rest, &field.name)?).into()),
                Kind::I64 => Value::Large(i64::from_le_bytes(take(&mut rest, &field.name)?).into()),
                Kind::Bytes => Value::Bytes(std::mem::take(&mut rest).to_vec()),
            };
            fields.push((field.name.clone(), value));
        }
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()));
        }
        let mut answer = Answer {
            fields,
            derived: Vec::new(),
        };
        for derived in &self.derived {
            let value = |of: &str| {
                let field = answer.fields.iter().find(|(name, _)| name == of);
                field.and_then(|(_, value)| value.integer()).unwrap_or(0)
            };
            let (part, whole) = (value(&derived.ratio.0), value(&derived.ratio.1));
            let percentage = percentage(part, whole).ok_or_else(|| DecodeError::ZeroWhole {
                name: derived.name.clone(),
                whole: derived.ratio.1.clone(),
            })?;
            answer.derived.push((derived.name.clone(), percentage));
        }
        Ok(answer)
    }
}

fn take<const N: usize>(rest: &mut &[u8], field: &str) -> Result<[u8; N], DecodeError> {
    let short = DecodeError::Short {
        field: field.to_owned(),
        given: rest.len(),
        needed: N,
    };
    let (bytes, left) = rest.split_first_chunk().ok_or(short)?;
    *rest = left;
    Ok(*bytes)
}

/// `part / whole` as a percentage with two decimals, rounded towards zero; `None` of nothing.
fn percentage(part: i128, whole: i128) -> Option<String> {
    // Both have 64 bits at most, so the product fits into 128.
    let hundredths = part.checked_mul(10_000)?.checked_div(whole)?;
    let sign = if hundredths < 0 { "-" } else { "" };
    let size = hundredths.unsigned_abs();
    Some(format!("{sign}{}.{:02}%", size / 100, size % 100))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{DecodeError, Value};
    use crate::manifest::Manifest;

    fn manifest(output: &serde_json::Value, derived: &serde_json::Value) -> Manifest {
        let text = json!({
            "program": "p.wasm", "input": [], "gas_limit": "1", "memory_pages": 1, "replicas": 1,
            "price_per_mgas": "1", "wait_max": 1, "output": output, "derived": derived,
        });
        Manifest::parse(text.to_string().as_bytes()).expect("a good manifest")
    }

    #[test]
    fn every_type_is_read() {
        let manifest = manifest(
            &json!([
                { "name": "a", "type": "u8" }, { "name": "b", "type": "u32" },
                { "name": "c", "type": "i32" }, { "name": "d", "type": "u64" },
                { "name": "e", "type": "i64" }, { "name": "f", "type": "bytes" },
            ]),
            &json!([]),
        );
        let mut output = vec![0xff];
        output.extend(0xffff_fffe_u32.to_le_bytes());
        output.extend((-2_i32).to_le_bytes());
        output.extend(u64::MAX.to_le_bytes());
        output.extend(i64::MIN.to_le_bytes());
        output.extend(b"rest");
        let answer = manifest.decode(&output).expect("it fits");
        let (fields, derived) = answer.to_json();
        assert_eq!(
            fields,
            json!({
                "a": 255, "b": 4_294_967_294_u32, "c": -2, "d": "18446744073709551615",
                "e": "-9223372036854775808", "f": "0x72657374",
            })
        );
        assert_eq!(derived, json!({}));
        output.truncate(25);
        let answer = manifest.decode(&output).expect("the rest may be empty");
        assert_eq!(answer.fields[5].1, Value::Bytes(vec![]));
    }

    #[test]
    fn an_output_of_another_length_is_named() {
        let manifest = manifest(
            &json!([{ "name": "a", "type": "u8" }, { "name": "b", "type": "u32" }]),
            &json!([]),
        );
        assert_eq!(
            manifest.decode(&[1, 2, 3]),
            Err(DecodeError::Short {
                field: "b".into(),
                given: 2,
                needed: 4
            })
        );
        assert_eq!(manifest.decode(&[0; 7]), Err(DecodeError::Trailing(2)));
    }

    #[test]
    fn a_ratio_is_a_percentage_with_two_decimals() {
        let manifest = manifest(
            &json!([{ "name": "part", "type": "i64" }, { "name": "whole", "type": "u64" }]),
            &json!([{ "name": "share", "ratio": ["part", "whole"] }]),
        );
        let share = |part: i64, whole: u64| {
            let output = [part.to_le_bytes(), whole.to_le_bytes()].concat();
            let answer = manifest.decode(&output)?;
            Ok::<_, DecodeError>(answer.derived[0].1.clone())
        };
        for (part, whole, text) in [
            (1283, 1625, "78.95%"),
            (431, 450, "95.77%"),
            (1, 1, "100.00%"),
            (3, 2, "150.00%"),
            (0, 7, "0.00%"),
            (-1, 3, "-33.33%"),
            (i64::MAX, 1, "922337203685477580700.00%"),
        ] {
            assert_eq!(share(part, whole).as_deref(), Ok(text), "{part}/{whole}");
        }
        let error = DecodeError::ZeroWhole {
            name: "share".into(),
            whole: "whole".into(),
        };
        assert_eq!(share(1, 0), Err(error));
    }

    #[test]
    fn an_output_without_fields_is_left_as_it_is() {
        let answer = manifest(&json!([]), &json!([])).decode(b"anything");
        assert_eq!(answer.expect("nothing to read").fields, []);
    }
}
