//! Makes shards of a small folder, looks at them, and finds what somebody changed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use moco_ingest::{ImageFolder, Layout, Manifest, OnBadSample, ShardSet, Source, Split, Verify};

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

const DECODED: &str = "train: 2 of 2 shards are right\ntrain: 9 of 9 images decode\n";

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
    let (mut made, mut given) = (
        contents(&set),
        contents(&ImageFolder::open(&root.join("in"), Layout::Classes, OnBadSample::Fail).unwrap()),
    );
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
        "wrong: shard out/train-000002.tar is missing; restore it, or correct the data folder",
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
fn bad_images_are_skipped_under_a_budget_and_all_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    images(&root.join("in"));
    std::fs::write(root.join("in/cat/2.JPEG"), b"%PDF-1.4").unwrap();
    std::fs::write(root.join("in/dog/5.JPEG"), &png(90)[..60]).unwrap();
    let make = format!("{MAKE} --order kept --max-side 80");

    std::fs::write(root.join("in/dog/3.JPEG"), b"").unwrap();
    let listed = [
        (
            "in/cat/2.JPEG",
            "image is no JPEG, PNG, WebP, BMP, TIFF or GIF: its first bytes are [25, 50, 44",
        ),
        ("in/dog/3.JPEG", "it has 0 bytes, expected 1 to 67108864"),
        (
            "in/dog/5.JPEG",
            "PNG image is truncated: the data ends after 60 bytes, before the end of the picture",
        ),
    ];
    for make in [make.clone(), format!("{MAKE} --order kept")] {
        // All bad images are named at the first try.
        for budget in [0, 2] {
            let (code, _, stderr) = shard(root, &format!("{make} --skip-bad {budget}"));
            assert_eq!(code, Some(3), "{stderr}");
            let expected = format!(
                "error: 3 images of 12 cannot be used, and --skip-bad allows {budget}; out/bad_samples.txt names \
                 all of them; repair or remove them, or give --skip-bad 3\n"
            );
            assert!(stderr.ends_with(&expected), "{stderr}");
            for (path, reason) in listed {
                assert!(stderr.contains(&format!("image {path}: {reason}")), "{stderr}");
            }
            assert!(!root.join("m.toml").exists(), "no manifest of half a set");
        }
        let (code, stdout, stderr) = shard(root, &format!("{make} --skip-bad 3"));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.starts_with("out: 9 images in 2 shards of "), "{stdout}");
        let expected = "3 images were skipped; out/bad_samples.txt names them\nbeside the images: 4 × other file \
                        (cat/0.json, cat/3.json, dog/0.json, …)\n";
        assert!(stdout.ends_with(expected), "{stdout}");
        let text = std::fs::read_to_string(root.join("out/bad_samples.txt")).unwrap();
        assert_eq!(text.lines().count(), 3);
        for (line, (path, reason)) in text.lines().zip(listed) {
            assert!(line.starts_with(&format!("{path}\t{reason}")), "{line}");
        }
        let (code, stdout, _) = shard(root, "verify m.toml --root out --decode");
        assert_eq!((code, stdout.as_str()), (Some(0), DECODED));
        std::fs::rename(root.join("m.toml"), root.join("made.toml")).unwrap();
    }
    std::fs::rename(root.join("made.toml"), root.join("m.toml")).unwrap();
    let manifest = Manifest::load(&root.join("m.toml")).unwrap();
    let set = ShardSet::open(&root.join("out"), &manifest, Split::Train, Verify::Sizes).unwrap();
    let names: Vec<String> = (0..9).map(|i| set.read(i).unwrap().key.name).collect();
    assert_eq!((names[2].as_str(), names[8].as_str()), ("000000002_3", "000000008_4"));
    let labels: Vec<_> = (0..9).map(|i| set.label(i).unwrap().unwrap()).collect();
    assert_eq!(labels, [0, 0, 0, 0, 0, 1, 1, 1, 1]);

    std::fs::create_dir_all(root.join("bad/cat")).unwrap();
    std::fs::write(root.join("bad/cat/0.JPEG"), b"%PDF").unwrap();
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
