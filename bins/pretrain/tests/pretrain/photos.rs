//! A folder as people have them: photos at any depth, and all kinds of other things.

use moco_ingest::{Manifest, Payload, ShardPlace, ShardSet, Source as _, Split};

use crate::common::{Bench, text};

/// 40 photos in three folders, one of them cut, and what systems and people put beside photos.
fn photos(bench: &Bench) {
    let manifest = Manifest::load(&bench.path("data/manifest.toml")).unwrap();
    let place = ShardPlace::Folder(bench.path("data"));
    let images = ShardSet::lazy(place, &manifest, Split::Train).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = bench.path("photos").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for i in 0..40 {
        let file = match images.read(i).unwrap().payload {
            Payload::Encoded(file) => file,
            Payload::Rgb { pixels, .. } => pixels,
        };
        let (folder, extension) = (
            ["", "2024/", "2024/may/"][i as usize % 3],
            ["jpg", "JPG", "jfif", "png"][i as usize % 4],
        );
        let n = if i == 7 { file.len() / 2 } else { file.len() };
        write(&format!("{folder}IMG {i}.{extension}"), &file[..n]);
    }
    for name in [".DS_Store", "2024/._IMG 1.jpg", "2024/Thumbs.db", "@eaDir/1.jpg", "notes.txt"] {
        write(name, b"no image");
    }
    for name in ["2024/1.heic", "2024/2.HEIC", "raw.dng"] {
        write(name, b"an image");
    }
    std::os::unix::fs::symlink("/nonexistent.jpg", bench.path("photos/gone.jpg")).unwrap();
    std::os::unix::fs::symlink("..", bench.path("photos/2024/up")).unwrap();
    let pipe = bench.path("photos/pipe.jpg");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
}

#[test]
fn an_unusable_folder_is_answered_by_one_table_and_the_rest_of_it_trains() {
    let bench = Bench::new();
    photos(&bench);
    let start = |more: &[&'static str]| {
        let sets =
            ["data.source=unlabeled_folder", "data.root=photos", "monitor.knn_every_steps=0"];
        let sets = sets.iter().chain(more).flat_map(|set| ["--set", set]);
        bench.run(&["tiny.toml", "--name", "x"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    let output = start(&[]);
    let expected = "error: photos holds 5 images that cannot be used:\n      1  .dng (raw.dng)\n      2  .heic \
                    (2024/1.heic, 2024/2.HEIC)\n      1  link to nothing (gone.jpg)\n      1  pipe, socket or device \
                    (pipe.jpg)\n  convert or remove them, or leave them out by data.on_bad_sample = \"skip\" and \
                    data.bad_sample_budget = 100 or more (`shard make`: --skip-bad 5); `cargo xtask doctor photos` \
                    says what else the folder holds, and which images are broken\n";
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.ends_with(expected), "{stderr}");

    let output = start(&["data.on_bad_sample=skip", "data.bad_sample_budget=100"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let line = "data   no training images: 1 × .dng (raw.dng), 2 × .heic (2024/1.heic, 2024/2.HEIC), 1 × link to \
                nothing (gone.jpg), 1 × pipe, socket or device (pipe.jpg), 4 × hidden or system file (.DS_Store, \
                @eaDir, 2024/._IMG 1.jpg, …), 1 × link back (2024/up), 1 × other file (notes.txt)\n";
    assert!(stderr.contains(line), "{stderr}");
    assert!(stderr.contains(" on 40 images"), "{stderr}");
    let listed = std::fs::read_to_string(bench.path("runs/x/bad_samples.txt")).unwrap();
    let reason = "photos/2024/IMG 7.png\tJPEG image is truncated: the data ends after ";
    assert!(listed.starts_with(reason) && listed.lines().count() == 1, "{listed}");
    assert!(
        std::fs::read_to_string(bench.path("runs/x/run.log")).unwrap().contains(line.trim_end())
    );
}
