//! Reads the headers of a tar file, or of one that is inside another.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::error::{IngestError, Remedy};

/// Largest member that is read; far above any photo, far below what would exhaust memory.
pub(crate) const MEMBER_BYTES_MAX: u64 = 64 << 20;
const BLOCK_BYTES: u64 = 512;

/// A part of a file, read without moving the file's own position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    file: &'a File,
    start: u64,
    end: u64,
    at: u64,
}

/// A regular file within the tar; offsets count from the start of the outermost file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// A tar file that is being walked over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk<'a> {
    pub(crate) shard: &'a Path,
    pub(crate) remedy: Remedy,
}

/// The function called with each member and its content.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Member<'_>, &mut dyn Read) -> Result<(), IngestError>;

impl<'a> Section<'a> {
    pub(crate) fn whole(file: &'a File, shard: &Path) -> Result<Self, IngestError> {
        let end = file.metadata().map_err(IngestError::io("inspect", shard))?.len();
        Ok(Self { file, start: 0, end, at: 0 })
    }

    pub(crate) fn part(file: &'a File, start: u64, n_bytes: u64) -> Self {
        Self { file, start, end: start.saturating_add(n_bytes), at: start }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = into.len().min(left);
        let n = self.file.read_at(&mut into[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(offset) => self.start.checked_add(offset),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = at.filter(|at| *at >= self.start).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at - self.start)
    }
}

impl Walk<'_> {
    /// Visits each regular file in order. Nothing but headers is read unless `visit` does.
    pub(crate) fn members(
        &self,
        section: Section<'_>,
        visit: Visit<'_>,
    ) -> Result<(), IngestError> {
        let (start, end) = (section.start, section.end);
        let mut archive = tar::Archive::new(section);
        let mut next_header = start;
        for entry in archive.entries_with_seek().map_err(|e| self.bad_header(start, e))? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(source) => {
                    self.check_extent(next_header, BLOCK_BYTES, end)?;
                    return Err(self.bad_header(next_header, source));
                }
            };
            let (offset, size) = (start + entry.raw_file_position(), entry.size());
            let name = self.member_name(&entry)?;
            self.check_extent(offset, size, end)?;
            next_header = offset.saturating_add(size.next_multiple_of(BLOCK_BYTES));
            if let Some(name) = name {
                visit(Member { name: &name, offset, size }, &mut entry)?;
            }
        }
        // A sound archive ends with blocks of zeros, which a cut between two members would miss.
        self.check_extent(next_header, BLOCK_BYTES, end)
    }

    /// The name of a regular file; `None` for a member that holds no data.
    fn member_name<R: Read>(
        &self,
        entry: &tar::Entry<'_, R>,
    ) -> Result<Option<String>, IngestError> {
        let bytes = entry.path_bytes();
        let member = String::from_utf8_lossy(&bytes);
        let kind = entry.header().entry_type();
        if member.contains(char::REPLACEMENT_CHARACTER) {
            return Err(self.refused(&member, "its name is not UTF-8"));
        }
        if member.starts_with('/') || member.split('/').any(|part| part == "..") {
            return Err(self.refused(&member, "its path leaves the shard"));
        }
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(None);
        }
        if !kind.is_file() {
            return Err(self.refused(&member, "it is not a regular file"));
        }
        Ok(Some(member.strip_prefix("./").unwrap_or(&member).to_owned()))
    }

    pub(crate) fn refused(&self, member: &str, reason: &'static str) -> IngestError {
        IngestError::MemberRefused { shard: self.path(), member: member.to_owned(), reason }
    }

    /// Refuses a member that no photo can need.
    pub(crate) fn check_size(&self, member: Member<'_>) -> Result<(), IngestError> {
        if member.size <= MEMBER_BYTES_MAX {
            return Ok(());
        }
        Err(IngestError::MemberTooLarge {
            shard: self.path(),
            member: member.name.to_owned(),
            got: member.size,
            limit: MEMBER_BYTES_MAX,
        })
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

    pub(crate) fn path(&self) -> PathBuf {
        self.shard.to_owned()
    }
}

/// Extensions of formats that are decoded; which of them a file has is decided by its bytes.
const IMAGES: [&str; 10] =
    ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"];
/// Extensions that promise an image of a format that is not decoded here.
const OTHER_IMAGES: [&str; 27] = [
    "arw", "avif", "cr2", "cr3", "dng", "exr", "hdr", "heic", "heif", "ico", "j2k", "jp2", "jxl",
    "jxr", "nef", "orf", "pbm", "pgm", "pnm", "ppm", "psd", "raf", "rw2", "svg", "svgz", "tga",
    "xcf",
];

/// The type of content by the file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Image,
    OtherImage,
    Nothing,
}

/// The extension of a file's name; none is empty.
pub(crate) fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// The type of content by the file's extension, in any case.
pub(crate) fn promise(extension: &str) -> Promise {
    let is = |known: &[&str]| known.iter().any(|k| extension.eq_ignore_ascii_case(k));
    if is(&IMAGES) {
        Promise::Image
    } else if is(&OTHER_IMAGES) {
        Promise::OtherImage
    } else {
        Promise::Nothing
    }
}
