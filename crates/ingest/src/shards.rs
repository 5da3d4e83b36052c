//! Reads single samples out of the tar shards of a data set.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    cache::ShardCache,
    digest::DataDigest,
    error::{IngestError, Remedy},
    index::{Index, Place},
    manifest::{Manifest, ShardEntry},
    scan::Scan,
    shelf::Shelf,
    source::{EncodedSample, Payload, SampleKey, Source},
    split::Split,
    store::{ByteRange, Part, Store, open_shard, read_exact},
    survey::Survey,
};

/// Indexes of shards that are held at a time where shards are opened when they are needed.
const INDEX_BYTES_MAX: usize = 64 << 20;
/// Far above the index of any shard that a cache can hold.
const INDEX_FILE_BYTES_MAX: u64 = 256 << 20;

/// How closely shards are compared with the manifest when a data set is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Length, number of samples and the checksum of all bytes.
    Checksums,
    /// Length and number of samples; reads the tar headers and labels only.
    Sizes,
}

/// Where the shards of a data set are.
#[derive(Debug, Clone)]
pub enum ShardPlace {
    /// In a folder.
    Folder(PathBuf),
    /// On a store; a whole shard is fetched when a sample of it is needed.
    Cached(Arc<ShardCache>),
    /// On a store, each with its index `SHARD.idx`; samples are fetched one by one. Nothing checks their
    /// bytes in addition to the store itself.
    Ranges(Arc<dyn Store>),
}

/// The shards of one split, indexed by sample.
///
/// Images stay where they are. Memory grows with the number of shards, and for shards that were opened
/// by some 30 bytes for each of their samples.
#[derive(Debug)]
pub struct ShardSet {
    place: ShardPlace,
    shards: Vec<Shard>,
    n_samples: u64,
    n_classes: u32,
    remedy: Remedy,
    indexes: Shelf<Index>,
}

#[derive(Debug)]
struct Shard {
    entry: ShardEntry,
    /// Index of the first sample within the split.
    first: u64,
}

/// Where a sample is.
#[derive(Debug, Clone, Copy)]
struct SampleLocation {
    shard_idx: usize,
    /// Number of the sample within the shard.
    within: usize,
}

impl ShardSet {
    /// Opens the shards that the manifest lists for a split, which are in the folder `root`, and compares
    /// each with the manifest.
    ///
    /// # Errors
    /// If a shard is missing, truncated or not what the manifest says, or its members are unfit.
    pub fn open(
        root: &Path,
        manifest: &Manifest,
        split: Split,
        verify: Verify,
    ) -> Result<Self, IngestError> {
        let mut set = Self::lazy(ShardPlace::Folder(root.to_owned()), manifest, split)?;
        set.indexes = Shelf::new(usize::MAX);
        for (shard_idx, shard) in set.shards.iter().enumerate() {
            let path = root.join(&shard.entry.file);
            let scan = Scan { shard: &path, remedy: set.remedy, n_classes: manifest.classes.len() };
            let index = compared(&scan, &shard.entry, verify)?;
            set.indexes.put(shard_idx, index.bytes(), index);
        }
        Ok(set)
    }

