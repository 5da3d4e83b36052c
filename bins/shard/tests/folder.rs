//! Folders and shards as people have them: what is said of them, and that it trains.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use image::ImageFormat;
use moco_ingest::{Manifest, ShardSet, Source as _, Split, Verify};

/// Exit code, standard output and standard error.
fn shard(folder: &Path, arguments: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shard"));
    let output = command.current_dir(folder).args(arguments.split(' ')).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn image(side: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(side, 20, |x, y| image::Rgb([x as u8, y as u8, 7]));
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

const MAKE: &str =
    "make --folder in --out out --manifest m.toml --name x --license CC0 --source here";

#[test]
fn the_doctor_says_what_a_folder_holds_and_how_to_train_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let jpeg = image(40, ImageFormat::Jpeg);
    for (name, bytes) in [
        ("p/a/1.jpg", jpeg.clone()),
        ("p/a/2.JPG", jpeg.clone()),
        ("p/a/png-named.jpg", image(30, ImageFormat::Png)),
        ("p/b/1.webp", image(50, ImageFormat::WebP)),
        ("p/b/2.gif", image(15, ImageFormat::Gif)),
        ("p/b/3.tif", image(60, ImageFormat::Tiff)),
        ("p/b/4.bmp", image(20, ImageFormat::Bmp)),
        ("p/b/cut.jpg", jpeg[..jpeg.len() / 2].to_vec()),
        ("p/b/page.png", b"<html>404</html>".to_vec()),
        ("p/b/none.jpg", Vec::new()),
        ("p/b/x.heic", b"heic".to_vec()),
        ("p/.DS_Store", b"x".to_vec()),
        ("p/b/note.txt", b"x".to_vec()),
    ] {
        write(root, name, &bytes);
    }
    let (code, stdout, stderr) = shard(root, "doctor p");
    assert_eq!(code, Some(0), "{stderr}");
    let (report, config) = stdout.split_once("\nextends = ").unwrap();
    let n_bytes = jpeg.len() / 2;
    let expected = [
        "# p: 10 images, 3 of them broken, ",
        "# format                     files    broken\n# BMP                            1         0\n",
        "# HTML or XML                    1         1\n# JPEG                           3         1\n",
        "# unreadable                     1         1\n#\n# broken:\n",
        &format!(
            "#   b/cut.jpg: JPEG image is truncated: the data ends after {n_bytes} bytes, before the end of the \
             picture\n#   b/none.jpg: it has 0 bytes, expected 1 to 67108864\n#   b/page.png: image is no JPEG, PNG,"
        ),
        "# left out: 1 × .heic (b/x.heic), 1 × hidden or system file (.DS_Store), 1 × other file (b/note.txt)\n",
        "# sides in pixels: smallest 15 x 20 (b/2.gif), median 20 x 40 (a/1.jpg), largest 20 x 60 (b/3.tif)\n",
        "# with the bytes of another: 1\n#   a/2.JPG = a/1.jpg\n",
        "# folders: 2\n#   a 3\n#   b 4",
    ];
    for part in expected {
        assert!(report.contains(part), "{part}\n{report}");
    }
    let toml: toml::Table = stdout.parse().unwrap();
    assert_eq!(toml["data"]["source"].as_str(), Some("image_folder"), "{config}");
    let place = root.canonicalize().unwrap().join("p");
    assert_eq!(toml["data"]["root"].as_str(), place.to_str());
    assert_eq!(toml["data"]["bad_sample_budget"].as_integer(), Some(1000));
    assert_eq!(toml["optim"]["batch_size"].as_integer(), Some(10));

    std::fs::create_dir(root.join("empty")).unwrap();
    let (code, _, stderr) = shard(root, "doctor empty");
    assert_eq!(code, Some(3));
    assert!(
        stderr.starts_with("error: empty holds no images; expected files that end in"),
        "{stderr}"
    );
    write(root, "bad/1.jpg", b"x");
    let (code, stdout, stderr) = shard(root, "doctor bad");
    assert_eq!(
        (code, stderr.ends_with("error: bad holds no image that can be used\n")),
        (Some(3), true)
    );
    assert!(stdout.contains("# no image                       1         1\n"), "{stdout}");
}

#[test]
fn metadata_that_no_reader_accepts_does_not_go_into_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let large = format!("{{\"imageData\": \"{}\"}}", "A".repeat(1_200_000));
    for (i, json) in [
        "{\"label\": 1}",
        "{\"label\": \"cat\"}",
        "[{\"label\": 1}]",
        large.as_str(),
        "{\"caption\": NaN}",
        "\u{feff}{}",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        write(root, &format!("in/a/{i}.jpg"), &image(20, ImageFormat::Jpeg));
        write(root, &format!("in/b/{i}.jpg"), &image(21, ImageFormat::Jpeg));
        write(root, &format!("in/b/{i}.json"), json.as_bytes());
    }
    let (code, stdout, stderr) = shard(root, MAKE);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("\nthe metadata of 4 images was left out\n"), "{stdout}");
    for expected in [
        "left out: metadata in/b/3.json: it has 1200017 bytes, the limit is 1048576\n",
        "left out: metadata in/b/4.json: expected value at line 1 column 13\n",
        "left out: metadata in/b/5.json: expected value at line 1 column 1\n",
        "left out: metadata in/b/6.json: EOF while parsing a value at line 1 column 0\n",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    let open = || {
        let manifest = Manifest::load(&root.join("m.toml")).unwrap();
        let set = ShardSet::open(&root.join("out"), &manifest, Split::Train, Verify::Checksums);
        let set = set.unwrap();
        let mut labels: Vec<_> = (0..set.len()).map(|i| set.label(i).unwrap()).collect();
        labels.sort_unstable();
        labels
    };
    let expected = [[Some(0); 7], [Some(1); 7]].concat();
    assert_eq!(open(), expected);
    let (code, stdout, stderr) = shard(root, "inspect m.toml --root out");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("  3 images have metadata, with 0 hashtags: "), "{stdout}");
    std::fs::remove_file(root.join("out/train-000000.tar.idx")).unwrap();
    assert_eq!(open(), expected);
}

