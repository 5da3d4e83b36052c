//! A run knows what it is: its config, its id and its data are in its checkpoints and compared.

use std::path::Path;

use crate::common::{Bench, text};

/// A run of 40 steps under this name, whose newest checkpoint is that of step 35.
fn stopped(bench: &Bench, name: &str, sets: &[&str]) {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["tiny.toml", "--name", name].into_iter().chain(sets).collect();
    bench.finish(&arguments);
    std::fs::remove_file(checkpoint(bench, name, 40)).unwrap();
}

/// Copies a run's folder.
fn copy(bench: &Bench, from: &str, to: &str) {
    let [from, to] = [from, to].map(|name| bench.path(&format!("runs/{name}")));
    let status = std::process::Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.unwrap().success());
}

fn checkpoint(bench: &Bench, name: &str, step: u64) -> std::path::PathBuf {
    bench.path(&format!("runs/{name}/checkpoints/step-{step:010}.safetensors"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Runs, and gives standard error with a line end removed; the exit code must be `code`.
#[track_caller]
fn stderr_of(bench: &Bench, arguments: &[&str], code: i32) -> String {
    let output = bench.run(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr.trim_end().to_owned()
}

fn id(bench: &Bench, name: &str) -> String {
    read(&bench.path(&format!("runs/{name}/run_id"))).trim_end().to_owned()
}

const RESTORE: &str = "--restore-config writes config.toml again with the checkpoint's values; for other \
                       values, --set KEY=VALUE changes what a resume may change, --extend STEPS the \
                       length, and --fork RUN --set KEY=VALUE makes another run";
const FOREIGN: &str =
    "--accept-foreign-checkpoint continues from the state of the other run's checkpoint";
const DATA: &str = "--accept-changed-data continues on the images that are there now; data.root may move \
                    by --set data.root=FOLDER";

#[test]
fn an_edited_config_is_refused_by_its_keys() {
    let bench = Bench::new();
    stopped(&bench, "a", &[]);
    let file = bench.path("runs/a/config.toml");
    let config = read(&file);
    let edited = config.replace("\ndim = 16 ", "\ndim = 8 ").replace("seed = 3 ", "seed = 4 ");
    std::fs::write(&file, &edited).unwrap();
    let expected = format!(
        "error: runs/a does not agree with its checkpoint step-0000000035.safetensors\n  \
         moco.dim: 8 in the run, 16 in the checkpoint\n  \
         run.seed: 4 in the run, 3 in the checkpoint\n  help: {RESTORE}"
    );
    assert_eq!(stderr_of(&bench, &["--resume", "a"], 2), expected);
    assert_eq!(read(&file), edited, "a refusal writes nothing");

    let accepted = stderr_of(&bench, &["--resume", "a", "--restore-config"], 0);
    for line in [
        "warning: accepted: moco.dim: 8 in the run, 16 in the checkpoint\n",
        "config runs/a/config.toml was another one; it was restored from step-0000000035.safetensors\n",
        "continuing from step 35",
    ] {
        assert!(accepted.contains(line), "{accepted}");
    }
    assert_eq!(read(&file), config);
    bench.finish(&["tiny.toml", "--name", "whole"]);
    assert!(bench.state("a") == bench.state("whole"));
}

#[test]
fn a_torn_or_missing_config_is_restored_from_the_checkpoint() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "whole"]);
    let whole = bench.state("whole");
    copy(&bench, "whole", "a");
    std::fs::remove_file(checkpoint(&bench, "a", 40)).unwrap();
    let config = read(&bench.path("runs/a/config.toml"));
    let cut = &config.as_bytes()[..config.len() / 2];
    // Whole lines at the start, so that it is TOML.
    let whole_lines = &config.as_bytes()[..config.find("[moco]").unwrap()];
    for (name, content, reason) in [
        ("missing", None, "missing, or no text"),
        ("empty", Some(&b""[..]), "cut off or damaged"),
        ("cut", Some(cut), "cut off or damaged"),
        ("lines", Some(whole_lines), "cut off or damaged"),
        ("zeros", Some(&[0; 4096]), "cut off or damaged"),
        ("bytes", Some(b"\xff\xfe"), "missing, or no text"),
    ] {
        copy(&bench, "a", name);
        let file = bench.path(&format!("runs/{name}/config.toml"));
        match content {
            None => std::fs::remove_file(&file).unwrap(),
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        let stderr = stderr_of(&bench, &["--resume", name], 0);
        let expected = format!(
            "config runs/{name}/config.toml was {reason}; \
             it was restored from step-0000000035.safetensors\n"
        );
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert_eq!(read(&file), config, "{name}");
        assert!(bench.state(name) == whole, "{name}");
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let bench = Bench::new();
    stopped(&bench, "mine", &[]);
    stopped(&bench, "other", &["run.seed=7", "moco.temperature=0.9"]);
    stopped(&bench, "twin", &[]);
    let (mine, other, twin) = (id(&bench, "mine"), id(&bench, "other"), id(&bench, "twin"));
    assert!(mine != other && mine != twin && mine.len() == 32);
    let replace = |from: &str| {
        for step in [25, 30, 35] {
            drop(std::fs::remove_file(checkpoint(&bench, "mine", step)));
        }
        std::fs::copy(checkpoint(&bench, from, 35), checkpoint(&bench, "mine", 35)).unwrap();
    };
    replace("other");
    let expected = format!(
        "error: runs/mine does not agree with its checkpoint step-0000000035.safetensors\n  \
         run id: {mine} in the run, {other} in the checkpoint\n  \
         moco.temperature: 0.2 in the run, 0.9 in the checkpoint\n  \
         run.seed: 3 in the run, 7 in the checkpoint\n  help: {FOREIGN}\n  help: {RESTORE}"
    );
    assert_eq!(stderr_of(&bench, &["--resume", "mine"], 2), expected);
    // One flag does not accept the other kind.
    let stderr = stderr_of(&bench, &["--resume", "mine", "--restore-config"], 2);
    assert!(stderr.contains("run id") && !stderr.contains("run.seed"), "{stderr}");

    replace("twin");
    let expected = format!(
        "error: runs/mine does not agree with its checkpoint step-0000000035.safetensors\n  \
         run id: {mine} in the run, {twin} in the checkpoint\n  help: {FOREIGN}"
    );
    assert_eq!(stderr_of(&bench, &["--resume", "mine"], 2), expected);
    stderr_of(&bench, &["--resume", "mine", "--accept-foreign-checkpoint"], 0);
    assert_eq!(id(&bench, "mine"), mine);
    // The next checkpoint is the run's own.
    stderr_of(&bench, &["--resume", "mine"], 0);
}

#[test]
fn a_missing_id_is_restored() {
    let bench = Bench::new();
    stopped(&bench, "a", &[]);
    let before = id(&bench, "a");
    std::fs::remove_file(bench.path("runs/a/run_id")).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "a"], 0);
    let expected = format!("run id {before}, restored from the checkpoint; the file was missing\n");
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert_eq!(id(&bench, "a"), before);
}

/// Writes the data set's images with these numbers to a folder of one class.
fn images(bench: &Bench, folder: &str, numbers: std::ops::Range<usize>) {
    let shard = std::fs::read(bench.path("data/train-000000.tar")).unwrap();
    let size = |header: &[u8]| {
        let digits = std::str::from_utf8(&header[124..135]).unwrap();
        usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap()
    };
    let mut at = 0;
    let mut jpegs = Vec::new();
    while at + 512 < shard.len() && shard[at] != 0 {
        let (start, n) = (at + 512, size(&shard[at..]));
        if shard[at..at + 100].windows(4).any(|part| part == b".jpg") {
            jpegs.push(shard[start..start + n].to_vec());
        }
        at = start + n.next_multiple_of(512);
    }
    let class = bench.path(&format!("{folder}/all"));
    std::fs::create_dir_all(&class).unwrap();
    for number in numbers {
        std::fs::write(class.join(format!("{number:04}.jpg")), &jpegs[number]).unwrap();
    }
}

#[test]
fn a_data_folder_that_changed_is_refused() {
    let bench = Bench::new();
    images(&bench, "photos", 0..60);
    let sets = ["data.source=image_folder", "data.root=photos", "monitor.knn_every_steps=0"];
    stopped(&bench, "a", &sets);
    let all = bench.path("photos/all");
    let rename = |from: &str, to: &str| std::fs::rename(all.join(from), all.join(to)).unwrap();
    let digest = |stderr: &str| {
        let (_, rest) = stderr.split_once("training images: ").unwrap();
        let (now, then) = rest.split_once(" in the run, ").unwrap();
        (now.to_owned(), then.split(" in the checkpoint").next().unwrap().to_owned())
    };
    let refused = |name: &str, n_images: usize| {
        copy(&bench, "a", name);
        let stderr = stderr_of(&bench, &["--resume", name], 2);
        let error = stderr.split_once("error: ").unwrap().1;
        let (now, then) = digest(error);
        let expected = format!(
            "runs/{name} does not agree with its checkpoint step-0000000035.safetensors\n  \
             training images: {now} in the run, {then} in the checkpoint\n  help: {DATA}"
        );
        assert_eq!(error, expected);
        assert!(now.starts_with(&format!("{n_images} images of ")), "{now}");
        assert!(then.starts_with("60 images of ") && then.contains("by name and size"), "{then}");
    };
    images(&bench, "photos", 60..61);
    refused("added", 61);
    std::fs::remove_file(all.join("0060.jpg")).unwrap();
    rename("0000.jpg", "zz.jpg");
    refused("renamed", 60);
    std::fs::remove_file(all.join("zz.jpg")).unwrap();
    refused("removed", 59);
    let stderr = stderr_of(&bench, &["--resume", "removed", "--accept-changed-data"], 0);
    assert!(stderr.contains("warning: accepted: training images: 59 images of "), "{stderr}");
    // From then on the run's data is that of today.
    stderr_of(&bench, &["--resume", "removed"], 0);

    // The folder may move; changed content of equal size is not seen, and the line says so.
    images(&bench, "moved", 0..60);
    let mut bytes = std::fs::read(bench.path("moved/all/0007.jpg")).unwrap();
    // Its resolution in dots an inch.
    assert_eq!(&bytes[6..10], b"JFIF");
    bytes[15] ^= 1;
    std::fs::write(bench.path("moved/all/0007.jpg"), bytes).unwrap();
    copy(&bench, "a", "moved-run");
    let stderr = stderr_of(&bench, &["--resume", "moved-run", "--set", "data.root=moved"], 0);
    let line = stderr.lines().find(|line| line.starts_with("data ")).unwrap();
    assert!(line.starts_with("data   as in the checkpoint: 60 images of "), "{line}");
    assert!(line.ends_with("; content that changed while its size stayed is not seen"), "{line}");
}

#[test]
fn shards_are_compared_by_their_checksums() {
    let bench = Bench::new();
    stopped(&bench, "a", &[]);
    let manifest = bench.path("data/manifest.toml");
    let text = read(&manifest);
    let at = text.find("blake3 = \"").unwrap() + "blake3 = \"".len();
    let other = if &text[at..=at] == "0" { "1" } else { "0" };
    std::fs::write(&manifest, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "a", "--set", "data.verify=sizes"], 2);
    assert!(stderr.contains(" in the checkpoint\n") && stderr.ends_with(DATA), "{stderr}");
    assert!(
        stderr.contains("training images: 1 shard of ")
            || stderr.contains("test images: 1 shard of ")
    );
    assert!(stderr.contains(" by checksum, blake3 "), "{stderr}");
    std::fs::write(&manifest, text).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "a"], 0);
    let line = stderr.lines().find(|line| line.starts_with("data ")).unwrap();
    assert!(line.contains(" by checksum, blake3 ") && !line.contains("not seen"), "{line}");
}

