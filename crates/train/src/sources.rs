//! Opens the images that a plan names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moco_feed::WorkerPlan;
use moco_ingest::{
    ImageFolder, ImageNet, IndexFiles, IngestError, Layout, Manifest, OnBadSample, ShardCache,
    ShardPlace, ShardSet, Source, Split, Store, Verify, with_labels_of,
};
use moco_textures::TexturesConfig;

use crate::error::{OnFile, TrainError};
use crate::measure::Labeled;

/// Shards that are fetched from a store at a time.
const FETCHERS: usize = 4;

/// The location of the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataPlan {
    /// Tar shards listed in a manifest.
    Shards {
        /// Their location.
        place: ShardsPlan,
        /// The manifest, a file on this machine.
        manifest: PathBuf,
    },
    /// Image files in folders.
    ImageFolder {
        /// Folder with the training images.
        root: PathBuf,
        /// Whether the folders in it are classes.
        layout: Layout,
        /// Folder with the test images, of the same classes.
        test_root: Option<PathBuf>,
        /// The policy for images that look unusable.
        on_bad_sample: OnBadSample,
    },
    /// The archives of ImageNet in a folder, as they are distributed.
    ImageNet {
        /// Folder with `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and
        /// `ILSVRC2012_devkit_t12.tar.gz`.
        root: PathBuf,
    },
    /// CIFAR-10's binary files in a folder.
    Cifar10 {
        /// Folder with `data_batch_1.bin` … `test_batch.bin`.
        root: PathBuf,
    },
    /// MNIST's idx files in a folder.
    Mnist {
        /// Folder with `train-images-idx3-ubyte` and its three siblings.
        root: PathBuf,
    },
}

/// The properties of shards in a folder that are compared with the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCheck {
    /// All bytes, before the run.
    Checksums,
    /// Length and members, before the run.
    Sizes,
    /// Length and members of a shard when its first sample is read: the start does not depend on the
    /// number of shards.
    WhenRead,
}

/// The location of tar shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardsPlan {
    /// In a folder.
    Folder {
        /// The folder.
        root: PathBuf,
        /// The properties that are compared with the manifest, and when.
        check: ShardCheck,
    },
    /// On a store, from which whole shards are fetched to a local disk.
    Cached {
        /// Address of the store.
        address: String,
        /// Folder that holds the shards while they are used.
        cache: PathBuf,
        /// Bytes that it may hold.
        cache_bytes: u64,
    },
    /// On a store, from which images are fetched one by one.
    Ranges {
        /// Address of the store.
        address: String,
    },
}

/// The images of a run.
#[derive(Clone)]
pub struct Sources {
    /// The training images; their labels are not read.
    pub train: Arc<dyn Source>,
    /// The splits for evaluation, where there are labels.
    pub labeled: Option<Labeled>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.train.len();
        f.debug_struct("Sources").field("train", &n).field("labeled", &self.labeled).finish()
    }
}

/// Opens the store at an address; the caller supplies credentials.
pub type OpenStore<'a> = &'a dyn Fn(&str) -> Result<Arc<dyn Store>, TrainError>;

/// Called with what is being done, how much of it is done, and how much there is.
pub type Preparing<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// The callbacks of the program that opens data.
pub struct DataAccess<'a> {
    /// Opens stores; [`no_store`] where there are none.
    pub open_store: OpenStore<'a>,
    /// Shows the progress of what takes long: drawing the embedded data set, indexing
    /// archives, encoding images.
    pub preparing: Preparing<'a>,
}

impl fmt::Debug for DataAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataAccess").finish_non_exhaustive()
    }
}

/// Opens no store, for programs whose data is on this machine.
///
/// # Errors
/// Always.
pub fn no_store(address: &str) -> Result<Arc<dyn Store>, TrainError> {
    let problem = "this program reads data from folders only".to_owned();
    Err(IngestError::StoreUnfit { store: address.to_owned(), problem }.into())
}

/// Opens the sources of a plan, with as many threads as the data stages have. Shards of the
/// embedded data set that are not there are generated first and must come out as the manifest says.
///
/// # Errors
/// If files are missing or not what they should be.
pub fn open_sources(
    plan: &DataPlan,
    workers: WorkerPlan,
    access: DataAccess<'_>,
) -> Result<Sources, TrainError> {
    tracing::debug!("opening {plan:?}");
    match plan {
        DataPlan::Shards { place, manifest } => {
            let manifest = Manifest::load(manifest)?;
            open_shards(place, &manifest, workers, access)
        }
        DataPlan::ImageNet { root } => open_imagenet(root, access.preparing),
        DataPlan::ImageFolder { root, layout, test_root, on_bad_sample } => {
            let open = |root: &Path| ImageFolder::open(root, *layout, *on_bad_sample).map(Arc::new);
            let train: Arc<dyn Source> = open(root)?;
            match test_root {
                None => Ok(Sources { train, labeled: None }),
                Some(test_root) => pair_by_name(train, open(test_root)?, test_root),
            }
        }
        DataPlan::Cifar10 { root } => open_cifar10(root),
        DataPlan::Mnist { root } => open_mnist(root),
    }
}

