//! The section `data`: where the images are, what belongs to a folder, and what to a store.

use std::path::{Path, PathBuf};

use moco_train::{DataPlan, Layout, OnBadSample, ShardCheck, ShardsPlan, WorkerPlan};
use serde::Deserialize;

use crate::check::{at_least_one, present, unused};
use crate::complaint::Complaint;

const ROOT: &str = "data.root";
const SOURCE: &str = "data.source";

/// `[data]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawData {
    /// Kind of files.
    pub(crate) source: RawSource,
    /// Folder with the files; for shards it may be the address of a store.
    pub(crate) root: PathBuf,
    /// Folder with the labeled test images; for `image_folder` only, where it may be left out.
    pub(crate) test_root: Option<PathBuf>,
    /// List of the shards; for shards only.
    pub(crate) manifest: Option<PathBuf>,
    /// Shards whose samples are mixed at a time, 0 = all; for shards only.
    pub(crate) window_shards: Option<usize>,
    /// Folder that holds shards of a store; for shards on a store only, where it may be left out.
    pub(crate) cache: Option<PathBuf>,
    /// Bytes that `cache` may hold; goes with it.
    pub(crate) cache_bytes: Option<u64>,
    /// What of the shards is checked, and when; for shards in a folder only.
    pub(crate) verify: Option<RawVerify>,
    /// The policy for a training image that cannot be used.
    pub(crate) on_bad_sample: RawOnBadSample,
    /// Whether orientation tags count.
    pub(crate) exif: RawExif,
    /// How often one may be skipped in the whole run; for `skip` only.
    pub(crate) bad_sample_budget: Option<u64>,
    /// Threads that read.
    pub(crate) readers: usize,
    /// Threads that decode and draw views.
    pub(crate) decoders: usize,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawSource {
    Shards,
    ImageFolder,
    UnlabeledFolder,
    Imagenet,
    Cifar10,
    Mnist,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawVerify {
    Checksums,
    Sizes,
    WhenRead,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawExif {
    Ignore,
    Apply,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawOnBadSample {
    Fail,
    Skip,
}

/// Where the images are, and who fetches them.
pub(crate) fn data_plan(
    raw: RawData,
    on_bad_sample: OnBadSample,
) -> Result<(DataPlan, WorkerPlan), Complaint> {
    let RawData {
        source,
        root,
        test_root,
        manifest,
        window_shards: _,
        cache,
        cache_bytes,
        verify,
        on_bad_sample: _,
        exif: _,
        bad_sample_budget: _,
        readers,
        decoders,
    } = raw;
    at_least_one("data.readers", readers as u64)?;
    at_least_one("data.decoders", decoders as u64)?;
    for (key, path) in [
        ("data.root", Some(&root)),
        ("data.test_root", test_root.as_ref()),
        ("data.manifest", manifest.as_ref()),
        ("data.cache", cache.as_ref()),
    ] {
        if path.is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Complaint::value(key, format!("{key} must not be empty")));
        }
    }
    let only_shards = |name| {
        unused("data.manifest", manifest.as_ref(), "data.source", name)?;
        unused("data.cache", cache.as_ref(), "data.source", name)?;
        unused("data.cache_bytes", cache_bytes.as_ref(), "data.source", name)?;
        unused("data.verify", verify.as_ref(), "data.source", name)
    };
    let only_folders = |name| unused("data.test_root", test_root.as_ref(), "data.source", name);
    let neither = |name| only_shards(name).and_then(|()| only_folders(name));
    let plan = match source {
        RawSource::Shards => {
            only_folders("shards")?;
            let manifest = present("data.manifest", manifest, "data.source", "shards")?;
            DataPlan::Shards { place: shards_plan(root, verify, cache, cache_bytes)?, manifest }
        }
        RawSource::ImageFolder => {
            only_shards("image_folder")?;
            let (root, layout) = (folder(root, "image_folder")?, Layout::Classes);
            DataPlan::ImageFolder { root, layout, test_root, on_bad_sample }
        }
        RawSource::UnlabeledFolder => {
            neither("unlabeled_folder")?;
            let (root, layout) = (folder(root, "unlabeled_folder")?, Layout::Unlabeled);
            DataPlan::ImageFolder { root, layout, test_root: None, on_bad_sample }
        }
        RawSource::Imagenet => {
            neither("imagenet")?;
            DataPlan::ImageNet { root: folder(root, "imagenet")? }
        }
        RawSource::Cifar10 => {
            neither("cifar10")?;
            DataPlan::Cifar10 { root: folder(root, "cifar10")? }
        }
        RawSource::Mnist => {
            neither("mnist")?;
            DataPlan::Mnist { root: folder(root, "mnist")? }
        }
    };
    Ok((plan, WorkerPlan { readers, decoders }))
}

/// What to do about an image that cannot be used.
pub(crate) fn on_bad_sample(
    choice: RawOnBadSample,
    budget: Option<u64>,
) -> Result<OnBadSample, Complaint> {
    const CHOICE: &str = "data.on_bad_sample";
    const BUDGET: &str = "data.bad_sample_budget";
    match choice {
        RawOnBadSample::Fail => {
            unused(BUDGET, budget.as_ref(), CHOICE, "fail").map(|()| OnBadSample::Fail)
        }
        RawOnBadSample::Skip => {
            let budget = at_least_one(BUDGET, present(BUDGET, budget, CHOICE, "skip")?)?;
            Ok(OnBadSample::Skip { budget })
        }
    }
}

/// The scheme of `scheme://…`; `None` for a folder.
pub(crate) fn scheme(root: &str) -> Option<&str> {
    let (scheme, _) = root.split_once("://")?;
    let is_word = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then_some(scheme)
}

/// The root as the address of a store, if it is one.
fn address(root: &Path) -> Result<Option<&str>, Complaint> {
    let Some(text) = root.to_str() else { return Ok(None) };
    match scheme(text) {
        None => Ok(None),
        Some("s3" | "https" | "http") => Ok(Some(text)),
        Some(_) => {
            let expected = "a folder or an address of s3://, https:// or http://";
            Err(Complaint::value(ROOT, format!("{ROOT} must be {expected}, got {text:?}")))
        }
    }
}

/// A folder, for the sources that cannot be read from a store.
pub(crate) fn folder(root: PathBuf, kind: &str) -> Result<PathBuf, Complaint> {
    if address(&root)?.is_none() {
        return Ok(root);
    }
    let message = format!(
        "{ROOT} is a store, where {SOURCE} = \"{kind}\" cannot read; put shards there, which \
         `cargo xtask shard make` makes"
    );
    Err(Complaint::value(ROOT, message).and(SOURCE))
}

/// Where shards are and how they are reached.
pub(crate) fn shards_plan(
    root: PathBuf,
    verify: Option<RawVerify>,
    cache: Option<PathBuf>,
    cache_bytes: Option<u64>,
) -> Result<ShardsPlan, Complaint> {
    const CACHE: &str = "data.cache";
    const BYTES: &str = "data.cache_bytes";
    let Some(address) = address(&root)?.map(str::to_owned) else {
        let needless = |key| format!("{key} has no meaning with shards in a folder");
        for (key, is_set) in [(CACHE, cache.is_some()), (BYTES, cache_bytes.is_some())] {
            if is_set {
                return Err(Complaint::key(key, needless(key)).and(ROOT));
            }
        }
        let check = match present("data.verify", verify, SOURCE, "shards")? {
            RawVerify::Checksums => ShardCheck::Checksums,
            RawVerify::Sizes => ShardCheck::Sizes,
            RawVerify::WhenRead => ShardCheck::WhenRead,
        };
        return Ok(ShardsPlan::Folder { root, check });
    };
    if verify.is_some() {
        let message = "data.verify has no meaning with shards on a store; \
                       a cache compares the checksum of each that it fetches";
        return Err(Complaint::key("data.verify", message).and(ROOT));
    }
    match (cache, cache_bytes) {
        (None, None) => Ok(ShardsPlan::Ranges { address }),
        (Some(cache), Some(cache_bytes)) => {
            at_least_one(BYTES, cache_bytes)?;
            Ok(ShardsPlan::Cached { address, cache, cache_bytes })
        }
        (Some(_), None) => Err(Complaint::value(CACHE, format!("{CACHE} needs {BYTES}"))),
        (None, Some(_)) => Err(Complaint::value(BYTES, format!("{BYTES} needs {CACHE}"))),
    }
}

/// How many shards are mixed at a time; other sources are always mixed as a whole.
pub(crate) fn window_shards(data: &RawData) -> Result<usize, Complaint> {
    const KEY: &str = "data.window_shards";
    let kind = match data.source {
        RawSource::Shards => return present(KEY, data.window_shards, SOURCE, "shards"),
        RawSource::ImageFolder => "image_folder",
        RawSource::UnlabeledFolder => "unlabeled_folder",
        RawSource::Imagenet => "imagenet",
        RawSource::Cifar10 => "cifar10",
        RawSource::Mnist => "mnist",
    };
    unused(KEY, data.window_shards.as_ref(), SOURCE, kind).map(|()| 0)
}
