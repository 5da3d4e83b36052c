//! Reads single samples out of the tar shards of a data set.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    cache::ShardCache,
    error::{IngestError, Remedy},
    index::{Index, Place},
    manifest::{Manifest, ShardEntry, Split},
    scan::Scan,
    shelf::Shelf,
    source::{EncodedSample, Payload, SampleKey, Source},
    store::{Part, Store, open_shard, read_exact},
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

/// Where the shards of a data set lie.
#[derive(Debug, Clone)]
pub enum ShardPlace {
    /// In a folder.
    Folder(PathBuf),
    /// On a store; a whole shard is fetched when a sample of it is needed.
    Cached(Arc<ShardCache>),
    /// On a store, each with its index `SHARD.idx`; samples are fetched one by one. Nothing checks their
    /// bytes besides the store itself.
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

impl ShardSet {
    /// Opens the shards that the manifest lists for a split, which lie in the folder `root`, and compares
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

    /// The most shards that a window of the order may have so that two windows, the one that is read and
    /// the one that is fetched, fit into the cache; without a cache any number.
    #[must_use]
    pub fn max_window_shards(&self) -> usize {
        let ShardPlace::Cached(cache) = &self.place else { return usize::MAX };
        let largest = self.shards.iter().map(|shard| shard.entry.bytes).max().unwrap_or(0).max(1);
        usize::try_from(cache.capacity() / largest / 2).unwrap_or(usize::MAX)
    }

    /// Number of the shard that holds a sample, and the sample's number within it.
    fn find(&self, sample_index: u64) -> Result<(usize, usize), IngestError> {
        let n_samples = self.n_samples;
        if sample_index >= n_samples {
            return Err(IngestError::SampleIndex { sample_index, n_samples });
        }
        let shard_idx = self.shards.partition_point(|shard| shard.first <= sample_index) - 1;
        let within = sample_index - self.shards[shard_idx].first;
        Ok((shard_idx, usize::try_from(within).unwrap_or(usize::MAX)))
    }

    /// What a sample's index says, given the shard's index.
    fn place_of<'a>(
        &self,
        index: &'a Index,
        (shard_idx, within): (usize, usize),
    ) -> Result<Place<'a>, IngestError> {
        let entry = &self.shards[shard_idx].entry;
        let (expected, got) = (entry.samples, index.len() as u64);
        let (shard, remedy) = (self.path(entry), self.remedy);
        index.get(within).ok_or(IngestError::ShardSamples { shard, expected, got, remedy })
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

    /// What a shard is called in errors.
    fn path(&self, entry: &ShardEntry) -> PathBuf {
        match &self.place {
            ShardPlace::Folder(root) => root.join(&entry.file),
            ShardPlace::Cached(_) | ShardPlace::Ranges(_) => PathBuf::from(&entry.file),
        }
    }

    fn image(&self, entry: &ShardEntry, at: Place<'_>) -> Result<Vec<u8>, IngestError> {
        let (shard, extent) = (self.path(entry), (at.offset, at.size));
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
                read_exact(&open_shard(&shard, self.remedy)?, &shard, extent, self.remedy)
            }
            ShardPlace::Cached(cache) => {
                read_exact(&cache.file(entry)?, &shard, extent, self.remedy)
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
        let (shard_idx, within) = self.find(sample_index)?;
        let index = self.index(shard_idx)?;
        let at = self.place_of(&index, (shard_idx, within))?;
        let entry = &self.shards[shard_idx].entry;
        Ok(EncodedSample {
            key: SampleKey { shard: entry.file.clone(), name: at.name.to_owned() },
            sample_index,
            payload: Payload::Encoded(self.image(entry, at)?),
        })
    }

    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        let (shard_idx, within) = self.find(sample_index)?;
        let index = self.index(shard_idx)?;
        let label = self.place_of(&index, (shard_idx, within))?.label;
        Ok(label.filter(|_| self.n_classes > 0))
    }

    fn n_classes(&self) -> Option<u32> {
        (self.n_classes > 0).then_some(self.n_classes)
    }

    fn shard_sizes(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.entry.samples).collect()
    }

    fn will_read(&self, sample_index: u64) -> Result<(), IngestError> {
        match &self.place {
            ShardPlace::Cached(cache) => cache.want(&self.shards[self.find(sample_index)?.0].entry),
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
    let index = scan.index(&file)?;
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
        // A download that broke off is told apart from another file of this name.
        scan.index(file)?;
        return Err(IngestError::ShardSize { shard, expected: entry.bytes, got, remedy });
    }
    Ok(())
}

