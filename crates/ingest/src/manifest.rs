//! The manifest: what a data set is and what the bytes of its shards must be.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::Path,
};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    durable::publish,
    error::{IngestError, Remedy},
    index::Stamp,
    split::Split,
};

const HINT_MISSING: &str =
    "give the path of a manifest; data-manifests/textures.toml is that of the default data";
const HINT_INVALID: &str = "see data-manifests/textures.toml for a manifest that is right";

/// Shards of a manifest that are parsed together.
const SHARDS_AT_ONCE: usize = 256;

/// A data set of tar shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Short name.
    pub name: String,
    /// The generator of this workspace that makes the data; absent where it comes from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// Under which terms the images may be used.
    pub license: String,
    /// Where the images come from.
    pub source: String,
    /// Names of the classes, in the order of the labels; empty where there are no labels.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Shards of the training split, in the order of their samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub train: Vec<ShardEntry>,
    /// Shards of the held-out split, in the order of their samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<ShardEntry>,
}

/// Some shards of a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shards {
    #[serde(default)]
    train: Vec<ShardEntry>,
    #[serde(default)]
    test: Vec<ShardEntry>,
}

/// The manifest's entry for one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name, relative to the data folder.
    #[serde(deserialize_with = "file_name")]
    pub file: String,
    /// Number of images.
    pub samples: u64,
    /// Length of the file.
    pub bytes: u64,
    /// BLAKE3 of the file, 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "checksum")]
    pub blake3: String,
}

impl ShardEntry {
    /// The checksum as bytes, which ties an index file to its shard. It was checked when it was parsed;
    /// an entry made otherwise belongs to no index.
    pub(crate) fn stamp(&self) -> Stamp {
        blake3::Hash::from_hex(&self.blake3).map_or([0; 32], |hash| *hash.as_bytes())
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// If the file is missing, is no TOML, has unknown or missing keys or impossible values, or lists a
    /// shard twice; the message gives the line.
    pub fn load(path: &Path) -> Result<Self, IngestError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                IngestError::ManifestMissing { path: path.to_owned(), hint: HINT_MISSING }
            }
            _ => IngestError::Io { action: "read", path: path.to_owned(), source },
        })?;
        let invalid = |offset: usize, message: String| IngestError::ManifestInvalid {
            path: path.to_owned(),
            line: text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1,
            message,
            hint: HINT_INVALID,
        };
        let manifest = Self::in_parts(&text).map_or_else(|| toml::from_str(&text), Ok);
        let manifest: Self = manifest.map_err(|error: toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start);
            // Some of the parser's messages have several lines; the file's line is given already.
            invalid(offset, error.message().replace('\n', ", "))
        })?;
        if let Some((name, offset)) = manifest.repeated_shard(&text) {
            return Err(invalid(offset, format!("shard {name:?} is listed twice")));
        }
        Ok(manifest)
    }

    /// Writes the manifest; the file changes at once or not at all.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), IngestError> {
        let text = toml::to_string(self)
            .map_err(|source| IngestError::ManifestEncode { name: self.name.clone(), source })?;
        let temporary = path.with_extension("toml.partial");
        let mut file =
            fs::File::create(&temporary).map_err(IngestError::io("create", &temporary))?;
        file.write_all(text.as_bytes()).map_err(IngestError::io("write", &temporary))?;
        publish(&file, &temporary, path)
    }

    /// The shards of a split.
    #[must_use]
    pub fn shards(&self, split: Split) -> &[ShardEntry] {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// How a user gets a sound copy of a shard of this data set.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self.generator {
            Some(_) => Remedy::Regenerate,
            None if self.source.contains("://") => Remedy::Download,
            None => Remedy::Remake,
        }
    }

    /// Parses the shards a few at a time: the parser's tree of a manifest of a hundred thousand shards takes
    /// 20 times the memory of the manifest. `None` if it does not parse in this way; whoever parses it as a
    /// whole then finds why.
    fn in_parts(text: &str) -> Option<Self> {
        let mut starts = text.match_indices("\n[[").map(|(newline, _)| newline + 1);
        let mut start = starts.next()?;
        let mut manifest: Self = toml::from_str(&text[..start]).ok()?;
        while start < text.len() {
            let end = starts.nth(SHARDS_AT_ONCE - 1).unwrap_or(text.len());
            let shards: Shards = toml::from_str(&text[start..end]).ok()?;
            manifest.train.extend(shards.train);
            manifest.test.extend(shards.test);
            start = end;
        }
        Some(manifest)
    }

    /// The first shard name that comes twice, with the offset of the second time.
    fn repeated_shard(&self, text: &str) -> Option<(&str, usize)> {
        let mut seen = BTreeSet::new();
        let mut names = self.train.iter().chain(&self.test).map(|shard| shard.file.as_str());
        let repeated = names.find(|name| !seen.insert(*name))?;
        let offset = text.match_indices(repeated).nth(1).map_or(0, |(offset, _)| offset);
        Some((repeated, offset))
    }
}

