//! Builds the index of a shard in the layout of WebDataset.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use serde_json::Value;

use crate::{
    error::{IngestError, Remedy},
    index::{Index, Place},
    walk::{Member, Promise, Section, Walk, promise},
};

const LABEL_BYTES_MAX: u64 = 32;
/// Metadata of one sample; hashtags and a caption are far shorter.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// A shard that is being indexed.
pub(crate) struct Scan<'a> {
    pub(crate) shard: &'a Path,
    pub(crate) remedy: Remedy,
    /// Number of classes; without classes the label members are not looked at.
    pub(crate) n_classes: usize,
}

#[derive(Default)]
struct Found {
    /// Key, offset and length of each image.
    samples: Vec<(String, u64, u64)>,
    images: BTreeMap<String, usize>,
    labels: BTreeMap<String, u32>,
}

pub(crate) enum Kind {
    Image,
    OtherImage,
    Label,
    Json,
    Other,
}

impl Scan<'_> {
    /// The samples in the order of their images.
    pub(crate) fn index(&self, file: &File) -> Result<Index, IngestError> {
        let mut found = Found::default();
        self.walk().members(Section::whole(file, self.shard)?, &mut |member, content| {
            self.add(&mut found, member, content)
        })?;
        self.with_labels(found)
    }

    fn walk(&self) -> Walk<'_> {
        Walk { shard: self.shard, remedy: self.remedy }
    }

    fn add(
        &self,
        found: &mut Found,
        member: Member<'_>,
        content: &mut dyn Read,
    ) -> Result<(), IngestError> {
        let (key, kind) = split_name(member.name);
        let (shard, has_classes) = (|| self.shard.to_owned(), self.n_classes > 0);
        let duplicate =
            |what| Err(IngestError::DuplicateKey { shard: shard(), key: key.to_owned(), what });
        let label = match kind {
            Kind::Image => {
                self.walk().check_size(member)?;
                if found.images.insert(key.to_owned(), found.samples.len()).is_some() {
                    return duplicate("image");
                }
                found.samples.push((key.to_owned(), member.offset, member.size));
                None
            }
            Kind::OtherImage => {
                let reason = "images end in .jpg, .jpeg or .png";
                return Err(self.walk().refused(member.name, reason));
            }
            Kind::Label if has_classes => Some(self.label(member.name, content)?),
            Kind::Json if has_classes => self.label_in_json(member, content)?,
            Kind::Label | Kind::Json | Kind::Other => None,
        };
        match label {
            Some(label) if found.labels.insert(key.to_owned(), label).is_some() => {
                duplicate("label")
            }
            _ => Ok(()),
        }
    }

    fn with_labels(&self, found: Found) -> Result<Index, IngestError> {
        let Found { samples, images, labels } = found;
        let shard = || self.shard.to_owned();
        if let Some(key) = labels.keys().find(|key| !images.contains_key(*key)) {
            return Err(IngestError::SampleWithoutImage { shard: shard(), key: key.clone() });
        }
        let mut index = Index::default();
        for (key, offset, size) in samples {
            let label = labels.get(&key).copied();
            let place = Place { name: &key, offset, size, label };
            index.push(place).ok_or_else(|| IngestError::IndexTooLarge { path: shard() })?;
        }
        Ok(index)
    }

    fn label(&self, member: &str, content: &mut dyn Read) -> Result<u32, IngestError> {
        let bytes = self.content(content, LABEL_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        match text.trim().parse::<u32>() {
            Ok(label) => self.in_range(member, label),
            Err(_) => Err(self.no_label(member, text.into_owned())),
        }
    }

    /// The label in `{"label": 3}` or `{"cls": 3}`; JSON with neither is metadata.
    fn label_in_json(
        &self,
        member: Member<'_>,
        content: &mut dyn Read,
    ) -> Result<Option<u32>, IngestError> {
        let metadata = self.json(member, content)?;
        let Some(value) = metadata.get("label").or_else(|| metadata.get("cls")) else {
            return Ok(None);
        };
        match value.as_u64().and_then(|label| u32::try_from(label).ok()) {
            Some(label) => self.in_range(member.name, label).map(Some),
            None => Err(self.no_label(member.name, value.to_string())),
        }
    }

    /// The metadata of one sample.
    pub(crate) fn json(
        &self,
        member: Member<'_>,
        content: &mut dyn Read,
    ) -> Result<Value, IngestError> {
        let unfit = |problem| {
            let (shard, member) = (self.shard.to_owned(), member.name.to_owned());
            IngestError::MetadataSyntax { shard, member, problem }
        };
        if member.size > JSON_BYTES_MAX {
            return Err(unfit(format!(
                "it has {} bytes, the limit is {JSON_BYTES_MAX}",
                member.size
            )));
        }
        serde_json::from_slice(&self.content(content, JSON_BYTES_MAX)?)
            .map_err(|error| unfit(error.to_string()))
    }

    fn content(&self, content: &mut dyn Read, limit: u64) -> Result<Vec<u8>, IngestError> {
        let mut bytes = Vec::new();
        let read = content.take(limit).read_to_end(&mut bytes);
        read.map_err(IngestError::io("read", self.shard))?;
        Ok(bytes)
    }

    fn in_range(&self, member: &str, label: u32) -> Result<u32, IngestError> {
        if (label as usize) < self.n_classes {
            return Ok(label);
        }
        let (shard, member) = (self.shard.to_owned(), member.to_owned());
        Err(IngestError::LabelRange { shard, member, got: label, n_classes: self.n_classes })
    }

    fn no_label(&self, member: &str, got: String) -> IngestError {
        IngestError::LabelSyntax { shard: self.shard.to_owned(), member: member.to_owned(), got }
    }
}

