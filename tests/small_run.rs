//! A run of a few steps on a small data set, made by the library: what the stages that follow work on.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use moco_rng::Seed;
use moco_textures::TexturesConfig;
use moco_train::{Control, Outcome, RunFolder, Start, Summary, pretrain};

/// Writes data and a run called `small` below `root`, with overrides of its config, and gives its summary.
pub(crate) fn small_run(root: &Path, sets: &[&str]) -> Summary {
    let data = root.join("data");
    std::fs::create_dir(&data).unwrap();
    let textures = TexturesConfig { seed: Seed(0), n_train: 160, n_test: 80, n_workers: 2 };
    moco_textures::write(&data, &textures, &mut |_, _| ()).unwrap();
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/pretrain/default.toml");
    let small = [
        format!("data.root={:?}", data.display().to_string()),
        format!("data.manifest={:?}", data.join("manifest.toml").display().to_string()),
        "run.steps=4".into(),
        "moco.queue_size=64".into(),
        "evaluate.linear_epochs=5".into(),
        "evaluate.linear_milestones=[3]".into(),
        "monitor.n_neighbors=7".into(),
    ];
    let sets: Vec<String> = small.into_iter().chain(sets.iter().map(|&set| set.into())).collect();
    let loaded = moco_config::load_pretrain(Path::new(default), &sets).unwrap();
    let device = moco_cli::Device::Cpu.open(moco_ops::Precision::F32).unwrap();
    let components = moco_cli::components(&loaded, &device).unwrap();
    let folder = RunFolder::create(&root.join("runs"), "small", &loaded.resolved).unwrap();
    let control = Control { stop: &AtomicBool::new(false), observe: &mut |_| () };
    match pretrain(&loaded.plan, components, &folder, Start::New, control).unwrap() {
        Outcome::Finished(summary) => *summary,
        Outcome::PartlyMeasured { error, .. } => panic!("{error}"),
        Outcome::Stopped { .. } => panic!("nobody asked it to stop"),
    }
}
