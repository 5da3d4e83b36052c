//! Tests of opening and reading shards on disk.

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
        (&|e| e.file = "x.tar".to_owned(), Verify::Sizes, "shard x.tar is missing; restore it, or"),
        (
            &|e| e.bytes = 1,
            Verify::Sizes,
            "shard train-000001.tar has the wrong size: expected 1 bytes, got 10240; make it again, or",
        ),
        (
            &|e| e.samples = 4,
            Verify::Sizes,
            "shard train-000001.tar has the wrong number of samples: expected 4, got 3; make it",
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
    let (expected, got) = (&manifest.train[2].blake3, blake3::hash(&fs::read(&path).unwrap()));
    assert_eq!(
        message,
        format!(
            "shard train-000002.tar has the wrong checksum: expected blake3 {expected}, got {got}; make it again, or restore it from a copy"
        )
    );
}

#[test]
fn generated_data_has_its_own_hint() {
    let (folder, mut manifest) = written();
    manifest.generator = Some("textures".to_owned());
    manifest.train[0].bytes += 1;
    let message = open(&folder, &manifest, Verify::Sizes).unwrap_err();
    assert!(message.ends_with("; delete it, and `pretrain` draws it again"), "{message}");
    fs::remove_file(folder.path().join("train-000000.tar")).unwrap();
    let message = open(&folder, &manifest, Verify::Sizes).unwrap_err();
    assert_eq!(message, "shard train-000000.tar is missing; `pretrain` draws it");
}

#[test]
fn a_split_without_shards_is_refused() {
    let (folder, manifest) = written();
    let error = ShardSet::open(folder.path(), &manifest, Split::Test, Verify::Sizes);
    let message = error.unwrap_err().to_string();
    let expected =
        "data set tiny has no test shards; add them to its manifest or choose another data set";
    assert_eq!(message, expected);
}

#[test]
fn an_image_without_bytes_is_the_fault_of_one_sample() {
    let folder = tempfile::tempdir().unwrap();
    // Our own writer refuses it.
    let mut shard = tar::Builder::new(Vec::new());
    for (name, image) in [("a.jpg", &b"1"[..]), ("b.jpg", b""), ("c.jpg", b"3")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(image.len() as u64);
        shard.append_data(&mut header, name, image).unwrap();
    }
    fs::write(folder.path().join("train-000000.tar"), shard.into_inner().unwrap()).unwrap();
    let entry = crate::describe_shard(folder.path(), "train-000000.tar", 0).unwrap();
    let manifest = Manifest { train: vec![entry], ..Manifest::default() };
    let set = open(&folder, &manifest, Verify::Checksums).unwrap();
    let error = set.read(1).unwrap_err();
    let expected = format!(
        "shard {} holds no byte of the image \"b\" at offset 1536; make the shard again without it",
        folder.path().join("train-000000.tar").display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.is_of_one_sample() && set.read(0).is_ok() && set.read(2).is_ok());
}

#[test]
fn a_shard_cut_after_opening_gives_no_short_image() {
    let (folder, manifest) = written();
    let set = open(&folder, &manifest, Verify::Checksums).unwrap();
    let path = folder.path().join("train-000002.tar");
    File::options().write(true).open(&path).unwrap().set_len(600).unwrap();
    let message = set.read(6).unwrap_err().to_string();
    let expected = "is truncated: 2400 bytes needed at offset 512, got 88; make it again, or restore it from a copy";
    assert!(message.ends_with(expected), "{message}");
    fs::remove_file(&path).unwrap();
    let error = set.read(6).unwrap_err().to_string();
    assert!(error.ends_with("train-000002.tar is missing; restore it, or correct the data folder"));
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
