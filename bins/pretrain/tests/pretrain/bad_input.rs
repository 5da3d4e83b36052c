//! Whatever is wrong: what it says, and the exit code.

use moco_ingest::{Manifest, Payload, Sampler, ShardPlace, ShardSet, Source as _, Split};
use moco_rng::Seed;

use crate::common::{Bench, text};

/// Runs and compares exit code and message.
#[track_caller]
fn check(bench: &Bench, arguments: &[&str], code: i32, expected: &[&str]) {
    let output = bench.run(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    for part in expected {
        assert!(stderr.contains(part), "{arguments:?} lacks {part:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "no escape bytes off a terminal: {stderr:?}");
}

fn shard(bench: &Bench) -> std::path::PathBuf {
    bench.path("data/train-000000.tar")
}

#[test]
fn shards_that_are_missing_cut_or_changed() {
    let bench = Bench::new();
    let bytes = std::fs::read(shard(&bench)).unwrap();
    let start = ["tiny.toml", "--name", "x"];

    std::fs::write(shard(&bench), &bytes[..bytes.len() / 2]).unwrap();
    check(&bench, &start, 3, &["train-000000.tar", "truncated"]);

    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(shard(&bench), &flipped).unwrap();
    check(&bench, &start, 3, &["train-000000.tar", "blake3"]);

    // What comes from elsewhere is not drawn in its place.
    let mut manifest = std::fs::read_to_string(bench.path("data/manifest.toml")).unwrap();
    manifest = manifest.replace("generator = \"textures\"\n", "");
    std::fs::write(bench.path("data/manifest.toml"), manifest).unwrap();
    std::fs::remove_file(shard(&bench)).unwrap();
    check(&bench, &start, 3, &["train-000000.tar", "missing"]);

    // A run that could not start does not block its name.
    std::fs::write(shard(&bench), &bytes).unwrap();
    bench.finish(&["tiny.toml", "--name", "x", "--set", "run.steps=1"]);
}

/// Drawing may be interrupted at any shard. Shards of another data set get none of the embedded one beside them.
#[test]
fn shards_of_the_embedded_data_set_are_drawn_where_they_are_missing() {
    let bench = Bench::new();
    let manifest = concat!(
        "data.manifest=",
        env!("CARGO_MANIFEST_DIR"),
        "/../../data-manifests/textures.toml"
    );
    let sets = ["--set", manifest, "--set", "run.steps=1", "--set", "monitor.knn_every_steps=0"];
    let start = [&["tiny.toml", "--set", "data.root=drawn"][..], &sets].concat();
    std::fs::create_dir(bench.path("drawn")).unwrap();
    std::fs::write(bench.path("drawn/train-000000.tar.partial"), "cut off").unwrap();
    bench.finish(&[&start[..], &["--name", "first"]].concat());
    let shard = |name: &str| bench.path("drawn").join(name);
    let bytes = std::fs::read(shard("train-000003.tar")).unwrap();

    std::fs::remove_file(shard("train-000003.tar")).unwrap();
    std::fs::copy(bench.path("data/train-000000.tar"), shard("train-000001.tar")).unwrap();
    let again = "train-000001.tar has the wrong size: expected ";
    let hint = "; delete it, and `pretrain` draws it again";
    check(&bench, &[&start[..], &["--name", "x"]].concat(), 3, &[again, hint]);
    assert!(!shard("train-000003.tar").exists());

    std::fs::remove_file(shard("train-000001.tar")).unwrap();
    bench.finish(&[&start[..], &["--name", "x"]].concat());
    assert!(std::fs::read(shard("train-000003.tar")).unwrap() == bytes);
}

#[test]
fn an_image_that_does_not_decode_ends_the_run_with_its_name() {
    let bench = Bench::new();
    let mut bytes = std::fs::read(shard(&bench)).unwrap();
    // The body of the first image, after its 512-byte header, no longer starts like a JPEG.
    bytes[512..516].copy_from_slice(b"none");
    std::fs::write(shard(&bench), bytes).unwrap();
    let sets = ["--set", "data.verify=sizes"];
    let arguments = [&["tiny.toml", "--name", "x"][..], &sets[..]].concat();
    check(
        &bench,
        &arguments,
        3,
        &["stage `decode", "train-000000.tar/000000", "no JPEG, PNG, WebP, BMP, TIFF or GIF"],
    );
}

/// Where the first bytes are of the image that comes at `position`.
fn image_at(bench: &Bench, position: u64) -> (String, usize) {
    let manifest = Manifest::load(&bench.path("data/manifest.toml")).unwrap();
    let place = ShardPlace::Folder(bench.path("data"));
    let images = ShardSet::lazy(place, &manifest, Split::Train).unwrap();
    let index = Sampler::new(Seed(3), 200, 16).unwrap().slot(position).sample_index;
    let sample = images.read(index).unwrap();
    let image = match sample.payload {
        Payload::Encoded(file) => file,
        Payload::Rgb { pixels, .. } => pixels,
    };
    let shard = std::fs::read(shard(bench)).unwrap();
    let start = shard.windows(image.len()).position(|window| window == image).unwrap();
    (sample.key.to_string(), start)
}

#[test]
fn a_bad_image_in_the_middle_saves_the_run_and_names_the_two_ways_on() {
    let bench = Bench::new();
    let sound = std::fs::read(shard(&bench)).unwrap();
    // The first image of the eighth batch; checkpoints are due each fifth step.
    let (key, start) = image_at(&bench, 7 * 16);
    let mut damaged = sound.clone();
    damaged[start..start + 4].copy_from_slice(b"none");
    std::fs::write(shard(&bench), &damaged).unwrap();
    let sets = ["--set", "data.verify=sizes", "--set", "monitor.knn_every_steps=0"];
    let output = bench.run(&[&["tiny.toml", "--name", "x"][..], &sets].concat());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let skip = "--resume x --set data.on_bad_sample=skip --set data.bad_sample_budget=100";
    let expected = format!(
        "error: an image cannot be used; step 7 is saved; repair the image and continue by --resume x, or \
         leave out up to 100 such images by {skip}; `cargo xtask doctor FOLDER` names all such images of a folder, \
         and `cargo xtask shard verify --decode` those of shards\n  cause: stage `decode-0`: image {key}: \
         image is no JPEG, PNG, WebP, BMP, TIFF or GIF: "
    );
    assert!(stderr.contains(&expected), "{stderr}");
    assert_eq!(bench.state("x").0, 7);

    // Resumed with the same fault, it says the same and has nothing to save.
    let output = bench.run(&["--resume", "x"]);
    assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
    assert_eq!(bench.state("x").0, 7);

    // Both ways lead to the end.
    std::fs::create_dir(bench.path("copy")).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-r", "runs/x", "copy/x"])
        .current_dir(bench.folder.path())
        .status();
    assert!(copied.unwrap().success());
    bench.finish(&skip.split(' ').collect::<Vec<_>>());
    let listed = std::fs::read_to_string(bench.path("runs/x/bad_samples.txt")).unwrap();
    let reason =
        "image is no JPEG, PNG, WebP, BMP, TIFF or GIF: its first bytes are [6e, 6f, 6e, 65";
    assert!(listed.starts_with(&format!("{key}\t{reason}")), "{listed}");
    assert_eq!(listed.lines().count(), 1, "each image once: {listed}");
    std::fs::write(shard(&bench), &sound).unwrap();
    bench.finish(&["--resume", "x", "--runs", "copy"]);
    std::fs::remove_dir_all(bench.path("runs")).unwrap();
    bench.finish(&[&["tiny.toml", "--name", "x"][..], &sets].concat());
    let whole = bench.state("x");
    std::fs::remove_dir_all(bench.path("runs")).unwrap();
    std::fs::rename(bench.path("copy"), bench.path("runs")).unwrap();
    assert!(bench.state("x") == whole, "repaired and resumed, the run is the one without a fault");
}

#[test]
fn a_run_that_fails_before_its_first_step_leaves_no_folder() {
    let bench = Bench::new();
    let bytes = std::fs::read(shard(&bench)).unwrap();
    let start = |more: &[&'static str]| {
        let sets = more.iter().flat_map(|set| ["--set", set]);
        ["tiny.toml", "--name", "x"].into_iter().chain(sets).collect::<Vec<_>>()
    };
    let whole = ["data.verify=sizes", "optim.batch_size=200", "moco.queue_size=200"];
    for (damaged, more, code, expected) in [
        (None, &["optim.batch_size=202"][..], 2, "a batch of 202 samples cannot be drawn from 200"),
        (Some(0), &[], 3, "train-000000.tar"),
        // All images are in the first batch.
        (Some(512), &whole, 3, "no JPEG, PNG, WebP, BMP, TIFF or GIF"),
    ] {
        let mut now = bytes.clone();
        if let Some(at) = damaged {
            now[at] ^= 1;
        }
        std::fs::write(shard(&bench), now).unwrap();
        check(&bench, &start(more), code, &[expected]);
        assert_eq!(std::fs::read_dir(bench.path("runs")).unwrap().count(), 0, "{expected}");
    }
    std::fs::write(shard(&bench), bytes).unwrap();
    bench.finish(&start(&["run.steps=1"]));
}

#[test]
fn bad_images_are_skipped_within_a_budget_that_outlives_a_resume() {
    let bench = Bench::new();
    let mut bytes = std::fs::read(shard(&bench)).unwrap();
    bytes[512..516].copy_from_slice(b"none");
    std::fs::write(shard(&bench), bytes).unwrap();
    let sets = |budget| {
        let sets = ["data.verify=sizes", "data.on_bad_sample=skip", "monitor.knn_every_steps=0"];
        let sets =
            sets.map(str::to_owned).into_iter().chain([format!("data.bad_sample_budget={budget}")]);
        sets.flat_map(|set| ["--set".to_owned(), set]).collect::<Vec<_>>()
    };
    let start = |name: &str, budget: u64| {
        let mut arguments = vec!["tiny.toml".to_owned(), "--name".to_owned(), name.to_owned()];
        arguments.extend(sets(budget));
        bench.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // The image is met once in each of the three epochs, but where the last batch is dropped.
    let output = start("whole", 9);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for part in ["skipped bad sample 1: image train-000000.tar/000000", "JPEG"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    let log = std::fs::read_to_string(bench.path("runs/whole/run.log")).unwrap();
    assert!(log.contains("skipped bad sample 2: image train-000000.tar/000000"));
    let log = std::fs::read_to_string(bench.path("runs/whole/metrics.jsonl")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let counts: Vec<u64> =
        lines.filter_map(|line: serde_json::Value| line["bad_samples"].as_u64()).collect();
    assert_eq!(counts.len(), 40);
    assert!(counts.is_sorted() && counts[0] <= 1 && (2..=4).contains(&counts[39]), "{counts:?}");

    let over = [
        "2 bad samples are over data.bad_sample_budget = 1; the last one was image train-000000.tar/000000",
        "; repair the data, or raise the budget and resume",
    ];
    let output = start("cut", 1);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(over.iter().all(|part| stderr.contains(part)), "{stderr}");
    let log = std::fs::read_to_string(bench.path("runs/cut/run.log")).unwrap();
    let last = log.lines().rfind(|line| line.contains(" ERROR ")).unwrap();
    assert!(last.contains(over[0]), "the log has the error that ended the run: {log}");
    // The checkpoint holds the state and the count before the batch that was over the budget.
    let before = counts.iter().position(|n| *n == 2).unwrap() as u64;
    assert_eq!(bench.state("cut").0, before);
    check(&bench, &["--resume", "cut"], 3, &over);
    bench.finish(&["--resume", "cut", "--set", "data.bad_sample_budget=9"]);
    assert!(bench.state("cut") == bench.state("whole"));
}

#[test]
fn configs() {
    let bench = Bench::new();
    let set = |set| ["tiny.toml", "--set", set];
    check(
        &bench,
        &set("moco.queue_sise=7"),
        2,
        &["unknown key `moco.queue_sise`", "queue_size", "--set"],
    );
    check(&bench, &set("moco.temperature=0"), 2, &["moco.temperature", "--set"]);
    check(&bench, &set("encoder.arch=resnet51"), 2, &["resnet50", "--set"]);
    check(&bench, &["nowhere.toml"], 2, &["cannot read config nowhere.toml"]);
    let tiny = std::fs::read_to_string(bench.path("tiny.toml")).unwrap();
    std::fs::write(bench.path("bad.toml"), tiny.replace("dim = 16", "dim = \"wide\"")).unwrap();
    let line = 1 + tiny.lines().position(|line| line == "dim = 16").unwrap();
    check(&bench, &["bad.toml"], 2, &[&format!("bad.toml:{line}:7"), "moco.dim"]);
    check(&bench, &["tiny.toml", "--devise", "cpu"], 2, &["--device"]);
    check(&bench, &["tiny.toml", "--device", "gpu"], 2, &["expected cpu or cuda:N"]);
    check(
        &bench,
        &["tiny.toml", "--device", "cuda:0"],
        3,
        &["cuda:0 is not available", "--device cpu"],
    );
    for (set, expected) in [
        ("run.precision=bf16", "run.precision must be \"f32\" on the CPU"),
        ("run.cuda_graph=true", "run.cuda_graph = true needs"),
        ("augment.finish_on=gpu", "augment.finish_on = \"gpu\" needs"),
        ("moco.queue_precision=bf16", "moco.queue_precision must be \"f32\" on the CPU"),
    ] {
        check(&bench, &["tiny.toml", "--set", set], 2, &[expected, "--device cuda:N"]);
    }
    check(&bench, &set("moco.queue_size=10"), 2, &["16 keys a step do not fit a queue of 10"]);
    check(&bench, &set("optim.batch_size=400"), 2, &["400"]);
}

#[test]
fn runs_that_exist_do_not_exist_or_would_change() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "first", "--set", "run.steps=12"]);
    let expected =
        "runs/first exists already; choose another --name, or continue it with --resume first";
    check(&bench, &["tiny.toml", "--name", "first"], 2, &[expected]);
    check(&bench, &["--resume", "frist"], 2, &["no run at", "runs there are: first"]);
    check(
        &bench,
        &["--resume", "first", "--set", "moco.queue_size=48"],
        2,
        &["first was trained with moco.queue_size = 40", "moco.queue_size=48", "may change"],
    );
    std::fs::remove_dir_all(bench.path("runs/first/checkpoints")).unwrap();
    check(&bench, &["--resume", "first"], 3, &["no usable checkpoint", "--name first"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "whole"]);
    let newest = bench.path("runs/whole/checkpoints/step-0000000040.safetensors");
    let whole = bench.state("whole");
    let mut bytes = std::fs::read(&newest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let output = bench.run(&["--resume", "whole"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("step-0000000040.safetensors was passed over"), "{stderr}");
    assert!(stderr.contains("continuing from step 35"), "{stderr}");
    assert!(bench.state("whole") == whole);
}

#[test]
fn places_that_cannot_be_written() {
    let bench = Bench::new();
    std::fs::write(bench.path("file"), "no folder").unwrap();
    check(&bench, &["tiny.toml", "--runs", "file"], 3, &["cannot create the run folder file/"]);
    // A file may not grow over 64 blocks of 512 bytes: what a full disk does to a checkpoint.
    let pretrain = env!("CARGO_BIN_EXE_pretrain");
    let mut shell = bench.command(&[]);
    shell = {
        let mut command = std::process::Command::new("sh");
        command.current_dir(shell.get_current_dir().unwrap());
        command.args(["-c", &format!("ulimit -f 64; exec {pretrain} tiny.toml --name full")]);
        command
    };
    let output = shell.output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("stage `checkpoint`"), "{stderr}");
    assert!(bench.steps("full").len() >= 5, "the steps before were done");
    let left = std::fs::read_dir(bench.path("runs/full/checkpoints")).unwrap().count();
    assert_eq!(left, 0, "no half checkpoint stays");
}

#[test]
fn health_rules_stop_with_code_4() {
    let bench = Bench::new();
    let sets = ["--set", "optim.base_lr=1e30", "--set", "run.steps=400"];
    let arguments = [&["tiny.toml", "--name", "nan"][..], &sets[..]].concat();
    check(&bench, &arguments, 4, &["the loss is", "lower optim.base_lr"]);
}
