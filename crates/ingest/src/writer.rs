//! Writes tar shards in the layout of WebDataset, with the same bytes for the same samples.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::{
    durable::publish,
    error::IngestError,
    index::{Index, Place},
    manifest::ShardEntry,
    sidecar::check_metadata,
    walk::MEMBER_BYTES_MAX,
};

/// Short enough that a name with its extension fits into one header.
const KEY_LENGTH_MAX: usize = 80;
const HEADER_BYTES: u64 = 512;

/// The format of an encoded image, which decides its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// `.jpg`
    Jpeg,
    /// `.png`
    Png,
    /// `.webp`
    WebP,
    /// `.bmp`
    Bmp,
    /// `.tif`
    Tiff,
    /// `.gif`
    Gif,
}

impl ImageFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Bmp => "bmp",
            Self::Tiff => "tif",
            Self::Gif => "gif",
        }
    }
}

/// Whether a shard gets a file that says where its samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexFiles {
    /// `SHARD.idx` beside each shard: what reads single samples from a store needs it, and what opens a
    /// shard on disk need not walk over it.
    Beside,
    /// None.
    Absent,
}

/// Writes samples into shards `PREFIX-000000.tar`, `PREFIX-000001.tar`, …
///
/// A shard bears another name, ending in `.partial`, until it is complete and on the disk; what an
/// interrupted writer leaves behind is overwritten by the next one.
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    prefix: String,
    samples_per_shard: u64,
    index_files: IndexFiles,
    first_shard: u64,
    open: Option<OpenShard>,
    finished: Vec<ShardEntry>,
}

struct OpenShard {
    tar: tar::Builder<HashingFile>,
    temporary: PathBuf,
    index: Index,
    keys: BTreeSet<String>,
    last_key: String,
}

impl std::fmt::Debug for OpenShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenShard").field("temporary", &self.temporary).finish_non_exhaustive()
    }
}

impl ShardWriter {
    /// A writer into `folder`, which is created if need be.
    ///
    /// # Errors
    /// If the folder cannot be created or a shard would hold no samples.
    pub fn new(folder: &Path, prefix: &str, samples_per_shard: u64) -> Result<Self, IngestError> {
        if samples_per_shard == 0 {
            return Err(IngestError::ShardCapacity);
        }
        fs::create_dir_all(folder).map_err(IngestError::io("create", folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            samples_per_shard,
            index_files: IndexFiles::Absent,
            first_shard: 0,
            open: None,
            finished: Vec::new(),
        })
    }

    /// The same writer with or without index files.
    #[must_use]
    pub fn index_files(self, index_files: IndexFiles) -> Self {
        Self { index_files, ..self }
    }

    /// The same writer, whose first shard has this number: for shards that are written again.
    #[must_use]
    pub fn first_shard(self, first_shard: u64) -> Self {
        Self { first_shard, ..self }
    }

    /// Appends one sample. What a reader would refuse is not written.
    ///
    /// # Errors
    /// If the key has characters with a meaning in paths or was in the shard before, the image is empty or
    /// too large, or the disk fails.
    pub fn push(
        &mut self,
        key: &str,
        format: ImageFormat,
        image: &[u8],
        label: Option<u32>,
    ) -> Result<(), IngestError> {
        check_key(key)?;
        let (got, limit) = (image.len() as u64, MEMBER_BYTES_MAX);
        if got == 0 || got > limit {
            return Err(IngestError::ImageSize { path: PathBuf::from(key), got, limit });
        }
        if self.open.as_ref().is_some_and(|open| open.index.len() as u64 == self.samples_per_shard)
        {
            self.close_shard()?;
        }
        let mut shard = match self.open.take() {
            Some(shard) => shard,
            None => OpenShard::create(self.folder.join(format!("{}.partial", self.next_file())))?,
        };
        let extension = format.extension();
        if !shard.keys.insert(key.to_owned()) {
            let (shard, key) = (shard.temporary, key.to_owned());
            return Err(IngestError::DuplicateKey { shard, key, what: "image" });
        }
        let offset = shard.tar.get_ref().bytes + HEADER_BYTES;
        shard.append(&format!("{key}.{extension}"), image)?;
        if let Some(label) = label {
            shard.append(&format!("{key}.cls"), label.to_string().as_bytes())?;
        }
        let place = Place { name: key, offset, size: image.len() as u64, label };
        let full = || IngestError::IndexTooLarge { path: shard.temporary.clone() };
        shard.index.push(place).ok_or_else(full)?;
        key.clone_into(&mut shard.last_key);
        self.open = Some(shard);
        Ok(())
    }