fn file_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let plain =
        !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
    if plain {
        Ok(name)
    } else {
        Err(de::Error::custom(format!(
            "{name:?} is not the plain name of a file in the data folder"
        )))
    }
}

fn checksum<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let digits = String::deserialize(deserializer)?;
    if digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(digits)
    } else {
        Err(de::Error::custom(format!(
            "a blake3 checksum has 64 lower-case hexadecimal digits, got {digits:?}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let shard = |file: &str, samples| ShardEntry {
            file: file.to_owned(),
            samples,
            bytes: 4096,
            blake3: "0a".repeat(32),
        };
        Manifest {
            name: "tiny".to_owned(),
            generator: None,
            license: "CC0".to_owned(),
            source: "made by hand".to_owned(),
            classes: vec!["cat".to_owned(), "dog".to_owned()],
            train: vec![shard("a.tar", 3), shard("b.tar", 2)],
            test: vec![shard("c.tar", 1)],
        }
    }

    #[test]
    fn a_saved_manifest_loads_unchanged_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.toml");
        for generator in [None, Some("textures".to_owned())] {
            let manifest = Manifest { generator, ..sample() };
            manifest.save(&path).unwrap();
            assert_eq!(Manifest::load(&path).unwrap(), manifest);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn parsing_in_parts_changes_nothing() {
        let entry = |i: usize| ShardEntry { file: format!("{i}.tar"), ..sample().train[0].clone() };
        for n_train in [0, 1, 255, 256, 257, 1000] {
            let train = (0..n_train).map(entry).collect();
            let manifest = Manifest { train, ..sample() };
            let text = toml::to_string(&manifest).unwrap();
            assert_eq!(Manifest::in_parts(&text), Some(manifest));
        }
        // A text that looks like a table: the whole is right, and the parts are not.
        let tricky = Manifest { source: "a\n[[train]]\nb".to_owned(), ..sample() };
        let text = toml::to_string(&tricky).unwrap();
        assert!(text.contains("\na\n[[train]]\nb"), "{text}");
        assert_eq!(Manifest::in_parts(&text), None);
        assert_eq!(toml::from_str::<Manifest>(&text).unwrap(), tricky);
    }

    #[test]
    fn the_split_and_the_generator_decide() {
        let manifest = sample();
        assert_eq!(manifest.shards(Split::Train).len(), 2);
        assert_eq!(manifest.shards(Split::Test)[0].file, "c.tar");
        assert_eq!(manifest.remedy(), Remedy::Remake);
        let source = "from https://example.org/shards".to_owned();
        assert_eq!(Manifest { source, ..sample() }.remedy(), Remedy::Download);
        let generated = Manifest { generator: Some("textures".to_owned()), ..manifest };
        assert_eq!(generated.remedy(), Remedy::Regenerate);
    }

    /// Loads the sample manifest after one replacement and gives the error without the folder's path.
    fn message_after(from: &str, to: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.toml");
        sample().save(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let message = Manifest::load(&path).unwrap_err().to_string();
        message.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let cases = [
            ("license", "licence", "manifest.toml:2: unknown field `licence`, expected one of"),
            ("license = \"CC0\"\n", "", "manifest.toml:1: missing field `license`"),
            ("samples = 3", "samples = \"3\"", "manifest.toml:8: invalid type: string \"3\""),
            ("samples = 3", "samples = -3", "manifest.toml:8: invalid value: integer `-3`"),
            ("\"a.tar\"", "\"../a.tar\"", "manifest.toml:7: \"../a.tar\" is not the plain name"),
            ("\"a.tar\"", "\"..\"", "manifest.toml:7: \"..\" is not the plain name"),
            ("0a0a", "0A0A", "manifest.toml:10: a blake3 checksum has 64 lower-case"),
            ("\"0a", "\"", "manifest.toml:10: a blake3 checksum has 64 lower-case"),
            ("\"c.tar\"", "\"a.tar\"", "manifest.toml:19: shard \"a.tar\" is listed twice"),
            ("[[train]]", "[[train", "manifest.toml:6: unclosed array table"),
        ];
        for (from, to, expected) in cases {
            let message = message_after(from, to);
            assert!(message.starts_with(expected), "{message}");
            assert!(message.ends_with(HINT_INVALID) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_missing_manifest_says_where_and_what_to_do() {
        let message = Manifest::load(Path::new("/nowhere/m.toml")).unwrap_err().to_string();
        assert_eq!(message, format!("no manifest at /nowhere/m.toml; {HINT_MISSING}"));
    }

    #[test]
    fn an_unwritable_folder_is_named() {
        let error = sample().save(Path::new("/nowhere/m.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot create /nowhere/m.toml.partial");
    }
}
