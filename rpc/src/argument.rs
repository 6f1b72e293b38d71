//! Parameters: from JSON to their types, each with a sentence that says what is expected.

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::Height;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{BlockRef, Hex, LIST_DEFAULT, LIST_MAX, TaskCursor, TaskState};
use crate::error::{Code, Error, shortened};
use crate::methods::Method;
use crate::request::{Bounded, members, text};

/// A type that a parameter may have.
pub(crate) trait Argument: Sized + Serialize {
    /// What is expected, as a noun phrase.
    const KIND: &'static str;

    /// The value, `None` when the JSON is something else.
    fn read(raw: &RawValue) -> Option<Self>;
}

/// A call's arguments, brought into the order of the method's parameters.
pub(crate) struct Arguments {
    values: std::vec::IntoIter<Option<Box<RawValue>>>,
}

impl Arguments {
    /// Matches what was given with the method's parameters, by name or by position.
    pub(crate) fn bind(method: &Method, params: Option<&RawValue>) -> Result<Self, Error> {
        let mut values: Vec<Option<Box<RawValue>>> = vec![None; method.params.len()];
        let Some(raw) = params else {
            return Ok(Self {
                values: values.into_iter(),
            });
        };
        if raw.get().starts_with('[') {
            let given: Bounded<'_> = serde_json::from_str(raw.get())
                .map_err(|_| Error::new(Code::InvalidParams, "the parameters cannot be read"))?;
            if given.count > values.len() {
                return Err(refused(format!(
                    "{} takes {}, {} were given",
                    method.name,
                    method.signature(),
                    given.count
                ))
                .with("expected", method.params.len())
                .with("received", given.count));
            }
            for (value, item) in values.iter_mut().zip(given.items) {
                *value = Some(item.to_owned());
            }
        } else {
            let given = members(raw)
                .ok_or_else(|| Error::new(Code::InvalidParams, "a name cannot be read"))?;
            for (name, item) in given.entries {
                let slot = method
                    .params
                    .iter()
                    .position(|param| param.name == name)
                    .and_then(|index| values.get_mut(index));
                match slot {
                    None => {
                        let name = shortened(&name);
                        return Err(refused(format!(
                            "unknown parameter `{name}`: {} takes {}",
                            method.name,
                            method.signature()
                        ))
                        .with("parameter", name));
                    }
                    Some(Some(_)) => {
                        return Err(refused(format!("parameter `{name}` is given twice"))
                            .with("parameter", name));
                    }
                    Some(value) => *value = Some(item.to_owned()),
                }
            }
        }
        Ok(Self {
            values: values.into_iter(),
        })
    }

    /// The next argument, which must be there.
    pub(crate) fn required<T: Argument>(&mut self, name: &str) -> Result<T, Error> {
        match self.values.next().flatten() {
            Some(raw) => read(name, &raw),
            None => Err(refused(format!(
                "parameter `{name}` is missing: {} is expected",
                T::KIND
            ))
            .with("parameter", name)
            .with("expected", T::KIND)),
        }
    }

    /// The next argument, or `default` when it is left out or null.
    pub(crate) fn optional<T: Argument>(&mut self, name: &str, default: T) -> Result<T, Error> {
        match self.values.next().flatten() {
            Some(raw) if raw.get() != "null" => read(name, &raw),
            _ => Ok(default),
        }
    }
}

fn read<T: Argument>(name: &str, raw: &RawValue) -> Result<T, Error> {
    T::read(raw).ok_or_else(|| {
        let received = shortened(raw.get());
        refused(format!(
            "parameter `{name}`: {} is expected, got {received}",
            T::KIND
        ))
        .with("parameter", name)
        .with("expected", T::KIND)
        .with("received", received)
    })
}

fn refused(message: String) -> Error {
    Error::new(Code::InvalidParams, message)
}

impl<T: Argument> Argument for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(raw: &RawValue) -> Option<Self> {
        T::read(raw).map(Some)
    }
}

impl Argument for bool {
    const KIND: &'static str = "true or false";

    fn read(raw: &RawValue) -> Option<Self> {
        match raw.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

impl Argument for Hash {
    const KIND: &'static str = "a hash (0x and 64 hex digits)";

    fn read(raw: &RawValue) -> Option<Self> {
        text(raw)?.parse().ok()
    }
}

impl Argument for AccountId {
    const KIND: &'static str = "an account (bech32m, mill1…)";

    fn read(raw: &RawValue) -> Option<Self> {
        text(raw)?.parse().ok()
    }
}

impl Argument for Hex {
    const KIND: &'static str = "bytes (0x and an even number of hex digits)";

    fn read(raw: &RawValue) -> Option<Self> {
        text(raw)?.parse().ok()
    }
}

impl Argument for Height {
    const KIND: &'static str = "a height (a decimal string or a number)";

    fn read(raw: &RawValue) -> Option<Self> {
        match serde_json::from_str(raw.get()).ok()? {
            Value::Number(number) => number.as_u64().map(Self::new),
            value @ Value::String(_) => serde_json::from_value(value).ok(),
            _ => None,
        }
    }
}

impl Argument for BlockRef {
    const KIND: &'static str = "a height (a decimal string or a number), a block hash or \"head\"";

    fn read(raw: &RawValue) -> Option<Self> {
        if text(raw).as_deref() == Some("head") {
            return Some(Self::Head);
        }
        Height::read(raw)
            .map(Self::Height)
            .or_else(|| Hash::read(raw).map(Self::Hash))
    }
}

impl Argument for TaskState {
    const KIND: &'static str = "a state (open, committing, revealing, final, expired or cancelled)";

    fn read(raw: &RawValue) -> Option<Self> {
        serde_json::from_value(Value::String(text(raw)?)).ok()
    }
}

impl Argument for TaskCursor {
    const KIND: &'static str = "a cursor (the `next` of an earlier answer)";

    fn read(raw: &RawValue) -> Option<Self> {
        text(raw)?.parse().ok()
    }
}

/// How many items a list may have.
#[derive(Clone, Copy, Serialize)]
#[serde(transparent)]
pub(crate) struct Limit(pub(crate) u32);

impl Limit {
    pub(crate) const DEFAULT: Self = Self(LIST_DEFAULT);
}

impl Argument for Limit {
    const KIND: &'static str = "a number from 1 to 200";

    fn read(raw: &RawValue) -> Option<Self> {
        const { assert!(LIST_MAX == 200, "the sentence above names it") };
        serde_json::from_str(raw.get())
            .ok()
            .filter(|limit| (1..=LIST_MAX).contains(limit))
            .map(Self)
    }
}
