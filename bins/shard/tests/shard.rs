//! Makes shards of a small folder, looks at them, and finds what somebody changed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use moco_ingest::{ImageFolder, Manifest, ShardSet, Source, Split, Verify};

fn png(side: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(side, side, |x, y| image::Rgb([x as u8, y as u8, 7]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Two classes of six images; each third has hashtags, two are large.
fn images(folder: &Path) {
    for (class, tag) in [("cat", "cute"), ("dog", "loud")] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..6 {
            let side = if i == 5 { 90 } else { 20 + i };
            std::fs::write(folder.join(format!("{class}/{i}.JPEG")), png(side)).unwrap();
            if i % 3 == 0 {
                let json = format!("{{\"hashtags\": [\"#{tag}\", \"pet\"]}}");
                std::fs::write(folder.join(format!("{class}/{i}.json")), json).unwrap();
            }
        }
    }
}

/// Exit code, standard output and standard error.
fn shard(folder: &Path, arguments: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shard"));
    let output = command.current_dir(folder).args(arguments.split(' ')).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const MAKE: &str = "make --folder in --out out --manifest m.toml --name pets --license CC0 \
                    --source here --samples-per-shard 5";

#[test]
fn shards_are_made_verified_and_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    images(&root.join("in"));
    let (code, stdout, stderr) = shard(root, MAKE);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("out: 12 images in 3 shards of "), "{stdout}");

    // Each image is there once, with its bytes and its label.
    let manifest = Manifest::load(&root.join("m.toml")).unwrap();
    assert_eq!(manifest.classes, ["cat", "dog"]);
    let set =
        ShardSet::open(&root.join("out"), &manifest, Split::Train, Verify::Checksums).unwrap();
    let contents = |source: &dyn Source| -> Vec<String> {
        let one =
            |i| format!("{:?} {:?}", source.label(i).unwrap(), source.read(i).unwrap().payload);
        (0..source.len()).map(one).collect()
    };
    let (mut made, mut given) =
        (contents(&set), contents(&ImageFolder::open(&root.join("in")).unwrap()));
    assert_ne!(made, given, "the images were to be mixed");
    made.sort_unstable();
    given.sort_unstable();
    assert_eq!(made, given);

    let (code, stdout, stderr) = shard(root, "verify m.toml --root out");
    assert_eq!((code, stdout.as_str()), (Some(0), "train: 3 of 3 shards are right\n"), "{stderr}");
    let (code, stdout, _) = shard(root, "inspect m.toml --root out");
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("train: 12 images in 3 shards; an image has "), "{stdout}");
    assert!(stdout.contains("2 of 2 classes occur, with 6 to 6 images each; 0 images"), "{stdout}");
    let hashtags = "4 images have metadata, with 3 hashtags: #pet 4, #cute 2, #loud 2\n";
    assert!(stdout.ends_with(hashtags), "{stdout}");

    let path = root.join("out/train-000001.tar");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(root.join("out/train-000002.tar")).unwrap();
    let (code, stdout, stderr) = shard(root, "verify m.toml --root out");
    assert_eq!((code, stdout.as_str()), (Some(3), "train: 1 of 3 shards are right\n"));
    for expected in [
        "wrong: shard out/train-000001.tar has the wrong checksum: expected blake3 ",
        "wrong: shard out/train-000002.tar is missing; download it",
        "error: 2 shards are wrong",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    let (code, _, stderr) = shard(root, "inspect m.toml --root out");
    assert_eq!(code, Some(3));
    assert!(stderr.contains("error: shard out/train-000001.tar has the wrong"), "{stderr}");
}

#[test]
fn bytes_do_not_depend_on_the_workers_and_large_images_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    images(&root.join("in"));
    let mut manifests = Vec::new();
    for workers in [1, 3] {
        let more = format!("{MAKE} --max-side 40 --order kept --workers {workers}");
        let (code, _, stderr) = shard(root, &more);
        assert_eq!(code, Some(0), "{stderr}");
        manifests.push(Manifest::load(&root.join("m.toml")).unwrap());
    }
    assert_eq!(manifests[0], manifests[1]);
    let set =
        ShardSet::open(&root.join("out"), &manifests[0], Split::Train, Verify::Sizes).unwrap();
    let sides: Vec<u32> = (0..12)
        .map(|i| match set.read(i).unwrap().payload {
            moco_ingest::Payload::Encoded(bytes) => {
                image::load_from_memory(&bytes).unwrap().width()
            }
            moco_ingest::Payload::Rgb { .. } => 0,
        })
        .collect();
    assert_eq!(sides, [20, 21, 22, 23, 24, 40, 20, 21, 22, 23, 24, 40]);
}

