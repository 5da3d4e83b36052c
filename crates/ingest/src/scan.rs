//! Walks over the headers of one tar shard and builds the index of its samples.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::error::{IngestError, Remedy};

/// Largest member that is read; far above any photo, far below what would exhaust memory.
const MEMBER_BYTES_MAX: u64 = 64 << 20;
const BLOCK_BYTES: u64 = 512;
const LABEL_BYTES_MAX: u64 = 32;

/// Where one sample lies within its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexedSample {
    pub(crate) name: Box<str>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) label: Option<u32>,
}

/// A shard that is being walked over.
pub(crate) struct Scan<'a> {
    pub(crate) shard: &'a Path,
    pub(crate) remedy: Remedy,
    /// Number of classes; without classes the label members are not looked at.
    pub(crate) n_classes: usize,
}

#[derive(Default)]
struct Found {
    samples: Vec<IndexedSample>,
    images: BTreeMap<String, usize>,
    labels: BTreeMap<String, u32>,
}

enum Kind {
    Image,
    Label,
    Other,
}

impl Scan<'_> {
    /// The samples in the order of their images.
    pub(crate) fn samples(&self) -> Result<Vec<IndexedSample>, IngestError> {
        let file = File::open(self.shard).map_err(IngestError::io("open", self.shard))?;
        let shard_bytes = file.metadata().map_err(IngestError::io("inspect", self.shard))?.len();
        let mut archive = tar::Archive::new(file);
        let mut found = Found::default();
        let mut next_header = 0;
        for entry in archive.entries_with_seek().map_err(|e| self.bad_header(0, e))? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(source) => {
                    self.check_extent(next_header, BLOCK_BYTES, shard_bytes)?;
                    return Err(self.bad_header(next_header, source));
                }
            };
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let member = self.member_name(&entry)?;
            self.check_extent(offset, size, shard_bytes)?;
            next_header = offset.saturating_add(size.next_multiple_of(BLOCK_BYTES));
            if let Some(member) = member {
                self.add(&mut found, &member, (offset, size), &mut entry)?;
            }
        }
        // A sound archive ends with blocks of zeros, which a cut between two members would miss.
        self.check_extent(next_header, BLOCK_BYTES, shard_bytes)?;
        self.with_labels(found)
    }

    fn add(
        &self,
        found: &mut Found,
        member: &str,
        (offset, size): (u64, u64),
        content: &mut impl Read,
    ) -> Result<(), IngestError> {
        let (key, kind) = split_name(member);
        let duplicate =
            |what| IngestError::DuplicateKey { shard: self.path(), key: key.to_owned(), what };
        match kind {
            Kind::Image => {
                let got = size;
                if got > MEMBER_BYTES_MAX {
                    let (shard, member, limit) = (self.path(), member.to_owned(), MEMBER_BYTES_MAX);
                    return Err(IngestError::MemberTooLarge { shard, member, got, limit });
                }
                if found.images.insert(key.to_owned(), found.samples.len()).is_some() {
                    return Err(duplicate("image"));
                }
                found.samples.push(IndexedSample { name: key.into(), offset, size, label: None });
            }
            Kind::Label if self.n_classes > 0 => {
                let label = self.label(member, content)?;
                if found.labels.insert(key.to_owned(), label).is_some() {
                    return Err(duplicate("label"));
                }
            }
            Kind::Label | Kind::Other => {}
        }
        Ok(())
    }

    fn with_labels(&self, found: Found) -> Result<Vec<IndexedSample>, IngestError> {
        let Found { mut samples, images, labels } = found;
        for (key, label) in labels {
            match images.get(&key).and_then(|sample_idx| samples.get_mut(*sample_idx)) {
                Some(sample) => sample.label = Some(label),
                None => return Err(IngestError::SampleWithoutImage { shard: self.path(), key }),
            }
        }
        Ok(samples)
    }

    /// The name of a regular file; `None` for a member that holds no data.
    fn member_name<R: Read>(
        &self,
        entry: &tar::Entry<'_, R>,
    ) -> Result<Option<String>, IngestError> {
        let bytes = entry.path_bytes();
        let member = String::from_utf8_lossy(&bytes);
        let refused = |reason| {
            let (shard, member) = (self.path(), member.clone().into_owned());
            Err(IngestError::MemberRefused { shard, member, reason })
        };
        let kind = entry.header().entry_type();
        if member.contains(char::REPLACEMENT_CHARACTER) {
            return refused("its name is not UTF-8");
        }
        if member.starts_with('/') || member.split('/').any(|part| part == "..") {
            return refused("its path leaves the shard");
        }
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(None);
        }
        if !kind.is_file() {
            return refused("it is not a regular file");
        }
        Ok(Some(member.strip_prefix("./").unwrap_or(&member).to_owned()))
    }

    fn label(&self, member: &str, content: &mut impl Read) -> Result<u32, IngestError> {
        let mut bytes = Vec::new();
        content
            .take(LABEL_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(IngestError::io("read", self.shard))?;
        let text = String::from_utf8_lossy(&bytes);
        let (shard, member) = (self.path(), member.to_owned());
        match text.trim().parse::<u32>() {
            Ok(got) if got as usize >= self.n_classes => {
                Err(IngestError::LabelRange { shard, member, got, n_classes: self.n_classes })
            }
            Ok(label) => Ok(label),
            Err(_) => Err(IngestError::LabelSyntax { shard, member, got: text.into_owned() }),
        }
    }

    /// Whether `needed` bytes at `offset` lie within the shard.
    fn check_extent(&self, offset: u64, needed: u64, shard_bytes: u64) -> Result<(), IngestError> {
        let got = shard_bytes.saturating_sub(offset);
        if got < needed {
            let (shard, remedy) = (self.path(), self.remedy);
            return Err(IngestError::ShardTruncated { shard, offset, needed, got, remedy });
        }
        Ok(())
    }

    fn bad_header(&self, offset: u64, source: io::Error) -> IngestError {
        IngestError::ShardHeader { shard: self.path(), offset, source, remedy: self.remedy }
    }

    fn path(&self) -> PathBuf {
        self.shard.to_owned()
    }
}

