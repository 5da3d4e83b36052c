//! Where each sample of a shard or archive is: 16 bytes and a name each, in memory and as a file.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::{durable::publish, error::IngestError};

const MAGIC: &[u8; 8] = b"MOCOIDX1";
const BLOCK_BYTES: u64 = 512;
const ROW_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Magic, stamp, number of rows, bytes of names.
const HEAD_BYTES: usize = 8 + HASH_BYTES + 8 + 8;
const NO_LABEL: u32 = u32::MAX;

/// The samples of one shard, in the order in which they are numbered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    rows: Vec<Row>,
    names: String,
}

/// Tar members begin at multiples of 512 bytes, so that 32 bits reach 2 TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    block: u32,
    size: u32,
    label: u32,
    name_end: u32,
}

/// Where one sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) label: Option<u32>,
}

/// The owner of an index file: the checksum of a shard, or of an archive's length and time.
pub(crate) type Stamp = [u8; HASH_BYTES];

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.names.capacity()
    }

    /// Appends a sample; `None` if a number does not fit.
    pub(crate) fn push(&mut self, place: Place<'_>) -> Option<()> {
        debug_assert!(place.offset.is_multiple_of(BLOCK_BYTES), "offset {}", place.offset);
        let row = Row {
            block: u32::try_from(place.offset / BLOCK_BYTES).ok()?,
            size: u32::try_from(place.size).ok()?,
            label: place.label.unwrap_or(NO_LABEL),
            name_end: u32::try_from(self.names.len() + place.name.len()).ok()?,
        };
        self.names.push_str(place.name);
        self.rows.push(row);
        Some(())
    }

    /// The sample with this number within the shard.
    pub(crate) fn get(&self, sample_idx: usize) -> Option<Place<'_>> {
        let row = self.rows.get(sample_idx)?;
        let start = sample_idx.checked_sub(1).map_or(0, |before| self.rows[before].name_end);
        Some(Place {
            name: self.names.get(start as usize..row.name_end as usize)?,
            offset: u64::from(row.block) * BLOCK_BYTES,
            size: u64::from(row.size),
            label: (row.label != NO_LABEL).then_some(row.label),
        })
    }

    /// The sample with this number in a data set that has only this index.
    pub(crate) fn find(&self, sample_index: u64) -> Result<Place<'_>, IngestError> {
        let sample_idx = usize::try_from(sample_index).unwrap_or(usize::MAX);
        let n_samples = self.len() as u64;
        self.get(sample_idx).ok_or(IngestError::SampleIndex { sample_index, n_samples })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Place<'_>> {
        (0..self.len()).filter_map(|sample_idx| self.get(sample_idx))
    }

    /// Bytes of the file: head, rows, names and the checksum of all before it; little-endian.
    pub(crate) fn encode(&self, stamp: &Stamp) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(
            HEAD_BYTES + self.rows.len() * ROW_BYTES + self.names.len() + HASH_BYTES,
        );
        bytes.extend(MAGIC);
        bytes.extend(stamp);
        bytes.extend((self.rows.len() as u64).to_le_bytes());
        bytes.extend((self.names.len() as u64).to_le_bytes());
        for row in &self.rows {
            for number in [row.block, row.size, row.label, row.name_end] {
                bytes.extend(number.to_le_bytes());
            }
        }
        bytes.extend(self.names.as_bytes());
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    /// Reads what [`Index::encode`] wrote; the error says what is wrong.
    pub(crate) fn decode(bytes: &[u8], stamp: &Stamp) -> Result<Self, &'static str> {
        let cut = "it is shorter than an index must be";
        let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or(cut)?;
        if blake3::hash(body).as_bytes() != hash {
            return Err("its checksum is wrong");
        }
        let (magic, rest) = body.split_first_chunk::<8>().ok_or(cut)?;
        if magic != MAGIC {
            return Err("it is no index of this version");
        }
        let (got, rest) = rest.split_first_chunk::<HASH_BYTES>().ok_or(cut)?;
        if got != stamp {
            return Err("it belongs to other bytes of the shard");
        }
        let (n_rows, rest) = rest.split_first_chunk::<8>().ok_or(cut)?;
        let (n_name_bytes, rest) = rest.split_first_chunk::<8>().ok_or(cut)?;
        let n_row_bytes = usize::try_from(u64::from_le_bytes(*n_rows))
            .ok()
            .and_then(|n_rows| n_rows.checked_mul(ROW_BYTES));
        let (rows, names) = n_row_bytes.and_then(|n| rest.split_at_checked(n)).ok_or(cut)?;
        if names.len() as u64 != u64::from_le_bytes(*n_name_bytes) {
            return Err(cut);
        }
        let number = |row: &[u8], at: usize| {
            row[4 * at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let rows = rows.chunks_exact(ROW_BYTES).map(|row| Row {
            block: number(row, 0),
            size: number(row, 1),
            label: number(row, 2),
            name_end: number(row, 3),
        });
        let names = std::str::from_utf8(names).ok().ok_or("its names are not UTF-8")?.to_owned();
        let index = Self { rows: rows.collect(), names };
        if index.iter().count() != index.len() {
            return Err("its names are out of order");
        }
        Ok(index)
    }

    /// Writes the index; the file appears at once or not at all.
    pub(crate) fn save(&self, path: &Path, stamp: &Stamp) -> Result<(), IngestError> {
        let temporary = path.with_extension("idx.partial");
        let mut file = File::create(&temporary).map_err(IngestError::io("create", &temporary))?;
        file.write_all(&self.encode(stamp)).map_err(IngestError::io("write", &temporary))?;
        publish(&file, &temporary, path)
    }

    /// Reads an index file; `None` if there is none.
    pub(crate) fn load(path: &Path, stamp: &Stamp) -> Result<Option<Self>, IngestError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IngestError::io("read", path)(source)),
        };
        let unfit =
            |problem| IngestError::IndexUnfit { index: path.display().to_string(), problem };
        Self::decode(&bytes, stamp).map(Some).map_err(unfit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = [7; 32];

    fn places() -> [Place<'static>; 3] {
        [
            Place { name: "d/a", offset: 1024, size: 3, label: Some(1) },
            Place { name: "", offset: 512 * u64::from(u32::MAX), size: 0, label: None },
            Place { name: "größe", offset: 0, size: 64 << 20, label: Some(0) },
        ]
    }

    fn index() -> Index {
        let mut index = Index::default();
        places().into_iter().for_each(|place| index.push(place).unwrap());
        index
    }

    #[test]
    fn samples_come_back_from_memory_and_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.idx");
        assert_eq!(Index::load(&path, &STAMP).unwrap(), None);
        index().save(&path, &STAMP).unwrap();
        let loaded = Index::load(&path, &STAMP).unwrap().unwrap();
        for index in [index(), loaded] {
            assert_eq!(index.iter().collect::<Vec<_>>(), places());
            assert_eq!(index.get(3), None);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // Head 56, rows 48, names 3 + 0 + 7, checksum 32.
        assert_eq!(fs::metadata(&path).unwrap().len(), 146);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let whole = index().encode(&STAMP);
        for length in 0..whole.len() {
            assert!(Index::decode(&whole[..length], &STAMP).is_err(), "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Index::decode(&bytes, &STAMP), Err("its checksum is wrong"));
        }
    }

    #[test]
    fn an_index_of_other_bytes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.idx");
        index().save(&path, &STAMP).unwrap();
        let message = Index::load(&path, &[8; 32]).unwrap_err().to_string();
        let expected = format!(
            "index {} is unfit: it belongs to other bytes of the shard; delete it, or make it again with `shard make`",
            path.display()
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut index = Index::default();
        let far = 512 * (u64::from(u32::MAX) + 1);
        for (offset, size) in [(far, 1), (0, 1 << 32)] {
            assert_eq!(index.push(Place { name: "a", offset, size, label: None }), None);
        }
        assert_eq!(index.len(), 0);
    }
}
