//! Task manifests (`task.json`): what to run, on what, for how much, and how to read the output.
//!
//! A manifest is read strictly: a field that does not exist is refused with the nearest one that
//! does, so that a misspelt limit never goes unnoticed.

mod decode;

pub use decode::{Answer, DecodeError, Value};

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use proofmill_chain::types::hash::Blob;
use proofmill_chain::types::task::{INPUT_BYTES_MAX, PROGRAM_BYTES_MAX};
use proofmill_chain::types::units::{Amount, Gas};
use proofmill_rpc::nearest::nearest;
use serde::Deserialize;

/// The manifest's name in its folder.
pub const FILE_NAME: &str = "task.json";
/// Longest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// Some editors begin a text with it; RFC 8259 §8.1 lets a reader ignore it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Most fields of an output, and most derived values.
pub const FIELDS_MAX: usize = 256;

/// How the bytes of an output field are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One byte.
    U8,
    /// Four bytes, little endian.
    U32,
    /// Four bytes, little endian, two's complement.
    I32,
    /// Eight bytes, little endian.
    U64,
    /// Eight bytes, little endian, two's complement.
    I64,
    /// All the bytes that are left.
    Bytes,
}

/// A field of the output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// How it is read.
    #[serde(rename = "type")]
    pub kind: Kind,
}

/// A value that is computed from two integer fields of the output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Derived {
    /// Its name.
    pub name: String,
    /// The names of the part and of the whole.
    pub ratio: (String, String),
}

/// A task, as its folder describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// The module, a path beside the manifest.
    pub program: PathBuf,
    /// The files that make the input, one after the other, paths beside the manifest.
    pub input: Vec<PathBuf>,
    /// The most gas an execution may use.
    pub gas_limit: Gas,
    /// Pages of 64 KiB.
    pub memory_pages: u32,
    /// How many workers compute it.
    pub replicas: u8,
    /// Grain for a million gas.
    pub price_per_mgas: Amount,
    /// Blocks to wait for workers.
    pub wait_max: u64,
    /// The fields of the output, in order.
    #[serde(default)]
    pub output: Vec<Field>,
    /// Values computed from them.
    #[serde(default)]
    pub derived: Vec<Derived>,
    /// One line.
    #[serde(default)]
    pub description: String,
}

/// Why a manifest or a file that it names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is too long.
    #[error("{} is longer than the {most} bytes that {what} may have", .path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The most.
        most: usize,
    },
    /// Not JSON, or a value of the wrong kind.
    #[error("{0}")]
    Malformed(String),
    /// A field that does not exist.
    #[error("unknown field `{field}`{suggestion}")]
    Unknown {
        /// Where it stands, as `output[0].nam`.
        field: String,
        /// The nearest field, as the end of the sentence.
        suggestion: String,
    },
    /// A file outside the manifest's folder.
    #[error(
        "{} is outside {}: a task publishes the files that it names; --allow-outside permits it",
        .path.display(), .root.display()
    )]
    Outside {
        /// Where the file really is.
        path: PathBuf,
        /// The manifest's folder.
        root: PathBuf,
    },
    /// A name twice.
    #[error("the name `{0}` stands twice among `output` and `derived`")]
    Twice(String),
    /// `bytes` before the last field.
    #[error("output field `{0}` takes all the bytes that are left: it must be the last")]
    BytesNotLast(String),
    /// A ratio of something that is not an integer of the output.
    #[error("derived value `{name}`: `{of}` is not an integer field of `output`")]
    Ratio {
        /// The derived value.
        name: String,
        /// What it refers to.
        of: String,
    },
    /// Too many fields.
    #[error("{given} output fields or derived values, at most {FIELDS_MAX}")]
    TooMany {
        /// How many.
        given: usize,
    },
}

const FIELDS: &[&str] = &[
    "program",
    "input",
    "gas_limit",
    "memory_pages",
    "replicas",
    "price_per_mgas",
    "wait_max",
    "output",
    "derived",
    "description",
];

impl Manifest {
    /// Reads the manifest at `path`: the file, or the folder in which it is `task.json`. Returns
    /// it with its folder.
    ///
    /// # Errors
    /// When it cannot be read or breaks a rule.
    pub fn load(path: &Path) -> Result<(Self, PathBuf), ManifestError> {
        let file = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let bytes = read_bounded(&file, "a manifest", MANIFEST_BYTES_MAX)?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        Ok((Self::parse(&bytes)?, folder))
    }

