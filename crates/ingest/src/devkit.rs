//! The devkit of ImageNet's validation images: which class each of them has.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use flate2::read::GzDecoder;

use crate::{
    error::IngestError,
    mat::{Structs, Value, struct_array},
};

const HINT: &str = "give the devkit as it was downloaded, ILSVRC2012_devkit_t12.tar.gz";
const TRUTH: &str = "data/ILSVRC2012_validation_ground_truth.txt";
const META: &str = "data/meta.mat";
const MEMBER_BYTES_MAX: u64 = 64 << 20;

/// Classes of the validation images.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Devkit {
    /// WordNet ids of the classes, sorted: the order of the labels.
    pub(crate) classes: Vec<String>,
    /// Label of each image, in the order of the images' names.
    pub(crate) labels: Vec<u32>,
}

impl Devkit {
    /// Reads the archive of the devkit.
    pub(crate) fn open(path: &Path) -> Result<Self, IngestError> {
        let (mut truth, mut meta) = (None, None);
        let file = File::open(path).map_err(IngestError::io("open", path))?;
        let unreadable = |error: io::Error| unfit(path, format!("cannot be unpacked: {error}"));
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        for entry in archive.entries().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let wanted = match &name {
                name if name.ends_with(TRUTH) => &mut truth,
                name if name.ends_with(META) => &mut meta,
                _ => continue,
            };
            let mut bytes = Vec::new();
            entry.take(MEMBER_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
            *wanted = Some(bytes);
        }
        let missing = |what| unfit(path, format!("holds no {what}"));
        let truth = truth.ok_or_else(|| missing(TRUTH))?;
        let meta = meta.ok_or_else(|| missing(META))?;
        let synsets = struct_array(&meta, "synsets").map_err(|problem| {
            unfit(path, format!("has a {META} that cannot be read: {problem}"))
        })?;
        Self::of(&synsets, &String::from_utf8_lossy(&truth)).map_err(|problem| unfit(path, problem))
    }

    fn of(synsets: &Structs, truth: &str) -> Result<Self, String> {
        let mut by_id: Vec<(u32, String)> = synsets.iter().filter_map(|s| leaf(s)).collect();
        by_id.sort_unstable();
        let mut classes: Vec<String> = by_id.iter().map(|(_, wnid)| wnid.clone()).collect();
        classes.sort_unstable();
        let label = |(line_idx, line): (usize, &str)| {
            let wrong = || {
                format!("has a {TRUTH} whose line {} is {line:?}, which is no class", line_idx + 1)
            };
            let id: u32 = line.trim().parse().ok().ok_or_else(wrong)?;
            let at = by_id.binary_search_by_key(&id, |(id, _)| *id).ok().ok_or_else(wrong)?;
            // Both lists hold the same ids, so this finds each.
            let label = classes.binary_search(&by_id[at].1).ok().ok_or_else(wrong)?;
            u32::try_from(label).ok().ok_or_else(wrong)
        };
        let labels = truth.lines().enumerate().map(label).collect::<Result<_, String>>()?;
        Ok(Self { classes, labels })
    }
}

/// Id and WordNet id of a class; what has children is no class of the images.
fn leaf(synset: &[(String, Value)]) -> Option<(u32, String)> {
    let number = |wanted: &str| match synset.iter().find(|(name, _)| name == wanted)? {
        (_, Value::Numbers(numbers)) => numbers.first().copied(),
        (_, Value::Text(_)) => None,
    };
    let wnid = synset.iter().find_map(|(name, value)| match value {
        Value::Text(text) if name == "WNID" => Some(text.clone()),
        _ => None,
    })?;
    if number("num_children")? > 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let id = number("ILSVRC2012_ID")? as u32;
    Some((id, wnid))
}

fn unfit(path: &Path, problem: String) -> IngestError {
    IngestError::ArchiveUnfit { path: path.to_owned(), problem, hint: HINT }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// Writes a devkit of two classes: 1 is n02119789 and 2 is n02100735.
    pub(crate) fn write(path: &Path, members: &[(&str, &[u8])]) {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        let mut packed = GzEncoder::new(File::create(path).unwrap(), Compression::fast());
        packed.write_all(&builder.into_inner().unwrap()).unwrap();
        packed.finish().unwrap();
    }

    pub(crate) const META_MAT: &[u8] = include_bytes!("../tests/golden/packed.mat");

    type Members<'a> = &'a [(&'a str, &'a [u8])];

    fn open(members: Members<'_>) -> Result<Devkit, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devkit.tar.gz");
        write(&path, members);
        let place = format!("{}/", folder.path().display());
        Devkit::open(&path).map_err(|error| error.to_string().replace(&place, ""))
    }

    #[test]
    fn numbers_become_the_places_of_sorted_ids() {
        let truth = ("k/data/ILSVRC2012_validation_ground_truth.txt", &b"1\n2\n2\n1\n1\n"[..]);
        let devkit = open(&[("k/readme.txt", b"x"), truth, ("k/data/meta.mat", META_MAT)]).unwrap();
        assert_eq!(devkit.classes, ["n02100735", "n02119789"]);
        assert_eq!(devkit.labels, [1, 0, 0, 1, 1]);
    }

    #[test]
    fn what_is_no_devkit_is_explained() {
        let (truth, meta) = ("d/data/ILSVRC2012_validation_ground_truth.txt", "d/data/meta.mat");
        let cases: [(Members<'_>, &str); 5] = [
            (&[(truth, b"1")], "archive devkit.tar.gz holds no data/meta.mat; give the devkit as"),
            (&[(meta, META_MAT)], "holds no data/ILSVRC2012_validation_ground_truth.txt; give"),
            (
                &[(truth, b"1"), (meta, b"x")],
                "has a data/meta.mat that cannot be read: it is shorter",
            ),
            (
                &[(truth, b"1\n1001\n"), (meta, META_MAT)],
                "whose line 2 is \"1001\", which is no class;",
            ),
            (&[(truth, b"one\n"), (meta, META_MAT)], "whose line 1 is \"one\", which is no class;"),
        ];
        for (members, expected) in cases {
            let message = open(members).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        std::fs::write(&path, b"this is no gzip").unwrap();
        let message = Devkit::open(&path).unwrap_err().to_string();
        assert!(
            message.contains("a.tar.gz cannot be unpacked: invalid gzip header; give"),
            "{message}"
        );
    }
}