#[test]
fn damaged_lines_of_the_metrics_do_not_make_a_run_unusable() {
    let bench = Bench::new();
    stopped(&bench, "a", &[]);
    let file = bench.path("runs/a/metrics.jsonl");
    let lines = read(&file);
    let (first, rest) = lines.split_once('\n').unwrap();
    std::fs::write(&file, format!("{first}\n{{\"step\": 2, \"lo\0\n{rest}{{\"step\":")).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "a"], 0);
    let expected = "warning: 1 damaged lines of runs/a/metrics.jsonl were left out: 2\n";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(bench.steps("a"), (1..=40).collect::<Vec<u64>>());
}

#[test]
fn a_checkpoint_under_the_name_of_another_step_is_reported() {
    let bench = Bench::new();
    stopped(&bench, "a", &[]);
    std::fs::rename(checkpoint(&bench, "a", 30), checkpoint(&bench, "a", 39)).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "a"], 0);
    let expected = "warning: runs/a/checkpoints/step-0000000039.safetensors was passed over: \
                    runs/a/checkpoints/step-0000000039.safetensors holds step 30; if it belongs here, \
                    rename it to step-0000000030.safetensors\n";
    assert!(stderr.contains(expected) && stderr.contains("continuing from step 35"), "{stderr}");
}

