//! Opens the images that a plan names.

use std::path::Path;
use std::sync::Arc;

use moco_datasets::{Cifar10, Mnist};
use moco_ingest::{ImageFolder, Manifest, ShardSet, Source, Split, Verify};
use moco_textures::TexturesConfig;

use crate::error::{OnFile, TrainError};
use crate::measure::Labeled;
use crate::plan::DataPlan;

/// The images of a run.
#[derive(Clone)]
pub struct Sources {
    /// What the encoder is trained on; its labels are not looked at.
    pub train: Arc<dyn Source>,
    /// The splits for evaluation, where there are labels.
    pub labeled: Option<Labeled>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.train.len();
        f.debug_struct("Sources").field("train", &n).field("labeled", &self.labeled).finish()
    }
}

/// Opens the sources of a plan. Shards of the embedded data set that are not there yet are generated
/// first and must come out as the manifest says.
///
/// # Errors
/// If files are missing or not what they should be.
pub fn open_sources(plan: &DataPlan, n_workers: usize) -> Result<Sources, TrainError> {
    match plan {
        DataPlan::Shards { root, manifest, verify_checksums } => {
            let manifest = Manifest::load(manifest)?;
            if manifest.generator.as_deref() == Some("textures") {
                generate_if_missing(root, &manifest, n_workers)?;
            }
            let verify = if *verify_checksums { Verify::Checksums } else { Verify::Sizes };
            let open = |split| ShardSet::open(root, &manifest, split, verify).map(Arc::new);
            let train: Arc<dyn Source> = open(Split::Train)?;
            let labeled = if manifest.shards(Split::Test).is_empty() {
                None
            } else {
                Some(Labeled { train: Arc::clone(&train), test: open(Split::Test)? })
            };
            Ok(Sources { train, labeled })
        }
        DataPlan::ImageFolder { root, test_root } => {
            let open = |root: &Path| ImageFolder::open(root).map(Arc::new);
            let train: Arc<dyn Source> = open(root)?;
            match test_root {
                None => Ok(Sources { train, labeled: None }),
                Some(test_root) => Ok(pair(train, open(test_root)?)),
            }
        }
        DataPlan::Cifar10 { root } => Ok(pair(
            Arc::new(Cifar10::open(root, Split::Train)?),
            Arc::new(Cifar10::open(root, Split::Test)?),
        )),
        DataPlan::Mnist { root } => Ok(pair(
            Arc::new(Mnist::open(root, Split::Train)?),
            Arc::new(Mnist::open(root, Split::Test)?),
        )),
    }
}

fn pair(train: Arc<dyn Source>, test: Arc<dyn Source>) -> Sources {
    Sources { labeled: Some(Labeled { train: Arc::clone(&train), test }), train }
}

/// Only an absent or empty folder is filled: a shard that is missing from a used one is an error that
/// the reader reports.
fn generate_if_missing(
    root: &Path,
    manifest: &Manifest,
    n_workers: usize,
) -> Result<(), TrainError> {
    let is_used = manifest.shards(Split::Train).iter().any(|entry| root.join(&entry.file).exists());
    if is_used {
        return Ok(());
    }
    std::fs::create_dir_all(root).on_file("create", root)?;
    moco_textures::write(root, &TexturesConfig::standard(n_workers), &mut |_, _| ())?;
    Ok(())
}
