//! A run of revision e2aaee0, from before configs had a format: what today's programs continue and measure.
//! `tests/golden/e2aaee0` says how it was made.

use std::path::{Path, PathBuf};

use moco_rng::Seed;
use moco_textures::TexturesConfig;

/// The folder that holds the run.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/e2aaee0")
}

/// Draws the run's data below `root` and copies the run, with its checkpoints up to step `last`, to `runs/old`.
pub(crate) fn old_run(root: &Path, last: u64) {
    let data = root.join("data");
    std::fs::create_dir(&data).unwrap();
    let textures = TexturesConfig { seed: Seed(0), n_train: 64, n_test: 32, n_workers: 1 };
    moco_textures::write(&data, &textures, &mut |_, _| ()).unwrap();
    let (from, to) = (golden().join("run"), root.join("runs/old"));
    std::fs::create_dir_all(to.join("checkpoints")).unwrap();
    let checkpoints = (2..=last).map(|step| format!("checkpoints/step-{step:010}.safetensors"));
    let files = ["config.toml", "metrics.jsonl", "summary.json"].map(String::from);
    for file in files.into_iter().chain(checkpoints) {
        std::fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
}

/// Whether kernels run here with the instruction set that made the run, so that the bits are the same.
pub(crate) fn has_the_same_bits() -> bool {
    let readme = std::fs::read_to_string(golden().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("Instruction set: `").unwrap();
    rest.split('`').next() == Some(moco_ops::instruction_set())
}