    /// The shards that the manifest lists for a split. None is looked at before a sample of it is needed,
    /// so this takes the same moment for any number of samples.
    ///
    /// # Errors
    /// If the manifest lists no samples.
    pub fn lazy(place: ShardPlace, manifest: &Manifest, split: Split) -> Result<Self, IngestError> {
        let mut n_samples = 0_u64;
        let mut shards = Vec::with_capacity(manifest.shards(split).len());
        for entry in manifest.shards(split) {
            shards.push(Shard { entry: entry.clone(), first: n_samples });
            n_samples = n_samples.saturating_add(entry.samples);
        }
        if n_samples == 0 {
            return Err(IngestError::SplitEmpty { name: manifest.name.clone(), split });
        }
        let remedy = match place {
            ShardPlace::Folder(_) => manifest.remedy(),
            ShardPlace::Cached(_) | ShardPlace::Ranges(_) => Remedy::Upload,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a manifest of 2³² names fits no memory"
        )]
        let n_classes = manifest.classes.len() as u32;
        let indexes = Shelf::new(INDEX_BYTES_MAX);
        Ok(Self { place, shards, n_samples, n_classes, remedy, indexes })
    }

    /// The manifest's entries for the shards, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &ShardEntry> {
        self.shards.iter().map(|shard| &shard.entry)
    }

    /// Compares all bytes of a shard with the manifest, indexes it and adds what it holds to `survey`. A
    /// shard of a store is fetched into the cache.
    ///
    /// # Errors
    /// If the shard is not what the manifest says, its members are unfit, or there is no cache to fetch to.
    pub fn survey(&self, shard_idx: usize, survey: &mut Survey) -> Result<(), IngestError> {
        let n_shards = self.shards.len();
        let shard = self.shards.get(shard_idx);
        let entry = &shard.ok_or(IngestError::ShardIndex { shard_idx, n_shards })?.entry;
        let path = self.path(entry);
        let scan = Scan { shard: &path, remedy: self.remedy, n_classes: self.n_classes as usize };
        match &self.place {
            ShardPlace::Folder(_) => {
                let index = compared(&scan, entry, Verify::Checksums)?;
                survey.add(&scan, &open_shard(&path, self.remedy)?, &index)
            }
            ShardPlace::Cached(cache) => {
                let file = cache.file(entry)?;
                let index = scan.index(&file)?;
                check_samples(&index, entry, || (path.clone(), self.remedy))?;
                survey.add(&scan, &file, &index)
            }
            ShardPlace::Ranges(store) => Err(IngestError::StoreUnfit {
                store: store.address().to_owned(),
                problem: "a whole shard is read through a cache only".to_owned(),
            }),
        }
    }

    /// The shard that holds a sample, and where.
    fn find(&self, sample_index: u64) -> Result<SampleLocation, IngestError> {
        let n_samples = self.n_samples;
        if sample_index >= n_samples {
            return Err(IngestError::SampleIndex { sample_index, n_samples });
        }
        let shard_idx = self.shards.partition_point(|shard| shard.first <= sample_index) - 1;
        let within = sample_index - self.shards[shard_idx].first;
        let within = usize::try_from(within).unwrap_or(usize::MAX);
        Ok(SampleLocation { shard_idx, within })
    }

    /// What a sample's index says, given the shard's index.
    fn place_of<'a>(
        &self,
        index: &'a Index,
        location: SampleLocation,
    ) -> Result<Place<'a>, IngestError> {
        let entry = &self.shards[location.shard_idx].entry;
        let (expected, got) = (entry.samples, index.len() as u64);
        let (shard, remedy) = (self.path(entry), self.remedy);
        index.get(location.within).ok_or(IngestError::ShardSamples { shard, expected, got, remedy })
    }

    fn index(&self, shard_idx: usize) -> Result<Arc<Index>, IngestError> {
        if let Some(index) = self.indexes.get(shard_idx) {
            return Ok(index);
        }
        let entry = &self.shards[shard_idx].entry;
        let index = self.load_index(entry)?;
        check_samples(&index, entry, || (self.path(entry), self.remedy))?;
        Ok(self.indexes.put(shard_idx, index.bytes(), index))
    }

    fn load_index(&self, entry: &ShardEntry) -> Result<Index, IngestError> {
        let (path, stamp) = (self.path(entry), entry.stamp());
        let scan = Scan { shard: &path, remedy: self.remedy, n_classes: self.n_classes as usize };
        let index_name = format!("{}.idx", entry.file);
        let found = match &self.place {
            ShardPlace::Folder(root) => {
                let file = open_shard(&path, self.remedy)?;
                check_size(&scan, &file, entry)?;
                match Index::load(&root.join(&index_name), &stamp)? {
                    Some(index) => index,
                    None => return scan.index(&file),
                }
            }
            ShardPlace::Cached(cache) => return scan.index(&cache.file(entry)?),
            ShardPlace::Ranges(store) => {
                let bytes = store.read(&index_name, Part::All { limit: INDEX_FILE_BYTES_MAX })?;
                let unfit = |problem| IngestError::IndexUnfit { index: index_name, problem };
                Index::decode(&bytes, &stamp).map_err(unfit)?
            }
        };
        // An index file may have been made with more classes; the scan itself looks at its labels.
        let too_high = |at: &Place<'_>| at.label.is_some_and(|label| label >= self.n_classes);
        if let Some(Place { name, label, .. }) =
            found.iter().find(too_high).filter(|_| self.n_classes > 0)
        {
            return Err(IngestError::LabelRange {
                shard: path,
                member: name.to_owned(),
                got: label.unwrap_or(0),
                n_classes: self.n_classes as usize,
            });
        }
        Ok(found)
    }

    /// The name of a shard in errors.
    fn path(&self, entry: &ShardEntry) -> PathBuf {
        match &self.place {
            ShardPlace::Folder(root) => root.join(&entry.file),
            ShardPlace::Cached(_) | ShardPlace::Ranges(_) => PathBuf::from(&entry.file),
        }
    }

    fn image(&self, entry: &ShardEntry, at: Place<'_>) -> Result<Vec<u8>, IngestError> {
        let shard = self.path(entry);
        let range = ByteRange { offset: at.offset, n_bytes: at.size };
        if at.size == 0 {
            return Err(IngestError::ImageEmpty {
                shard,
                key: at.name.to_owned(),
                offset: at.offset,
            });
        }
        match &self.place {
            // A data set has more shards than a process may hold files, hence one opening per read.
            ShardPlace::Folder(_) => {
                read_exact(&open_shard(&shard, self.remedy)?, &shard, range, self.remedy)
            }
            ShardPlace::Cached(cache) => {
                read_exact(&cache.file(entry)?, &shard, range, self.remedy)
            }
            ShardPlace::Ranges(store) => {
                store.read(&entry.file, Part::Range { offset: at.offset, n_bytes: at.size })
            }
        }
    }
}