#[test]
fn a_name_is_free_after_a_kill_in_the_first_save() {
    let bench = Bench::new();
    let start = ["tiny.toml", "--name", "a"];
    let mut child = bench.start_until(&start, "a", 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let checkpoints = bench.path("runs/a/checkpoints");
    std::fs::remove_dir_all(&checkpoints).unwrap();
    std::fs::create_dir(&checkpoints).unwrap();
    std::fs::write(checkpoints.join(".tmp-5-4711"), "half").unwrap();
    let stderr = stderr_of(&bench, &["--resume", "a"], 3);
    assert_eq!(
        stderr,
        "error: no usable checkpoint in runs/a/checkpoints: the run ended before its first was saved; \
         start it again with --name a"
    );
    bench.finish(&start);
    assert_eq!(bench.steps("a").len(), 40);
    assert!(!checkpoints.join(".tmp-5-4711").exists());
}

#[test]
fn ranks_are_refused() {
    let bench = Bench::new();
    for (name, value, problem) in [
        ("WORLD_SIZE", "2", "a launcher started 2 processes, and there are no ranks yet"),
        ("OMPI_COMM_WORLD_SIZE", "4", "a launcher started 4 processes, and there are no ranks yet"),
        ("PMI_SIZE", "8", "a launcher started 8 processes, and there are no ranks yet"),
        ("SLURM_STEP_NUM_TASKS", "2", "a launcher started 2 processes, and there are no ranks yet"),
    ] {
        let output =
            bench.command(&["tiny.toml", "--name", "a"]).env(name, value).output().unwrap();
        let expected = format!(
            "error: {name} is {value}: {problem}\n  help: this program runs as one process, on one \
             device; start it once, without torchrun, mpirun or srun -n, or unset {name}\n"
        );
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), expected));
        assert!(!bench.path("runs").exists(), "nothing is written");
    }
    let mut one = bench.command(&["tiny.toml", "--name", "a", "--set", "run.steps=1"]);
    one.env("WORLD_SIZE", "1").env("SLURM_NTASKS", "8").env("PMI_SIZE", "");
    let output = one.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