/// A tar file as webdataset and img2dataset write it.
fn tar_of(path: &Path, members: &[(&str, &[u8])]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in members {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let mut command = Command::new("tar");
    command.arg("cf").arg(path).arg("-C").arg(folder.path()).arg("--format=ustar");
    assert!(command.args(members.iter().map(|(name, _)| name)).status().unwrap().success());
}

#[test]
fn shards_of_others_get_a_manifest_and_are_decoded_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [jpeg, webp] = [ImageFormat::Jpeg, ImageFormat::WebP].map(|format| image(20, format));
    std::fs::create_dir(root.join("their")).unwrap();
    tar_of(
        &root.join("their/00000.tar"),
        &[
            ("000000.jpg", &jpeg),
            ("000000.txt", b"a photo of a cat"),
            ("000000.json", b"{\"caption\": \"a photo of a cat\", \"status\": \"success\"}"),
            ("photo.v1.2.webp", &webp),
            ("photo.v1.2.txt", b"7"),
            ("000001.jpg", &jpeg[..300]),
            ("000001.seg.png", b"a mask"),
            ("000001.npy", b"x"),
        ],
    );
    let about = "--manifest m.toml --name x --license CC0 --source";
    let (code, stdout, stderr) = shard(root, &format!("manifest their {about} here"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("m.toml: 3 images in 1 shards of "), "{stdout}");
    assert!(stdout.ends_with(" in all, no labels\n"), "{stdout}");
    let (code, stdout, stderr) = shard(root, "verify m.toml --root their --decode");
    let expected = "train: 1 of 1 shards are right\n  left out, members that are no images: 1 .npy, 1 .png\n\
                    train: 2 of 3 images decode\n";
    assert_eq!((code, stdout.as_str()), (Some(3), expected));
    let expected = "bad: image 00000.tar/000001: JPEG image is truncated: the data ends after 300 bytes, before the \
                    end of the picture\n";
    assert!(stderr.contains(expected), "{stderr}");
    assert!(stderr.ends_with("\nerror: 1 image does not decode\n"), "{stderr}");

    // Labels as numbers, and names for them.
    tar_of(
        &root.join("their/00000.tar"),
        &[("a.b.jpg", &jpeg), ("a.b.cls", b"2"), ("c.jpg", &jpeg), ("c.json", b"{\"label\": 0}")],
    );
    let (code, stdout, stderr) = shard(root, &format!("manifest their {about} here"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.ends_with(" in all, 3 classes\n"), "{stdout}");
    let manifest = Manifest::load(&root.join("m.toml")).unwrap();
    assert_eq!(manifest.classes, ["0", "1", "2"]);
    let set = ShardSet::open(&root.join("their"), &manifest, Split::Train, Verify::Checksums);
    let set = set.unwrap();
    let names: Vec<_> =
        (0..2).map(|i| (set.read(i).unwrap().key.name, set.label(i).unwrap())).collect();
    assert_eq!(names, [("a.b".to_owned(), Some(2)), ("c".to_owned(), Some(0))]);
    std::fs::write(root.join("names"), "cat\ndog\n").unwrap();
    let (code, _, stderr) = shard(root, &format!("manifest their {about} here --classes names"));
    assert_eq!(code, Some(3));
    let expected = "error: shard their/00000.tar: \"a.b.cls\" holds the label 2, but the manifest names 2 classes (0 \
                    to 1); add the missing classes\n";
    assert!(stderr.ends_with(expected), "{stderr}");

    // Advice to download only where there is an address.
    for (source, advice) in [
        ("here", "make it again, or restore it from a copy"),
        ("https://x.org/y", "download it again"),
    ] {
        assert_eq!(shard(root, &format!("manifest their {about} {source}")).0, Some(0));
        let path = root.join("their/00000.tar");
        let sound = std::fs::read(&path).unwrap();
        let mut changed = sound.clone();
        changed[600] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let (code, _, stderr) = shard(root, "verify m.toml --root their");
        assert_eq!(code, Some(3));
        assert!(stderr.contains(&format!("; {advice}\n")), "{stderr}");
        assert!(stderr.ends_with("\nerror: 1 shard is wrong\n"), "{stderr}");
        std::fs::write(&path, sound).unwrap();
    }
    std::fs::create_dir(root.join("none")).unwrap();
    let (code, _, stderr) = shard(root, &format!("manifest none {about} here"));
    assert_eq!((code, stderr.as_str()), (Some(3), "error: there is no file NAME.tar in none\n"));
}