    /// Appends JSON, such as hashtags, to the sample that was pushed last. It must be what
    /// [`check_metadata`] accepts.
    ///
    /// # Errors
    /// If there is no such sample, a reader would refuse the metadata, or the disk fails.
    pub fn push_metadata(&mut self, json: &[u8]) -> Result<(), IngestError> {
        let Some(shard) = &mut self.open else {
            return Err(IngestError::KeyInvalid { key: String::new() });
        };
        let member = format!("{}.json", shard.last_key);
        check_metadata(json).map_err(|problem| IngestError::MetadataSyntax {
            shard: shard.temporary.clone(),
            member: member.clone(),
            problem,
        })?;
        shard.append(&member, json)
    }

    /// Completes the last shard and returns what the manifest must say of all of them.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(mut self) -> Result<Vec<ShardEntry>, IngestError> {
        self.close_shard()?;
        Ok(self.finished)
    }

    fn next_file(&self) -> String {
        shard_file(&self.prefix, self.first_shard + self.finished.len() as u64)
    }

    fn close_shard(&mut self) -> Result<(), IngestError> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        let file = self.next_file();
        let (handle, bytes, blake3) = shard
            .tar
            .into_inner()
            .and_then(HashingFile::finish)
            .map_err(IngestError::io("write", &shard.temporary))?;
        publish(&handle, &shard.temporary, &self.folder.join(&file))?;
        let entry = ShardEntry { file, samples: shard.index.len() as u64, bytes, blake3 };
        if self.index_files == IndexFiles::Beside {
            let path = self.folder.join(format!("{}.idx", entry.file));
            shard.index.save(&path, &entry.stamp())?;
        }
        self.finished.push(entry);
        Ok(())
    }
}

impl OpenShard {
    fn create(temporary: PathBuf) -> Result<Self, IngestError> {
        let file = File::create(&temporary).map_err(IngestError::io("create", &temporary))?;
        let file = HashingFile {
            file: BufWriter::with_capacity(1 << 18, file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        let tar = tar::Builder::new(file);
        Ok(Self {
            tar,
            temporary,
            index: Index::default(),
            keys: BTreeSet::new(),
            last_key: String::new(),
        })
    }

    fn append(&mut self, name: &str, content: &[u8]) -> Result<(), IngestError> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        // Nothing of the machine or the moment goes in, so that the bytes can be compared.
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.tar
            .append_data(&mut header, name, content)
            .map_err(IngestError::io("write", &self.temporary))
    }
}

fn check_key(key: &str) -> Result<(), IngestError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(plain) {
        Ok(())
    } else {
        Err(IngestError::KeyInvalid { key: key.to_owned() })
    }
}