/// WebDataset's rule: the key ends at the first dot of the file name.
pub(crate) fn split_name(member: &str) -> (&str, Kind) {
    let name_start = member.rfind('/').map_or(0, |slash| slash + 1);
    let Some(dot) = member[name_start..].find('.') else { return (member, Kind::Other) };
    let (key, extension) = (&member[..name_start + dot], &member[name_start + dot + 1..]);
    let kind = match promise(extension) {
        Promise::Image => Kind::Image,
        Promise::OtherImage => Kind::OtherImage,
        Promise::Nothing => match extension.to_ascii_lowercase().as_str() {
            "cls" | "txt" => Kind::Label,
            "json" => Kind::Json,
            _ => Kind::Other,
        },
    };
    (key, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::MEMBER_BYTES_MAX;

    type Tarred<'a> = (&'a str, &'a [u8], tar::EntryType);

    /// A tar file of members with any name, content and type, which the crate's own writer refuses.
    fn tar_of(members: &[Tarred<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content, kind) in members {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Key, offset, length and label of each sample.
    type Row = (String, u64, u64, Option<u32>);

    fn scan(bytes: &[u8], n_classes: usize) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("s.tar");
        std::fs::write(&shard, bytes).unwrap();
        let scan = Scan { shard: &shard, remedy: Remedy::Download, n_classes };
        let place = format!("{}/", folder.path().display());
        let index = scan.index(&File::open(&shard).unwrap());
        let index = index.map_err(|error| error.to_string().replace(&place, ""))?;
        Ok(index.iter().map(|at| (at.name.to_owned(), at.offset, at.size, at.label)).collect())
    }

    fn file<'a>(name: &'a str, content: &'a [u8]) -> Tarred<'a> {
        (name, content, tar::EntryType::Regular)
    }

    fn sample(name: &str, offset: u64, size: u64, label: Option<u32>) -> Row {
        (name.to_owned(), offset, size, label)
    }

    #[test]
    fn extensions_folders_and_unknown_members_follow_webdataset() {
        let members = [
            ("d/", &[][..], tar::EntryType::Directory),
            file("d/a.JPEG", b"123"),
            file("d/a.cls", b"1\n"),
            file("./b.cls", b"0"),
            file("./b.json", b"{}"),
            file("./b.Png", b"45"),
            file("c.jpg", b""),
            file("README", b"hello"),
            file("c.seg.png", b"6"),
        ];
        let expected = [
            sample("d/a", 1024, 3, Some(1)),
            sample("b", 5120, 2, Some(0)),
            sample("c", 6144, 0, None),
        ];
        assert_eq!(scan(&tar_of(&members), 2).unwrap(), expected);
    }

    #[test]
    fn label_members_are_captions_where_there_are_no_classes() {
        let members = [file("a.jpg", b"1"), file("a.txt", b"a photo of a cat")];
        assert_eq!(scan(&tar_of(&members), 0).unwrap(), [sample("a", 512, 1, None)]);
        let message = scan(&tar_of(&members), 2).unwrap_err();
        let expected = "shard s.tar: \"a.txt\" must hold a class number in decimal, got \"a photo of a cat\"; \
                        remove `classes` from the manifest if these are no labels";
        assert_eq!(message, expected);
    }

    #[test]
    fn labels_may_stand_in_json() {
        let members = [
            file("a.jpg", b"1"),
            file("a.json", b"{\"label\": 1, \"hashtags\": [\"cat\"]}"),
            file("b.jpg", b"1"),
            file("b.json", b"{\"cls\": 0}"),
            file("c.jpg", b"1"),
            file("c.json", b"{\"hashtags\": []}"),
        ];
        let labels = |n_classes| -> Vec<Option<u32>> {
            scan(&tar_of(&members), n_classes).unwrap().into_iter().map(|row| row.3).collect()
        };
        assert_eq!(labels(2), [Some(1), Some(0), None]);
        assert_eq!(labels(0), [None; 3]);
        let broken = [file("a.jpg", b"1"), file("a.json", b"{\"label\": 1")];
        let message = scan(&tar_of(&broken), 2).unwrap_err();
        let expected = "shard s.tar: the metadata \"a.json\" cannot be read: EOF while parsing an object at \
                        line 1 column 11; make the shard again";
        assert_eq!(message, expected);
        scan(&tar_of(&broken), 0).unwrap();
    }

    #[test]
    fn harmful_and_contradictory_members_are_refused() {
        let image = file("a.jpg", b"1");
        let link = ("a.jpg", &[][..], tar::EntryType::Symlink);
        let leaves = |member: &str| {
            format!(
                "shard s.tar holds the member {member:?}, which is refused: its path leaves the shard; \
                 get the shard from a source that you trust"
            )
        };
        let second = |what: &str| {
            format!(
                "shard s.tar holds a second {what} for the sample \"a\"; make the shard again with \
                 distinct keys"
            )
        };
        let no_number = |member: &str, got: &str| {
            format!(
                "shard s.tar: {member:?} must hold a class number in decimal, got {got:?}; remove \
                 `classes` from the manifest if these are no labels"
            )
        };
        let cases: [(&[Tarred<'_>], &str); 12] = [
            (&[file("../a.jpg", b"1")], &leaves("../a.jpg")),
            (&[file("b/../a.jpg", b"1")], &leaves("b/../a.jpg")),
            (&[file("/a.jpg", b"1")], &leaves("/a.jpg")),
            (
                &[link],
                "shard s.tar holds the member \"a.jpg\", which is refused: it is not a regular file; \
                 get the shard from a source that you trust",
            ),
            (&[image, file("a.png", b"2")], &second("image")),
            (&[image, file("a.cls", b"1"), file("a.txt", b"1")], &second("label")),
            (
                &[image, file("b.cls", b"1")],
                "shard s.tar holds no image for the sample \"b\"; images end in .jpg, .jpeg or .png",
            ),
            (
                &[image, file("a.cls", b"2")],
                "shard s.tar: \"a.cls\" holds the label 2, but the manifest names 2 classes (0 to 1); \
                 add the missing classes",
            ),
            (
                &[image, file("b.WebP", b"1")],
                "shard s.tar holds the member \"b.WebP\", which is refused: images end in .jpg, .jpeg or \
                 .png; get the shard from a source that you trust",
            ),
            (&[image, file("a.cls", b"1"), file("a.json", b"{\"label\": 1}")], &second("label")),
            (&[image, file("a.json", b"{\"label\": \"cat\"}")], &no_number("a.json", "\"cat\"")),
            (&[image, file("a.cls", b"-1")], &no_number("a.cls", "-1")),
        ];
        for (members, expected) in cases {
            assert_eq!(scan(&tar_of(members), 2).unwrap_err(), expected);
        }
    }

    #[test]
    fn oversized_members_are_refused_before_they_are_read() {
        // The content is a hole, so that the test needs no 64 MiB.
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("s.tar");
        let mut header = tar::Header::new_ustar();
        header.set_path("a.jpg").unwrap();
        header.set_size(MEMBER_BYTES_MAX + 1);
        header.set_cksum();
        std::fs::write(&shard, header.as_bytes()).unwrap();
        File::options().write(true).open(&shard).unwrap().set_len(MEMBER_BYTES_MAX + 4096).unwrap();
        let scan = Scan { shard: &shard, remedy: Remedy::Download, n_classes: 0 };
        let message = scan.index(&File::open(&shard).unwrap()).unwrap_err().to_string();
        let expected = format!(
            "shard {} holds the member \"a.jpg\" of 67108865 bytes, the limit is 67108864; make the shard again \
             with smaller images",
            shard.display()
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn a_cut_names_the_piece_that_is_not_whole() {
        let whole = tar_of(&[file("a.jpg", &[7; 600]), file("a.cls", b"1")]);
        let cases = [
            (whole.len() - 1024, "512 bytes needed at offset 2560, got 0"),
            (2048, "1 bytes needed at offset 2048, got 0"),
            (2047, "512 bytes needed at offset 1536, got 511"),
            (1536, "512 bytes needed at offset 1536, got 0"),
            (1000, "600 bytes needed at offset 512, got 488"),
            (100, "512 bytes needed at offset 0, got 100"),
            (0, "512 bytes needed at offset 0, got 0"),
        ];
        for (length, expected) in cases {
            let message = scan(&whole[..length], 2).unwrap_err();
            assert_eq!(message, format!("shard s.tar is truncated: {expected}; download it again"));
        }
    }

    #[test]
    fn a_damaged_header_is_located() {
        let mut bytes = tar_of(&[file("a.jpg", b"1"), file("b.jpg", b"2")]);
        bytes[1024] ^= 1;
        let message = scan(&bytes, 0).unwrap_err();
        assert_eq!(message, "shard s.tar has a bad tar header at offset 1024; download it again");
    }
}
