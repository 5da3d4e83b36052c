//! Reads single samples out of the tar shards of a data set.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{IngestError, Remedy},
    manifest::{Manifest, ShardEntry, Split},
    scan::{IndexedSample, Scan},
    source::{EncodedSample, Payload, SampleKey, Source},
};

/// How closely shards are compared with the manifest when a data set is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Length, number of samples and the checksum of all bytes.
    Checksums,
    /// Length and number of samples; reads the tar headers and labels only.
    Sizes,
}

/// The shards of one split, indexed by sample.
///
/// Images stay on disk: memory grows with the number of samples, by some 80 bytes each.
#[derive(Debug)]
pub struct ShardSet {
    shards: Vec<Shard>,
    n_samples: u64,
    n_classes: u32,
    remedy: Remedy,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    name: String,
    /// Index of the first sample within the split.
    first: u64,
    samples: Vec<IndexedSample>,
}

impl ShardSet {
    /// Opens the shards that the manifest lists for a split; they lie in `root`.
    ///
    /// # Errors
    /// If a shard is missing, truncated or not what the manifest says, or its members are unfit.
    pub fn open(
        root: &Path,
        manifest: &Manifest,
        split: Split,
        verify: Verify,
    ) -> Result<Self, IngestError> {
        let (remedy, n_classes) = (manifest.remedy(), manifest.classes.len());
        let mut shards = Vec::new();
        let mut n_samples = 0;
        for entry in manifest.shards(split) {
            let path = root.join(&entry.file);
            let samples = index(&Scan { shard: &path, remedy, n_classes }, entry, verify)?;
            let first = n_samples;
            n_samples += samples.len() as u64;
            shards.push(Shard { path, name: entry.file.clone(), first, samples });
        }
        if n_samples == 0 {
            return Err(IngestError::SplitEmpty { name: manifest.name.clone(), split });
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a manifest of 2³² names fits no memory"
        )]
        let n_classes = n_classes as u32;
        Ok(Self { shards, n_samples, n_classes, remedy })
    }

    fn find(&self, sample_index: u64) -> Option<(&Shard, &IndexedSample)> {
        let after = self.shards.partition_point(|shard| shard.first <= sample_index);
        let shard = self.shards.get(after.checked_sub(1)?)?;
        let within = usize::try_from(sample_index - shard.first).ok()?;
        Some((shard, shard.samples.get(within)?))
    }
}

impl Source for ShardSet {
    fn len(&self) -> u64 {
        self.n_samples
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let Some((shard, sample)) = self.find(sample_index) else {
            return Err(IngestError::SampleIndex { sample_index, n_samples: self.n_samples });
        };
        // A data set has more shards than a process may hold files, hence one opening per read.
        let file = File::open(&shard.path).map_err(IngestError::io("open", &shard.path))?;
        #[expect(clippy::cast_possible_truncation, reason = "the scan capped the size")]
        let mut image = vec![0; sample.size as usize];
        file.read_exact_at(&mut image, sample.offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => IngestError::ShardTruncated {
                shard: shard.path.clone(),
                offset: sample.offset,
                needed: sample.size,
                got: file.metadata().map_or(0, |now| now.len().saturating_sub(sample.offset)),
                remedy: self.remedy,
            },
            _ => IngestError::Io { action: "read", path: shard.path.clone(), source },
        })?;
        Ok(EncodedSample {
            key: SampleKey { shard: shard.name.clone(), name: sample.name.to_string() },
            sample_index,
            payload: Payload::Encoded(image),
        })
    }

    fn label(&self, sample_index: u64) -> Option<u32> {
        self.find(sample_index).and_then(|(_, sample)| sample.label)
    }

    fn n_classes(&self) -> Option<u32> {
        (self.n_classes > 0).then_some(self.n_classes)
    }
}

/// Compares one shard with the manifest and indexes it.
fn index(
    scan: &Scan<'_>,
    entry: &ShardEntry,
    verify: Verify,
) -> Result<Vec<IndexedSample>, IngestError> {
    let (shard, remedy) = (scan.shard.to_owned(), scan.remedy);
    let bytes = match fs::metadata(&shard) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IngestError::ShardMissing { shard, remedy });
        }
        Err(source) => return Err(IngestError::Io { action: "inspect", path: shard, source }),
    };
    if bytes != entry.bytes {
        // A download that broke off is told apart from another file of this name.
        scan.samples()?;
        return Err(IngestError::ShardSize { shard, expected: entry.bytes, got: bytes, remedy });
    }
    if verify == Verify::Checksums {
        let got = checksum(&shard)?;
        if got != entry.blake3 {
            let expected = entry.blake3.clone();
            return Err(IngestError::ShardChecksum { shard, expected, got, remedy });
        }
    }
    let samples = scan.samples()?;
    if samples.len() as u64 != entry.samples {
        let (expected, got) = (entry.samples, samples.len() as u64);
        return Err(IngestError::ShardSamples { shard, expected, got, remedy });
    }
    Ok(samples)
}

fn checksum(shard: &Path) -> Result<String, IngestError> {
    let file = File::open(shard).map_err(IngestError::io("open", shard))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(IngestError::io("read", shard))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::writer::{ImageFormat, ShardWriter};

    type Change<'a> = &'a dyn Fn(&mut ShardEntry);

    fn image(i: u32) -> Vec<u8> {
        i.to_le_bytes().repeat(i as usize * 100)
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
            assert_eq!(set.label(u64::from(i)), (i != 5).then_some(i % 3));
        }
        assert_eq!(set.label(7), None);
        let message = set.read(7).unwrap_err().to_string();
        assert_eq!(message, "sample 7 was asked for, but the data set has 7");
    }

    #[test]
    fn a_data_set_without_classes_has_no_labels() {
        let (folder, manifest) = written();
        let manifest = Manifest { classes: Vec::new(), ..manifest };
        let set = open(&folder, &manifest, Verify::Sizes).unwrap();
        assert_eq!((set.n_classes(), set.label(1)), (None, None));
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
        assert_eq!(error, format!("cannot open {}", path.display()));
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