/// A file that counts and hashes what goes through it.
struct HashingFile {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashingFile {
    fn finish(self) -> io::Result<(File, u64, String)> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.bytes, self.hasher.finalize().to_hex().to_string()))
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The name of a shard by the prefix and the number that [`ShardWriter`] gives it.
#[must_use]
pub fn shard_file(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:06}.tar")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Remedy, scan::Scan};

    fn write(folder: &Path, n: u32) -> Vec<ShardEntry> {
        let mut writer = ShardWriter::new(folder, "train", 4).unwrap();
        for i in 0..n {
            let image = i.to_le_bytes().repeat(100);
            writer.push(&format!("{i:04}"), ImageFormat::Jpeg, &image, Some(i % 3)).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn entries_describe_the_files_and_the_bytes_repeat() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let entries = write(first.path(), 10);
        assert_eq!(entries, write(second.path(), 10));
        let names: Vec<(&str, u64)> =
            entries.iter().map(|entry| (entry.file.as_str(), entry.samples)).collect();
        assert_eq!(
            names,
            [("train-000000.tar", 4), ("train-000001.tar", 4), ("train-000002.tar", 2)]
        );
        for entry in &entries {
            let bytes = fs::read(first.path().join(&entry.file)).unwrap();
            assert_eq!(bytes.len() as u64, entry.bytes);
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), entry.blake3);
        }
        assert_eq!(fs::read_dir(first.path()).unwrap().count(), 3, "a temporary file was left");
    }

    #[test]
    fn headers_hold_nothing_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let entry = write(folder.path(), 1).remove(0);
        let bytes = fs::read(folder.path().join(entry.file)).unwrap();
        // Offsets of the POSIX ustar header.
        assert_eq!(&bytes[..8], b"0000.jpg");
        assert_eq!(&bytes[100..108], b"0000644\0");
        assert_eq!(&bytes[108..124], b"0000000\x000000000\0");
        assert_eq!(&bytes[136..148], b"00000000000\0");
        // 400 bytes of image fill one block; the label's header follows.
        assert_eq!(&bytes[1024..1032], b"0000.cls");
        assert_eq!(&bytes[1536..1538], b"0\0");
        assert_eq!(bytes.len(), 1536 + 512 + 1024);
    }

    #[test]
    fn index_files_say_what_a_walk_over_the_shard_finds() {
        let folder = tempfile::tempdir().unwrap();
        let writer = ShardWriter::new(folder.path(), "train", 3).unwrap();
        let mut writer = writer.index_files(IndexFiles::Beside);
        assert!(writer.push_metadata(b"{}").is_err());
        for i in 0..8_u32 {
            let label = (i != 4).then_some(i % 3);
            writer
                .push(&format!("k{i}"), ImageFormat::Png, &vec![1; 1 + i as usize * 300], label)
                .unwrap();
            if i % 2 == 0 {
                writer.push_metadata(b"{\"hashtags\": [\"cat\"]}").unwrap();
            }
        }
        let entries = writer.finish().unwrap();
        assert_eq!(entries.iter().map(|entry| entry.samples).collect::<Vec<_>>(), [3, 3, 2]);
        for entry in &entries {
            let shard = folder.path().join(&entry.file);
            let index_file = folder.path().join(format!("{}.idx", entry.file));
            let saved = Index::load(&index_file, &entry.stamp()).unwrap().unwrap();
            let scan = Scan { shard: &shard, remedy: Remedy::Download, n_classes: 3 };
            assert_eq!(saved, scan.index(&File::open(&shard).unwrap()).unwrap());
        }
    }

    #[test]
    fn an_exact_multiple_leaves_no_empty_shard() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write(folder.path(), 8).len(), 2);
        assert_eq!(write(folder.path(), 0).len(), 0);
    }

    #[test]
    fn what_a_reader_would_refuse_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(folder.path(), "train", 9).unwrap();
        let place = format!("{}/", folder.path().display());
        let message = |error: IngestError| error.to_string().replace(&place, "");
        let empty = writer.push("a", ImageFormat::Png, b"", None).unwrap_err();
        assert_eq!(
            message(empty),
            "a is no image that can be read: it has 0 bytes, expected 1 to 67108864; remove it"
        );
        for (format, key) in [(ImageFormat::Gif, "a"), (ImageFormat::WebP, "b")] {
            writer.push(key, format, b"x", Some(1)).unwrap();
        }
        let metadata = writer.push_metadata(b"{\"caption\": NaN}").unwrap_err();
        assert_eq!(
            message(metadata),
            "shard train-000000.tar.partial: the metadata \"b.json\" cannot be read: expected value at line 1 \
             column 13; make the shard again"
        );
        writer.push_metadata(b"{\"label\": \"cat\"}").unwrap();
        writer.push("c", ImageFormat::Tiff, b"x", None).unwrap();
        let entries = writer.finish().unwrap();
        let scan = Scan {
            shard: &folder.path().join("train-000000.tar"),
            remedy: Remedy::Remake,
            n_classes: 2,
        };
        let index = scan.index(&File::open(scan.shard).unwrap()).unwrap();
        let rows: Vec<_> = index.iter().map(|place| (place.name, place.label)).collect();
        assert_eq!(rows, [("a", Some(1)), ("b", Some(1)), ("c", None)]);
        assert_eq!(entries[0].samples, 3);

        let mut writer = ShardWriter::new(folder.path(), "twice", 9).unwrap();
        writer.push("a", ImageFormat::Png, b"x", None).unwrap();
        let twice = writer.push("a", ImageFormat::Jpeg, b"x", None).unwrap_err();
        assert_eq!(
            message(twice),
            "shard twice-000000.tar.partial holds a second image for the sample \"a\"; make the shard again \
             with distinct keys"
        );
    }

    #[test]
    fn bad_keys_and_empty_shards_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(folder.path(), "train", 4).unwrap();
        for key in ["", "a.b", "../a", "a/b", "a b", &"k".repeat(81)] {
            let message = writer.push(key, ImageFormat::Png, b"x", None).unwrap_err().to_string();
            let expected = format!(
                "{key:?} cannot be a sample's key: it must have 1 to 80 characters of a-z, A-Z, 0-9, _ and -"
            );
            assert_eq!(message, expected);
        }
        let error = ShardWriter::new(folder.path(), "train", 0).unwrap_err();
        assert_eq!(error.to_string(), "a shard must hold at least 1 sample, got 0");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = ShardWriter::new(&file, "train", 4).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot create {}", file.display()));
    }
}