/// WebDataset's rule: the key ends at the first dot of the file name.
fn split_name(member: &str) -> (&str, Kind) {
    let name_start = member.rfind('/').map_or(0, |slash| slash + 1);
    let Some(dot) = member[name_start..].find('.') else { return (member, Kind::Other) };
    let (key, extension) = (&member[..name_start + dot], &member[name_start + dot + 1..]);
    let is = |known: &[&str]| known.iter().any(|k| extension.eq_ignore_ascii_case(k));
    let kind = if is(&["jpg", "jpeg", "png"]) {
        Kind::Image
    } else if is(&["cls", "txt"]) {
        Kind::Label
    } else {
        Kind::Other
    };
    (key, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Member<'a> = (&'a str, &'a [u8], tar::EntryType);

    /// A tar file of members with any name, content and type, which the crate's own writer refuses.
    fn tar_of(members: &[Member<'_>]) -> Vec<u8> {
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

    fn scan(bytes: &[u8], n_classes: usize) -> Result<Vec<IndexedSample>, String> {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("s.tar");
        std::fs::write(&shard, bytes).unwrap();
        let scan = Scan { shard: &shard, remedy: Remedy::Download, n_classes };
        let place = format!("{}/", folder.path().display());
        scan.samples().map_err(|error| error.to_string().replace(&place, ""))
    }

    fn file<'a>(name: &'a str, content: &'a [u8]) -> Member<'a> {
        (name, content, tar::EntryType::Regular)
    }

    fn sample(name: &str, offset: u64, size: u64, label: Option<u32>) -> IndexedSample {
        IndexedSample { name: name.into(), offset, size, label }
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
        let expected =
            "shard s.tar: \"a.txt\" must hold a class number in decimal, got \"a photo of a cat\"";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn harmful_and_contradictory_members_are_refused() {
        let image = file("a.jpg", b"1");
        let link = ("a.jpg", &[][..], tar::EntryType::Symlink);
        let cases: [(&[Member<'_>], &str); 9] = [
            (
                &[file("../a.jpg", b"1")],
                "holds the member \"../a.jpg\", which is refused: its path leaves",
            ),
            (
                &[file("b/../a.jpg", b"1")],
                "which is refused: its path leaves the shard; get the shard from",
            ),
            (
                &[file("/a.jpg", b"1")],
                "holds the member \"/a.jpg\", which is refused: its path leaves",
            ),
            (&[link], "which is refused: it is not a regular file"),
            (
                &[image, file("a.png", b"2")],
                "holds a second image for the sample \"a\"; make the shard",
            ),
            (
                &[image, file("a.cls", b"1"), file("a.txt", b"1")],
                "a second label for the sample \"a\"",
            ),
            (
                &[image, file("b.cls", b"1")],
                "holds no image for the sample \"b\"; images end in .jpg",
            ),
            (
                &[image, file("a.cls", b"2")],
                "\"a.cls\" holds the label 2, but the manifest names 2 classes (0 to 1)",
            ),
            (&[image, file("a.cls", b"-1")], "must hold a class number in decimal, got \"-1\""),
        ];
        for (members, expected) in cases {
            let message = scan(&tar_of(members), 2).unwrap_err();
            assert!(message.contains(expected), "{message}");
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
        let message = scan.samples().unwrap_err().to_string();
        assert!(
            message.contains("\"a.jpg\" of 67108865 bytes, the limit is 67108864"),
            "{message}"
        );
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
