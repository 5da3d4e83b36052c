//! Runs the binary on a small data set in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use moco_ingest::{Manifest, Payload, ShardSet, Source, Split, Verify};
use moco_rng::Seed;
use moco_textures::TexturesConfig;
use tempfile::TempDir;

/// Small enough for 40 steps in about a second; K is no multiple of the batch, and checkpoints fall
/// into the middle of epochs of 12 steps.
const CONFIG: &str = r#"
format = 3
[run]
seed = 3
steps = 40
precision = "f32"
cuda_graph = false
conv_backend = "auto"
[data]
source = "shards"
root = "DATA"
manifest = "DATA/manifest.toml"
window_shards = 0
verify = "checksums"
readers = 1
decoders = 1
on_bad_sample = "fail"
exif = "ignore"
[augment]
recipe = "v2"
image_size = 16
crop_scale = [0.2, 1.0]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
fidelity = "exact"
finish_on = "cpu"
pairing = "same_image"
[encoder]
arch = "resnet10"
stem = "cifar"
width = 0.0625
head = "mlp"
bn_groups = 2
bn_running = "mean"
[moco]
mechanism = "queue"
queue_size = 40
key_momentum = 0.9
temperature = 0.2
dim = 16
symmetric = false
shuffle_bn = true
queue_precision = "f32"
[optim]
kind = "sgd"
batch_size = 16
base_lr = 0.5
sgd_momentum = 0.9
weight_decay = 1e-4
warmup_epochs = 0
[schedule]
kind = "cosine_per_step"
[log]
every_steps = 1
[checkpoint]
every_steps = 5
keep = 3
[monitor]
knn_every_steps = 20
n_neighbors = 5
temperature = 0.1
bank = 64
[evaluate]
at_end = false
resize = 18
activations = "f32"
linear_epochs = 3
linear_batch_size = 16
linear_lr = 0.1
linear_milestones = [2]
linear_sgd_momentum = 0.9
linear_weight_decay = 0.0
[health]
stop_on_collapse = true
"#;

/// A folder with data, a config and runs.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

/// The data set, written once for all tests of a file.
fn data() -> &'static Path {
    static DATA: OnceLock<TempDir> = OnceLock::new();
    let folder = DATA.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let config = TexturesConfig { seed: Seed(0), n_train: 200, n_test: 64, n_workers: 2 };
        moco_textures::write(folder.path(), &config, &mut |_, _| ()).unwrap();
        folder
    });
    folder.path()
}

impl Bench {
    /// A folder with nothing in it.
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        for entry in std::fs::read_dir(data()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join("data").join(entry.file_name()))
                .unwrap();
        }
        let text = CONFIG.replace("DATA", folder.path().join("data").to_str().unwrap());
        std::fs::write(folder.path().join("tiny.toml"), text).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
        command.current_dir(self.folder.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs to the end and fails with its messages otherwise.
    #[track_caller]
    pub(crate) fn finish(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }

    /// The training images as a folder for each of these classes, `cNN`, below `root`.
    pub(crate) fn folders(&self, root: &str, classes: impl Iterator<Item = u32>) {
        let data = self.path("data");
        let manifest = Manifest::load(&data.join("manifest.toml")).unwrap();
        let shards = ShardSet::open(&data, &manifest, Split::Train, Verify::Sizes).unwrap();
        for class in classes {
            let folder = self.path(root).join(format!("c{class:02}"));
            std::fs::create_dir_all(&folder).unwrap();
            for i in (0..shards.len()).filter(|i| shards.label(*i).unwrap() == Some(class)) {
                let image = shards.read(i).unwrap();
                let Payload::Encoded(jpeg) = image.payload else { panic!("{} is raw", image.key) };
                std::fs::write(folder.join(format!("{i:04}.jpg")), jpeg).unwrap();
            }
        }
    }

    /// A run on the images below the folders `train` and `test`.
    pub(crate) fn run_on_folders(&self, name: &str, sets: &[&str]) -> Output {
        let of_folders = ["data.source=image_folder", "data.root=train", "data.test_root=test"];
        let sets = of_folders.iter().chain(sets).flat_map(|&set| ["--set", set]);
        let arguments: Vec<&str> = ["tiny.toml", "--name", name].into_iter().chain(sets).collect();
        self.run(&arguments)
    }

    /// The summary of a run.
    pub(crate) fn summary(&self, run: &str) -> serde_json::Value {
        let file = self.path("runs").join(run).join("summary.json");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    /// Starts a run and returns when its metrics contain `step`, or it has ended.
    pub(crate) fn start_until(&self, arguments: &[&str], run: &str, step: u64) -> Child {
        let mut child = self.command(arguments).spawn().unwrap();
        while self.steps(run).last().is_none_or(|last| *last < step) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        child
    }

    /// The steps of the log lines.
    pub(crate) fn steps(&self, run: &str) -> Vec<u64> {
        let text = std::fs::read_to_string(self.path("runs").join(run).join("metrics.jsonl"));
        let text = text.unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let steps = lines.filter(|line: &serde_json::Value| line["loss"].is_number());
        steps.map(|line| line["step"].as_u64().unwrap()).collect()
    }

    /// The bytes of every tensor of a run's newest checkpoint, with its step.
    pub(crate) fn state(&self, run: &str) -> (u64, Vec<(String, Vec<u8>)>) {
        let newest =
            moco_checkpoint::newest_valid(&self.path("runs").join(run).join("checkpoints"));
        let checkpoint = newest.unwrap().checkpoint;
        let tensors = checkpoint.tensors().unwrap();
        let mut all: Vec<(String, Vec<u8>)> =
            tensors.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect();
        all.sort();
        (checkpoint.global_step, all)
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
