//! Builds the index of a shard in the layout of WebDataset.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use serde_json::Value;

use crate::{
    error::{IngestError, Remedy},
    index::{Index, Place},
    sidecar::{self, JSON_BYTES_MAX},
    walk::{Member, Promise, Section, Walk, promise},
};

/// What is read of a label or a caption.
const LABEL_BYTES_MAX: u64 = 32;

/// A shard that is being indexed.
#[derive(Debug, Clone, Copy)]
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
    /// By the members that hold them; the first that has one counts.
    labels: [BTreeMap<String, Label>; N_LABEL_KINDS],
}

/// What a member says of its sample's class.
enum Label {
    Class(u32),
    /// Something else. It counts only where no other member has the class: beside a `.cls` a text is a
    /// caption, and metadata may have a key `label` of its own.
    Text(IngestError),
}

/// Members that may hold a label, those that count more first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelKind {
    Cls,
    Json,
    Txt,
}
const N_LABEL_KINDS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    OtherImage,
    Label(LabelKind),
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
        let duplicate = |what| {
            let (shard, key) = (self.shard.to_owned(), key.to_owned());
            Err(IngestError::DuplicateKey { shard, key, what })
        };
        match kind {
            Kind::Image => {
                self.walk().check_size(member)?;
                if found.images.insert(key.to_owned(), found.samples.len()).is_some() {
                    return duplicate("image");
                }
                found.samples.push((key.to_owned(), member.offset, member.size));
            }
            Kind::OtherImage => {
                let (shard, member) = (self.shard.to_owned(), member.name.to_owned());
                return Err(IngestError::MemberFormat { shard, member });
            }
            Kind::Label(kind) if self.n_classes > 0 => {
                let label = match kind {
                    LabelKind::Cls => Some(Label::Class(self.label(member.name, content)?)),
                    LabelKind::Json => self.label_in_json(member, content)?,
                    LabelKind::Txt => Some(Label::from(self.label(member.name, content))),
                };
                if let Some(label) = label
                    && found.labels[kind as usize].insert(key.to_owned(), label).is_some()
                {
                    return duplicate("label");
                }
            }
            Kind::Label(_) | Kind::Other => {}
        }
        Ok(())
    }

    fn with_labels(&self, found: Found) -> Result<Index, IngestError> {
        let Found { samples, images, mut labels } = found;
        let shard = || self.shard.to_owned();
        let is_field = |key: &str| first_key(key).is_some_and(|first| images.contains_key(first));
        for (key, label) in labels.iter().flatten() {
            let is_label = matches!(label, Label::Class(_));
            if is_label && !images.contains_key(key) && !is_field(key) {
                return Err(IngestError::SampleWithoutImage { shard: shard(), key: key.clone() });
            }
        }
        let mut index = Index::default();
        for (key, offset, size) in samples {
            if is_field(&key) {
                continue;
            }
            let mut label = None;
            let mut text = None;
            for labels in &mut labels {
                match labels.remove(&key) {
                    Some(Label::Class(class)) if label.is_none() => label = Some(class),
                    Some(Label::Text(error)) if text.is_none() => text = Some(error),
                    _ => {}
                }
            }
            if let (None, Some(error)) = (label, text) {
                return Err(error);
            }
            let place = Place { name: &key, offset, size, label };
            index.push(place).ok_or_else(|| IngestError::IndexTooLarge { path: shard() })?;
        }
        Ok(index)
    }

    pub(crate) fn label(&self, member: &str, content: &mut dyn Read) -> Result<u32, IngestError> {
        let bytes = self.content(content, LABEL_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        match text.trim().parse::<u32>() {
            Ok(label) => self.in_range(member, label),
            Err(_) => Err(self.no_label(member, text.into_owned())),
        }
    }

    /// The label in the metadata of a sample, if it has one.
    fn label_in_json(
        &self,
        member: Member<'_>,
        content: &mut dyn Read,
    ) -> Result<Option<Label>, IngestError> {
        let metadata = self.json(member, content)?;
        let label = sidecar::label(&metadata).map(|label| match label {
            Ok(label) => self.in_range(member.name, label),
            Err(text) => Err(self.no_label(member.name, text)),
        });
        Ok(label.map(Label::from))
    }

    /// The metadata of one sample.
    pub(crate) fn json(
        &self,
        member: Member<'_>,
        content: &mut dyn Read,
    ) -> Result<Value, IngestError> {
        // One byte over the limit is enough to see that it is too large.
        let bytes = self.content(content, JSON_BYTES_MAX + 1)?;
        sidecar::parse(&bytes, member.size).map_err(|problem| {
            let (shard, member) = (self.shard.to_owned(), member.name.to_owned());
            IngestError::MetadataSyntax { shard, member, problem }
        })
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

impl From<Result<u32, IngestError>> for Label {
    fn from(label: Result<u32, IngestError>) -> Self {
        label.map_or_else(Self::Text, Self::Class)
    }
}

/// The key of a member and what it holds. The key ends at the last dot of the file name, so that
/// `photo.v2.jpg` is an image of its own. WebDataset's rule, where the key ends at the first dot, holds
/// where that makes a sample: beside `a.jpg`, `a.mask.png` is no image but a field of `a`.
pub(crate) fn split_name(member: &str) -> (&str, Kind) {
    let name_start = member.rfind('/').map_or(0, |slash| slash + 1);
    let name = &member[name_start..];
    if name.starts_with('.') {
        // Such as `._a.jpg`, which macOS writes beside each file.
        return (member, Kind::Other);
    }
    let Some((stem, extension)) = name.rsplit_once('.') else { return (member, Kind::Other) };
    let kind = match promise(extension) {
        Promise::Image => Kind::Image,
        Promise::OtherImage => Kind::OtherImage,
        Promise::Nothing => match extension.to_ascii_lowercase().as_str() {
            "cls" => Kind::Label(LabelKind::Cls),
            "txt" => Kind::Label(LabelKind::Txt),
            "json" => Kind::Label(LabelKind::Json),
            _ => Kind::Other,
        },
    };
    (&member[..name_start + stem.len()], kind)
}

/// The key by WebDataset's own rule, where that is a shorter one.
fn first_key(key: &str) -> Option<&str> {
    let name_start = key.rfind('/').map_or(0, |slash| slash + 1);
    key[name_start..].find('.').map(|dot| &key[..name_start + dot])
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
            file("._c.jpg", b"7"),
        ];
        let expected = [
            sample("d/a", 1024, 3, Some(1)),
            sample("b", 5120, 2, Some(0)),
            sample("c", 6144, 0, None),
        ];
        assert_eq!(scan(&tar_of(&members), 2).unwrap(), expected);
    }

    #[test]
    fn a_name_with_dots_ends_at_the_last_one_unless_it_is_a_field_of_a_sample() {
        let members = [
            file("IMG.1.jpg", b"1"),
            file("IMG.1.cls", b"1"),
            file("IMG.2.jpg", b"2"),
            file("IMG.2.json", b"{\"label\": 0}"),
            file("a.b/c.d.jpg", b"3"),
            file("a.b/c.d.txt", b"1"),
            file("x.mask.png", b"4"),
            file("x.mask.cls", b"1"),
            file("x.jpg", b"5"),
        ];
        let expected = [
            sample("IMG.1", 512, 1, Some(1)),
            sample("IMG.2", 2560, 1, Some(0)),
            sample("a.b/c.d", 4608, 1, Some(1)),
            sample("x", 8704, 1, None),
        ];
        assert_eq!(scan(&tar_of(&members), 2).unwrap(), expected);
    }

    #[test]
    fn a_cls_counts_more_than_metadata_and_a_caption() {
        let members = [
            file("a.jpg", b"1"),
            file("a.txt", b"a photo of a cat"),
            file("a.json", b"{\"label\": \"cat\"}"),
            file("a.cls", b"1"),
            file("b.jpg", b"1"),
            file("b.json", b"{\"label\": 0}"),
            file("b.txt", b"9"),
            file("c.txt", b"1"),
            file("c.jpg", b"1"),
            file("README.txt", b"about these images"),
        ];
        let labels = scan(&tar_of(&members), 2).unwrap().into_iter().map(|row| row.3);
        assert_eq!(labels.collect::<Vec<_>>(), [Some(1), Some(0), Some(1)]);
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
        let cases: [(&[Tarred<'_>], &str); 11] = [
            (&[file("../a.jpg", b"1")], &leaves("../a.jpg")),
            (&[file("b/../a.jpg", b"1")], &leaves("b/../a.jpg")),
            (&[file("/a.jpg", b"1")], &leaves("/a.jpg")),
            (
                &[link],
                "shard s.tar holds the member \"a.jpg\", which is refused: it is not a regular file; \
                 get the shard from a source that you trust",
            ),
            (&[image, file("a.png", b"2")], &second("image")),
            (&[image, file("a.cls", b"1"), file("a.CLS", b"1")], &second("label")),
            (
                &[image, file("b.cls", b"1")],
                "shard s.tar holds no image for the sample \"b\"; make the shard again with it, or without \
                 the label",
            ),
            (
                &[image, file("a.cls", b"2")],
                "shard s.tar: \"a.cls\" holds the label 2, but the manifest names 2 classes (0 to 1); \
                 add the missing classes",
            ),
            (
                &[image, file("b.HEIC", b"1")],
                "shard s.tar holds the image \"b.HEIC\", whose format is not decoded here; make the shard \
                 again of JPEG, PNG, WebP, BMP, TIFF or GIF files",
            ),
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