fn checksum(shard: &Path) -> Result<String, IngestError> {
    let file = File::open(shard).map_err(IngestError::io("open", shard))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(IngestError::io("read", shard))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::writer::{ImageFormat, ShardWriter};

    type Change<'a> = &'a dyn Fn(&mut ShardEntry);

    fn image(i: u32) -> Vec<u8> {
        i.to_le_bytes().repeat(i.max(1) as usize * 100)
    }

    /// Seven samples in shards of three, labels 0 to 2.
    fn written() -> (TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(folder.path(), "train", 3).unwrap();
        for i in 0..7 {
            let label = (i != 5).then_some(i % 3);
            writer.push(&format!("{i:04}"), ImageFormat::Png, &image(i), label).unwrap();
        }
        let manifest = Manifest {
            name: "tiny".to_owned(),
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            train: writer.finish().unwrap(),
            ..Manifest::default()
        };
        (folder, manifest)
    }

    fn open(folder: &TempDir, manifest: &Manifest, verify: Verify) -> Result<ShardSet, String> {
        let place = format!("{}/", folder.path().display());
        ShardSet::open(folder.path(), manifest, Split::Train, verify)
            .map_err(|error| error.to_string().replace(&place, ""))
    }

    #[test]
    fn samples_come_back_in_any_order() {
        let (folder, manifest) = written();
        let set = open(&folder, &manifest, Verify::Checksums).unwrap();
        assert_eq!((set.len(), set.is_empty(), set.n_classes()), (7, false, Some(3)));
        for i in [6, 0, 3, 2, 5, 1, 4, 0] {
            let sample = set.read(u64::from(i)).unwrap();
            assert_eq!(sample.sample_index, u64::from(i));
            assert_eq!(sample.payload, Payload::Encoded(image(i)));
            assert_eq!(sample.key.to_string(), format!("train-00000{}.tar/{i:04}", i / 3));
            assert_eq!(set.label(u64::from(i)).unwrap(), (i != 5).then_some(i % 3));
        }
        let message = set.label(7).unwrap_err().to_string();
        assert_eq!(message, "sample 7 was asked for, but the data set has 7");
        let message = set.read(7).unwrap_err().to_string();
        assert_eq!(message, "sample 7 was asked for, but the data set has 7");
    }

    #[test]
    fn a_data_set_without_classes_has_no_labels() {
        let (folder, manifest) = written();
        let manifest = Manifest { classes: Vec::new(), ..manifest };
        let set = open(&folder, &manifest, Verify::Sizes).unwrap();
        assert_eq!((set.n_classes(), set.label(1).unwrap()), (None, None));
    }

    #[test]
    fn the_manifest_and_the_disk_must_agree() {
        let other = "0".repeat(64);
        let cases: [(Change<'_>, Verify, &str); 4] = [
            (
                &|e| e.file = "x.tar".to_owned(),
                Verify::Sizes,
                "shard x.tar is missing; download it, or",
            ),
            (
                &|e| e.bytes = 1,
                Verify::Sizes,
                "shard train-000001.tar has the wrong size: expected 1 bytes, got 10240; download it again",
            ),
            (
                &|e| e.samples = 4,
                Verify::Sizes,
                "shard train-000001.tar has the wrong number of samples: expected 4, got 3; download",
            ),
            (
                &|e| e.blake3 = other.clone(),
                Verify::Checksums,
                "shard train-000001.tar has the wrong checksum: expected blake3 0000",
            ),
        ];
        for (change, verify, expected) in cases {
            let (folder, mut manifest) = written();
            change(&mut manifest.train[1]);
            let message = open(&folder, &manifest, verify).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn one_flipped_bit_of_an_image_is_found_by_checksums_alone() {
        let (folder, manifest) = written();
        let path = folder.path().join("train-000002.tar");
        let mut bytes = fs::read(&path).unwrap();
        bytes[700] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(open(&folder, &manifest, Verify::Sizes).unwrap().len(), 7);
        let message = open(&folder, &manifest, Verify::Checksums).unwrap_err();
        assert!(message.starts_with("shard train-000002.tar has the wrong checksum"), "{message}");
    }

    #[test]
    fn generated_data_has_its_own_hint() {
        let (folder, mut manifest) = written();
        manifest.generator = Some("textures".to_owned());
        manifest.train[0].bytes += 1;
        let message = open(&folder, &manifest, Verify::Sizes).unwrap_err();
        assert!(message.ends_with("; delete it and run `cargo xtask make-data`"), "{message}");
        fs::remove_file(folder.path().join("train-000000.tar")).unwrap();
        let message = open(&folder, &manifest, Verify::Sizes).unwrap_err();
        assert_eq!(message, "shard train-000000.tar is missing; run `cargo xtask make-data`");
    }

    #[test]
    fn a_split_without_shards_is_refused() {
        let (folder, manifest) = written();
        let error = ShardSet::open(folder.path(), &manifest, Split::Test, Verify::Sizes);
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with("data set tiny has no test shards; add them"), "{message}");
    }

    #[test]
    fn a_shard_cut_after_opening_gives_no_short_image() {
        let (folder, manifest) = written();
        let set = open(&folder, &manifest, Verify::Checksums).unwrap();
        let path = folder.path().join("train-000002.tar");
        File::options().write(true).open(&path).unwrap().set_len(600).unwrap();
        let message = set.read(6).unwrap_err().to_string();
        let expected = "is truncated: 2400 bytes needed at offset 512, got 88; download it again";
        assert!(message.ends_with(expected), "{message}");
        fs::remove_file(&path).unwrap();
        let error = set.read(6).unwrap_err().to_string();
        assert!(
            error.ends_with("train-000002.tar is missing; download it, or correct the data folder")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_cut_is_an_error(shard_idx in 0_usize..3, part in 0.0..1.0_f64) {
            let (folder, manifest) = written();
            let entry = &manifest.train[shard_idx];
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            let length = (entry.bytes as f64 * part) as u64;
            let path = folder.path().join(&entry.file);
            File::options().write(true).open(path).unwrap().set_len(length).unwrap();
            let message = open(&folder, &manifest, Verify::Sizes).unwrap_err();
            let cut = message.contains("is truncated") || message.contains("has the wrong size");
            prop_assert!(cut && message.contains(&entry.file), "{}", message);
        }
    }
}