    /// The manifest with the paths of its files in `folder`. Links are followed: what counts is
    /// where a file really is.
    ///
    /// # Errors
    /// When a file lies outside the folder and `allow_outside` is not set: its contents would be
    /// published.
    pub fn in_folder(self, folder: &Path, allow_outside: bool) -> Result<Self, ManifestError> {
        let place = |file: &Path| {
            let path = folder.join(file);
            if !allow_outside {
                let io = |path: &Path, error| ManifestError::Io {
                    path: path.to_owned(),
                    error,
                };
                let folder = if folder.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    folder
                };
                let root = fs::canonicalize(folder).map_err(|error| io(folder, error))?;
                let real = fs::canonicalize(&path).map_err(|error| io(&path, error))?;
                if !real.starts_with(&root) {
                    return Err(ManifestError::Outside { path: real, root });
                }
            }
            Ok(path)
        };
        Ok(Self {
            program: place(&self.program)?,
            input: self
                .input
                .iter()
                .map(|file| place(file))
                .collect::<Result<_, _>>()?,
            ..self
        })
    }

    /// Reads a manifest. A byte order mark before it is ignored.
    ///
    /// # Errors
    /// When it is not JSON, has a field too many, too few or of the wrong kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        check_names("", &value, FIELDS)?;
        for (list, known) in [
            ("output", ["name", "type"].as_slice()),
            ("derived", &["name", "ratio"]),
        ] {
            let items = value.get(list).and_then(serde_json::Value::as_array);
            for (index, item) in items.into_iter().flatten().enumerate() {
                check_names(&format!("{list}[{index}]."), item, known)?;
            }
        }
        // From the text again: its errors have line and column.
        let mut text = serde_json::Deserializer::from_slice(bytes);
        let manifest: Self = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let path = error.path().to_string();
            match path.as_str() {
                "." => malformed(error.into_inner()),
                _ => ManifestError::Malformed(format!(
                    "field `{path}`: {}; {} is expected",
                    error.inner(),
                    shape(&path)
                )),
            }
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        for given in [self.output.len(), self.derived.len()] {
            if given > FIELDS_MAX {
                return Err(ManifestError::TooMany { given });
            }
        }
        let mut names = BTreeSet::new();
        let outputs = self.output.iter().map(|field| &field.name);
        for name in outputs.chain(self.derived.iter().map(|derived| &derived.name)) {
            if !names.insert(name) {
                return Err(ManifestError::Twice(name.clone()));
            }
        }
        if let Some((_, earlier)) = self.output.split_last()
            && let Some(field) = earlier.iter().find(|field| field.kind == Kind::Bytes)
        {
            return Err(ManifestError::BytesNotLast(field.name.clone()));
        }
        for derived in &self.derived {
            for of in [&derived.ratio.0, &derived.ratio.1] {
                let is_integer = |field: &Field| field.name == *of && field.kind != Kind::Bytes;
                if !self.output.iter().any(is_integer) {
                    return Err(ManifestError::Ratio {
                        name: derived.name.clone(),
                        of: of.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// What stands in the field at `path`, as `output[0].type`.
fn shape(path: &str) -> &'static str {
    match path.split(['.', '[']).next().unwrap_or_default() {
        "program" => "a path, as \"sum.wasm\",",
        "input" => "a list of paths, as [\"input.bin\"],",
        "gas_limit" | "price_per_mgas" => "a decimal number in quotes, as \"1000000\",",
        "memory_pages" | "replicas" | "wait_max" => "a whole number, as 3,",
        "output" => {
            "a list of fields, as [{ \"name\": \"total\", \"type\": \"u32\" }], with types u8, u32, i32, u64, \
             i64 and, last, bytes,"
        }
        "derived" => {
            "a list of ratios of two fields of the output, as [{ \"name\": \"accuracy\", \"ratio\": \
             [\"correct\", \"rows\"] }],"
        }
        "description" => "a text",
        _ => "an object with the manifest's fields",
    }
}

/// Reads a program's module.
///
/// # Errors
/// When it cannot be read or is too long.
pub fn read_program(path: &Path) -> Result<Blob, ManifestError> {
    read_bounded(path, "a program", PROGRAM_BYTES_MAX).map(Blob::new)
}

/// Reads an input: the files' bytes, one after the other.
///
/// # Errors
/// When one cannot be read or together they are too long.
pub fn read_input<P: AsRef<Path>>(paths: &[P]) -> Result<Blob, ManifestError> {
    let mut input = Vec::new();
    for path in paths {
        let most = INPUT_BYTES_MAX.saturating_sub(input.len());
        let too_long = |error| match error {
            ManifestError::TooLong { path, what, .. } => ManifestError::TooLong {
                path,
                what,
                most: INPUT_BYTES_MAX,
            },
            error => error,
        };
        let bytes = read_bounded(path.as_ref(), "an input in all", most).map_err(too_long)?;
        input.extend(bytes);
    }
    Ok(Blob::new(input))
}

fn read_bounded(path: &Path, what: &'static str, most: usize) -> Result<Vec<u8>, ManifestError> {
    let io = |error| ManifestError::Io {
        path: path.to_owned(),
        error,
    };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(io)?;
    if bytes.len() > most {
        let path = path.to_owned();
        return Err(ManifestError::TooLong { path, what, most });
    }
    Ok(bytes)
}

fn check_names(
    place: &str,
    value: &serde_json::Value,
    known: &[&str],
) -> Result<(), ManifestError> {
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    let Some(unknown) = object.keys().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let suggestion = match nearest(unknown, known.iter().copied()) {
        Some(name) => format!(": did you mean `{name}`?"),
        None => format!(": the fields are {}", known.join(", ")),
    };
    Err(ManifestError::Unknown {
        field: format!("{place}{unknown}"),
        suggestion,
    })
}

#[cfg(test)]
mod tests {
    use super::{Kind, Manifest, ManifestError, read_input};

    const GOOD: &str = r#"{
        "program": "p.wasm", "input": ["a", "b"], "gas_limit": "100", "memory_pages": 2,
        "replicas": 3, "price_per_mgas": "10", "wait_max": 600,
        "output": [{ "name": "hits", "type": "u32" }, { "name": "all", "type": "u64" },
                   { "name": "rest", "type": "bytes" }],
        "derived": [{ "name": "share", "ratio": ["hits", "all"] }]
    }"#;

    fn refusal(from: &str, to: &str) -> ManifestError {
        assert!(GOOD.contains(from), "{from}");
        Manifest::parse(GOOD.replacen(from, to, 1).as_bytes()).expect_err(to)
    }

    #[test]
    fn a_manifest_is_read() {
        let manifest = Manifest::parse(GOOD.as_bytes()).expect("good");
        assert_eq!(manifest.gas_limit.get(), 100);
        assert_eq!(manifest.output[2].kind, Kind::Bytes);
        assert_eq!(manifest.derived[0].ratio, ("hits".into(), "all".into()));
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_nearest_one() {
        for (from, to, words) in [
            (
                "gas_limit",
                "gaslimit",
                "unknown field `gaslimit`: did you mean `gas_limit`?",
            ),
            (
                "\"name\"",
                "\"nam\"",
                "unknown field `output[0].nam`: did you mean `name`?",
            ),
            (
                "\"ratio\"",
                "\"ration\"",
                "`derived[0].ration`: did you mean `ratio`?",
            ),
            ("wait_max", "zzzzzzzzzzzz", "the fields are program, input"),
        ] {
            let text = refusal(from, to).to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_named() {
        for (from, to, words) in [
            ("\"replicas\": 3,", "", "missing field `replicas`"),
            ("\"100\"", "100", "field `gas_limit`"),
            ("\"100\"", "100", "expected a string"),
            (
                "\"wait_max\": 600",
                "\"wait_max\": \"6\"",
                "field `wait_max`",
            ),
            ("\"100\"", "\"-100\"", "`-100` is not a decimal"),
            ("\"u32\"", "\"u16\"", "unknown variant `u16`"),
            ("\"replicas\": 3", "\"replicas\": 300", "300"),
        ] {
            let text = refusal(from, to).to_string();
            assert!(text.contains(words), "{text}");
        }
        assert!(Manifest::parse(b"[").is_err());
    }

    #[test]
    fn a_value_of_the_wrong_shape_is_refused_with_the_right_one() {
        let fields = r#"[{ "name": "hits", "type": "u32" }, { "name": "all", "type": "u64" },
                   { "name": "rest", "type": "bytes" }]"#;
        let shape = r#"a list of fields, as [{ "name": "total", "type": "u32" }]"#;
        for (from, to, field, words) in [
            (fields, r#"{ "hits": "u32" }"#, "field `output`", shape),
            (fields, r#""u32""#, "field `output`", shape),
            (fields, r#"["u32"]"#, "field `output[0]`", shape),
            (
                fields,
                r#"[{ "name": "hits" }]"#,
                "field `output[0]`",
                shape,
            ),
            (r#""u32""#, "4", "field `output[0].type`", shape),
            (
                r#"["hits", "all"]"#,
                r#""hits""#,
                "field `derived[0].ratio`",
                r#"as [{ "name": "accuracy", "ratio": ["correct", "rows"] }]"#,
            ),
            (
                r#"["a", "b"]"#,
                r#""a""#,
                "field `input`",
                r#"a list of paths, as ["input.bin"]"#,
            ),
            (
                r#""100""#,
                "100",
                "field `gas_limit`",
                r#"a decimal number in quotes, as "1000000""#,
            ),
        ] {
            let text = refusal(from, to).to_string();
            assert!(text.contains(field) && text.contains(words), "{text}");
        }
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        let twice = refusal("\"all\"", "\"hits\"");
        assert!(matches!(twice, ManifestError::Twice(name) if name == "hits"));
        let twice = refusal("\"share\"", "\"rest\"");
        assert!(matches!(twice, ManifestError::Twice(name) if name == "rest"));
        let early = refusal("\"u64\"", "\"bytes\"");
        assert!(matches!(early, ManifestError::BytesNotLast(name) if name == "all"));
        for of in ["rest", "none"] {
            let ratio = refusal("\"hits\", \"all\"]", &format!("\"hits\", \"{of}\"]"));
            assert!(matches!(ratio, ManifestError::Ratio { of: given, .. } if given == of));
        }
    }

    #[test]
    fn an_input_is_its_files_one_after_the_other_and_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "one").expect("written");
        std::fs::write(path("b"), "two").expect("written");
        std::fs::write(path("long"), vec![0; 65_534]).expect("written");
        let input = read_input(&[path("a"), path("b")]).expect("read");
        assert_eq!(input.as_bytes(), b"onetwo");
        let text = read_input(&[path("a"), path("long")])
            .expect_err("65,537 bytes")
            .to_string();
        assert!(text.contains("65536"), "{text}");
        let text = read_input(&[path("missing")])
            .expect_err("none")
            .to_string();
        assert!(text.contains("missing"), "{text}");
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let marked = format!("\u{feff}{GOOD}");
        assert!(Manifest::parse(marked.as_bytes()).is_ok());
    }

    #[test]
    fn files_outside_the_folder_are_refused_unless_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("task");
        std::fs::create_dir(&inside).expect("made");
        for path in [
            folder.path().join("secret"),
            inside.join("p.wasm"),
            inside.join("a"),
        ] {
            std::fs::write(path, "x").expect("written");
        }
        std::os::unix::fs::symlink("../secret", inside.join("link")).expect("linked");
        let secret = folder.path().join("secret");
        let read = |input: &str, allow| {
            let text = GOOD.replace("\"a\", \"b\"", &format!("{input:?}"));
            let manifest = Manifest::parse(text.as_bytes()).expect("good");
            manifest.in_folder(&inside, allow)
        };
        assert!(read("a", false).is_ok());
        for outside in ["../secret", "link", secret.to_str().expect("a name")] {
            let refused = read(outside, false).expect_err(outside);
            assert!(
                matches!(refused, ManifestError::Outside { .. }),
                "{outside}"
            );
            assert!(read(outside, true).is_ok(), "{outside}");
        }
    }

    #[test]
    fn the_manifest_that_the_examples_readme_shows_is_good() {
        let path = format!("{}/../examples/README.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the text");
        let (_, shown) = text.split_once("```json\n").expect("a manifest");
        let (shown, _) = shown.split_once("```").expect("its end");
        let manifest = Manifest::parse(shown.as_bytes()).expect("good");
        let fields = manifest
            .output
            .iter()
            .map(|field| (field.name.as_str(), field.kind));
        assert!(fields.eq([("total", Kind::U32)]), "{manifest:?}");
    }

    #[test]
    fn the_examples_of_the_repository_are_good() {
        for name in ["digits", "genome-align"] {
            let folder = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
            let (manifest, folder) = Manifest::load(folder.as_ref()).expect(name);
            let input: Vec<_> = manifest
                .input
                .iter()
                .map(|file| folder.join(file))
                .collect();
            assert!(!read_input(&input).expect(name).is_empty());
            let program = super::read_program(&folder.join(&manifest.program)).expect(name);
            assert!(program.as_bytes().starts_with(b"\0asm"));
        }
    }
}