#[test]
fn bad_images_are_skipped_under_a_budget_and_each_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    images(&root.join("in"));
    std::fs::write(root.join("in/cat/2.JPEG"), b"RIFF....WEBP").unwrap();
    std::fs::write(root.join("in/dog/5.JPEG"), &png(90)[..60]).unwrap();
    let make = format!("{MAKE} --order kept --max-side 80");

    for (budget, code, expected) in [
        (
            0,
            Some(1),
            "an image is bad; repair or remove it, or give --skip-bad N to leave out up to N",
        ),
        (1, Some(1), "more images are bad than the 1 of --skip-bad"),
        (2, Some(0), "skipped: the image in/dog/5.JPEG cannot go into a shard: cannot decode it"),
        (9, Some(0), "skipped: the image in/cat/2.JPEG cannot go into a shard: neither JPEG nor"),
    ] {
        let (got, stdout, stderr) = shard(root, &format!("{make} --skip-bad {budget}"));
        assert_eq!(got, code, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(root.join("m.toml").exists(), code == Some(0), "no manifest of half a set");
        if code == Some(0) {
            assert!(stdout.starts_with("out: 10 images in 2 shards of "), "{stdout}");
            assert!(stdout.ends_with("2 images were skipped\n"), "{stdout}");
        }
    }
    let manifest = Manifest::load(&root.join("m.toml")).unwrap();
    let set = ShardSet::open(&root.join("out"), &manifest, Split::Train, Verify::Sizes).unwrap();
    let names: Vec<String> = (0..10).map(|i| set.read(i).unwrap().key.name).collect();
    assert_eq!((names[2].as_str(), names[9].as_str()), ("000000002_3", "000000009_4"));
    let labels: Vec<_> = (0..10).map(|i| set.label(i).unwrap().unwrap()).collect();
    assert_eq!(labels, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);

    std::fs::create_dir_all(root.join("bad/cat")).unwrap();
    std::fs::write(root.join("bad/cat/0.JPEG"), b"GIF89a").unwrap();
    let (code, _, stderr) = shard(root, &make.replace("--folder in", "--skip-bad 9 --folder bad"));
    assert_eq!(code, Some(3));
    assert!(stderr.ends_with("error: no image is left to make a shard of\n"), "{stderr}");
}

#[test]
fn a_second_split_joins_the_manifest_and_mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    images(&root.join("in"));
    for split in ["train", "test"] {
        assert_eq!(shard(root, &format!("{MAKE} --split {split}")).0, Some(0));
    }
    let manifest = Manifest::load(&root.join("m.toml")).unwrap();
    assert_eq!((manifest.train.len(), manifest.test.len()), (3, 3));

    let unlabeled = MAKE.replace("--folder", "--unlabeled-folder");
    let (code, _, stderr) = shard(root, &unlabeled);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("m.toml describes pets, which has another name or other"), "{stderr}");
    std::fs::remove_file(root.join("m.toml")).unwrap();
    assert_eq!(shard(root, &unlabeled).0, Some(0));
    assert!(shard(root, "inspect m.toml --root out").1.contains("  no labels\n"));

    std::fs::write(root.join("in/cat/2.JPEG"), b"RIFF....WEBP").unwrap();
    let (code, _, stderr) = shard(root, MAKE);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the image in/cat/2.JPEG cannot go into a shard"), "{stderr}");
    assert!(stderr.contains("neither JPEG nor PNG, by its first bytes"), "{stderr}");
    let (code, _, stderr) = shard(root, "verify m.toml --root s3x://data");
    assert_eq!(code, Some(2));
    let expected = if cfg!(feature = "remote") {
        "error: store s3x://data cannot be used: expected an address of s3://, https:// or http://"
    } else {
        "error: store s3x://data cannot be used: this build reaches no stores; start one that does by \
         `cargo xtask --features remote STAGE`"
    };
    assert!(stderr.starts_with(expected), "{stderr}");
    let (code, _, stderr) = shard(root, &MAKE.replace("--folder in", "--folder gone"));
    assert_eq!(code, Some(3));
    assert!(stderr.starts_with("error: cannot list gone"), "{stderr}");
}