impl Source for ShardSet {
    fn len(&self) -> u64 {
        self.n_samples
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let location = self.find(sample_index)?;
        let index = self.index(location.shard_idx)?;
        let at = self.place_of(&index, location)?;
        let entry = &self.shards[location.shard_idx].entry;
        Ok(EncodedSample {
            key: SampleKey { shard: entry.file.clone(), name: at.name.to_owned() },
            sample_index,
            payload: Payload::Encoded(self.image(entry, at)?),
        })
    }

    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        let location = self.find(sample_index)?;
        let index = self.index(location.shard_idx)?;
        let label = self.place_of(&index, location)?.label;
        Ok(label.filter(|_| self.n_classes > 0))
    }

    fn digest(&self) -> Option<DataDigest> {
        let shards = self.entries().map(|entry| (entry.blake3.as_str(), entry.bytes));
        Some(DataDigest::of_shards(shards))
    }

    fn n_classes(&self) -> Option<u32> {
        (self.n_classes > 0).then_some(self.n_classes)
    }

    fn shard_sizes(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.entry.samples).collect()
    }

    /// So many that two windows, the one that is read and the one that is fetched, fit into the cache;
    /// without a cache, or where it has room for all shards, any number.
    fn max_window_shards(&self) -> usize {
        let ShardPlace::Cached(cache) = &self.place else { return usize::MAX };
        let bytes = || self.shards.iter().map(|shard| shard.entry.bytes);
        if bytes().fold(0, u64::saturating_add) <= cache.capacity() {
            return usize::MAX;
        }
        let largest = bytes().max().unwrap_or(0).max(1);
        usize::try_from(cache.capacity() / largest / 2).unwrap_or(usize::MAX)
    }

    fn will_read(&self, sample_index: u64) -> Result<(), IngestError> {
        match &self.place {
            ShardPlace::Cached(cache) => {
                cache.want(&self.shards[self.find(sample_index)?.shard_idx].entry)
            }
            ShardPlace::Folder(_) | ShardPlace::Ranges(_) => Ok(()),
        }
    }
}

/// Compares one shard on disk with the manifest and indexes it.
fn compared(scan: &Scan<'_>, entry: &ShardEntry, verify: Verify) -> Result<Index, IngestError> {
    let (shard, remedy) = (scan.shard.to_owned(), scan.remedy);
    let file = open_shard(&shard, remedy)?;
    check_size(scan, &file, entry)?;
    if verify == Verify::Checksums {
        let got = checksum(&shard)?;
        if got != entry.blake3 {
            let expected = entry.blake3.clone();
            return Err(IngestError::ShardChecksum { shard, expected, got, remedy });
        }
    }
    // Where the bytes are those of the manifest, another copy would be no better.
    let remedy = match (verify, remedy) {
        (Verify::Checksums, Remedy::Download) => Remedy::Remake,
        _ => remedy,
    };
    let index = Scan { remedy, ..*scan }.index(&file)?;
    check_samples(&index, entry, || (shard, remedy))?;
    Ok(index)
}

fn check_samples(
    index: &Index,
    entry: &ShardEntry,
    of: impl FnOnce() -> (PathBuf, Remedy),
) -> Result<(), IngestError> {
    let (expected, got) = (entry.samples, index.len() as u64);
    if got != expected {
        let (shard, remedy) = of();
        return Err(IngestError::ShardSamples { shard, expected, got, remedy });
    }
    Ok(())
}

fn check_size(scan: &Scan<'_>, file: &File, entry: &ShardEntry) -> Result<(), IngestError> {
    let (shard, remedy) = (scan.shard.to_owned(), scan.remedy);
    let got = file.metadata().map_err(IngestError::io("inspect", &shard))?.len();
    if got != entry.bytes {
        // An interrupted download is distinguished from another file of this name.
        scan.index(file)?;
        return Err(IngestError::ShardSize { shard, expected: entry.bytes, got, remedy });
    }
    Ok(())
}

pub(crate) fn checksum(shard: &Path) -> Result<String, IngestError> {
    let file = File::open(shard).map_err(IngestError::io("open", shard))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(IngestError::io("read", shard))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests;
