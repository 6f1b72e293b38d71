//! The JSON-RPC 2.0 envelope: bytes → calls → answers.
//!
//! An id is kept as the text it came in, so that it is echoed verbatim whatever number it is.
//! Nothing is collected beyond [`BATCH_MAX`] calls and [`MEMBERS_MAX`] members.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::error::{Code, Error};
use crate::limits::ID_BYTES_MAX;

/// Most calls in a batch.
pub const BATCH_MAX: usize = 100;
/// Deepest nesting of arrays and objects in a body.
pub const DEPTH_MAX: usize = 32;
/// Most members looked at in an object.
pub(crate) const MEMBERS_MAX: usize = 32;

/// A body, taken apart.
pub(crate) enum Body<'a> {
    One(&'a RawValue),
    Batch(Vec<&'a RawValue>),
}

/// A call that keeps to the envelope's rules; a notification has no id.
pub(crate) struct Call<'a> {
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) method: String,
    pub(crate) params: Option<&'a RawValue>,
}

/// Something that is not a call, and the id to answer it under.
pub(crate) struct NotACall<'a> {
    pub(crate) id: &'a RawValue,
    pub(crate) error: Error,
}

/// Takes a body apart into its calls.
pub(crate) fn parse(bytes: &[u8]) -> Result<Body<'_>, Error> {
    let malformed = |message: String| Error::new(Code::ParseError, message);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        malformed(format!(
            "malformed JSON: no UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })?;
    check_depth(text)?;
    let whole: &RawValue = serde_json::from_str(text)
        .map_err(|error| malformed(format!("malformed JSON: {error}")))?;
    if !whole.get().starts_with('[') {
        return Ok(Body::One(whole));
    }
    let refuse = |message: String| Error::new(Code::InvalidRequest, message);
    let batch: Bounded<'_> = serde_json::from_str(whole.get())
        .map_err(|error| malformed(format!("malformed JSON: {error}")))?;
    match batch.count {
        0 => Err(refuse("a batch holds at least one call".into())),
        count if count > BATCH_MAX => Err(refuse(format!(
            "{count} calls in a batch, at most {BATCH_MAX}"
        ))
        .with("expected", BATCH_MAX)
        .with("received", count)),
        _ => Ok(Body::Batch(batch.items)),
    }
}

/// Reads one call of a body.
pub(crate) fn call(raw: &RawValue) -> Result<Call<'_>, NotACall<'_>> {
    let Some(members) = members(raw) else {
        return Err(refuse(None, "a call is a JSON object"));
    };
    let given_id = members.get("id");
    let id = given_id.filter(|id| is_id(id));
    if given_id.is_some() && id.is_none() {
        return Err(refuse(None, "`id` is a string, a number or null"));
    }
    if let Some(id) = id.filter(|id| id.get().len() > ID_BYTES_MAX) {
        let mut refused = refuse(None, &format!("`id` has more than {ID_BYTES_MAX} bytes"));
        let error = refused.error.with("expected", ID_BYTES_MAX);
        refused.error = error.with("received", id.get().len());
        return Err(refused);
    }
    if members.more {
        return Err(refuse(id, "the call has too many members"));
    }
    for name in ["jsonrpc", "id", "method", "params"] {
        if members.count(name) > 1 {
            let id = id.filter(|_| name != "id");
            return Err(refuse(id, &format!("`{name}` is given twice")));
        }
    }
    if members.get("jsonrpc").and_then(text).as_deref() != Some("2.0") {
        return Err(refuse(id, "`jsonrpc` must be \"2.0\""));
    }
    let Some(method) = members.get("method").and_then(text) else {
        return Err(refuse(id, "`method` must be a string"));
    };
    let params = members.get("params");
    if params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
        return Err(refuse(id, "`params` must be an object or an array"));
    }
    Ok(Call { id, method, params })
}

fn refuse<'a>(id: Option<&'a RawValue>, message: &str) -> NotACall<'a> {
    NotACall {
        id: id.unwrap_or(RawValue::NULL),
        error: Error::new(Code::InvalidRequest, message),
    }
}

/// The text of an answer to a request that is refused as a whole.
pub(crate) fn refusal(error: &Error) -> String {
    #[derive(Serialize)]
    struct Refusal<'a> {
        jsonrpc: &'static str,
        error: &'a Error,
        id: (),
    }
    let refusal = Refusal {
        jsonrpc: "2.0",
        error,
        id: (),
    };
    serde_json::to_string(&refusal).expect("texts and numbers serialize")
}

/// The members of an object, in their order, with repetitions.
#[derive(Default)]
pub(crate) struct Members<'a> {
    pub(crate) entries: Vec<(String, &'a RawValue)>,
    /// Whether there were more than [`MEMBERS_MAX`].
    pub(crate) more: bool,
}

impl<'a> Members<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.entries
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| *value)
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.entries
            .iter()
            .filter(|(given, _)| given == name)
            .count()
    }
}

/// The members of an object, `None` when it is none.
pub(crate) fn members(raw: &RawValue) -> Option<Members<'_>> {
    struct Collect;
    impl<'de> Visitor<'de> for Collect {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
            let mut members = Members::default();
            while members.entries.len() < MEMBERS_MAX {
                match map.next_entry()? {
                    Some(entry) => members.entries.push(entry),
                    None => return Ok(members),
                }
            }
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                members.more = true;
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    deserializer.deserialize_map(Collect).ok()
}

/// The first elements of an array, and how many it has.
pub(crate) struct Bounded<'a> {
    pub(crate) items: Vec<&'a RawValue>,
    pub(crate) count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Bounded<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Bounded<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<'de>, A::Error> {
                let mut items = Vec::new();
                while items.len() < BATCH_MAX {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => break,
                    }
                }
                let mut count = items.len();
                if count == BATCH_MAX {
                    while seq.next_element::<IgnoredAny>()?.is_some() {
                        count += 1;
                    }
                }
                Ok(Bounded { items, count })
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

/// The text of a JSON string, `None` when it is none.
pub(crate) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Whether a value may be an id: a string, a number or null.
fn is_id(raw: &RawValue) -> bool {
    raw.get()
        .starts_with(|first: char| matches!(first, '"' | '-' | 'n' | '0'..='9'))
}

/// Refuses nesting that nobody needs before anything recurses into it.
fn check_depth(text: &str) -> Result<(), Error> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Error::new(
                Code::ParseError,
                format!("nested more than {DEPTH_MAX} deep at byte {at}"),
            )
            .with("expected", DEPTH_MAX));
        }
    }
    Ok(())
}