#[cfg(feature = "cifar")]
fn open_cifar10(root: &Path) -> Result<Sources, TrainError> {
    let open = |split| moco_datasets::Cifar10::open(root, split).map(Arc::new);
    Ok(pair(open(Split::Train)?, open(Split::Test)?))
}

#[cfg(feature = "cifar")]
fn open_mnist(root: &Path) -> Result<Sources, TrainError> {
    let open = |split| moco_datasets::Mnist::open(root, split).map(Arc::new);
    Ok(pair(open(Split::Train)?, open(Split::Test)?))
}

#[cfg(not(feature = "cifar"))]
fn open_cifar10(_: &Path) -> Result<Sources, TrainError> {
    Err(TrainError::NoReader { data_source: "cifar10" })
}

#[cfg(not(feature = "cifar"))]
fn open_mnist(_: &Path) -> Result<Sources, TrainError> {
    Err(TrainError::NoReader { data_source: "mnist" })
}

fn open_shards(
    place: &ShardsPlan,
    manifest: &Manifest,
    workers: WorkerPlan,
    access: DataAccess<'_>,
) -> Result<Sources, TrainError> {
    let DataAccess { open_store, preparing } = access;
    let both = |open: &dyn Fn(Split) -> Result<ShardSet, IngestError>| {
        let train: Arc<dyn Source> = Arc::new(open(Split::Train)?);
        if manifest.shards(Split::Test).is_empty() {
            return Ok(Sources { train, labeled: None });
        }
        Ok(pair(train, Arc::new(open(Split::Test)?)))
    };
    let place = match place {
        ShardsPlan::Folder { root, check } => {
            if manifest.generator.as_deref() == Some("textures") {
                generate_if_missing(root, manifest, workers, preparing)?;
            }
            let open = |verify| both(&|split| ShardSet::open(root, manifest, split, verify));
            match check {
                ShardCheck::Checksums => return open(Verify::Checksums),
                ShardCheck::Sizes => return open(Verify::Sizes),
                ShardCheck::WhenRead => ShardPlace::Folder(root.clone()),
            }
        }
        ShardsPlan::Cached { address, cache, cache_bytes } => {
            let store = open_store(address)?;
            let cache = ShardCache::open(store, cache, *cache_bytes, FETCHERS)?;
            ShardPlace::Cached(Arc::new(cache))
        }
        ShardsPlan::Ranges { address } => ShardPlace::Ranges(open_store(address)?),
    };
    both(&|split| ShardSet::lazy(place.clone(), manifest, split))
}

fn open_imagenet(root: &Path, preparing: Preparing<'_>) -> Result<Sources, TrainError> {
    let archive = |name| root.join(format!("ILSVRC2012_{name}"));
    let mut indexing = |done, total| preparing("bytes of the training archive", done, total);
    let train = ImageNet::train(&archive("img_train.tar"), IndexFiles::Beside, &mut indexing)?;
    let (images, devkit) = (archive("img_val.tar"), archive("devkit_t12.tar.gz"));
    let test = ImageNet::validation(&images, &devkit, IndexFiles::Beside)?;
    pair_by_name(Arc::new(train), Arc::new(test), &devkit)
}

/// Splits whose classes were numbered each by itself; `place` is where the test images are.
fn pair_by_name(
    train: Arc<dyn Source>,
    test: Arc<dyn Source>,
    place: &Path,
) -> Result<Sources, TrainError> {
    let test = with_labels_of(train.as_ref(), test, place)?;
    Ok(pair(train, test))
}

/// Splits of one numbering of classes.
fn pair(train: Arc<dyn Source>, test: Arc<dyn Source>) -> Sources {
    Sources { labeled: Some(Labeled { train: Arc::clone(&train), test }), train }
}

/// Draws the shards that are not there: all of them in a new folder, the rest where drawing was interrupted.
///
/// A shard has its name only when it is complete, so one of another size is not of an interrupted drawing but
/// of another data set; nothing is written beside it, and the reader reports it.
fn generate_if_missing(
    root: &Path,
    manifest: &Manifest,
    workers: WorkerPlan,
    preparing: Preparing<'_>,
) -> Result<(), TrainError> {
    let mut is_missing = false;
    for entry in manifest.train.iter().chain(&manifest.test) {
        match std::fs::metadata(root.join(&entry.file)) {
            Ok(found) if found.len() != entry.bytes => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => is_missing = true,
            Err(_) => return Ok(()),
        }
    }
    if !is_missing {
        return Ok(());
    }
    std::fs::create_dir_all(root).on_file("create", root)?;
    let n_workers = workers.decoders.max(workers.readers).max(2);
    let mut drawing = |done, total| preparing("images drawn", done, total);
    moco_textures::write_missing(root, &TexturesConfig::standard(n_workers), &mut drawing)?;
    let beside = root.join(moco_textures::MANIFEST_FILE);
    if !beside.exists() {
        manifest.save(&beside)?;
    }
    Ok(())
}
