//! Where the images are: what belongs to a folder, and what to a store.

use std::path::{Path, PathBuf};

use moco_train::{ShardCheck, ShardsPlan};

use crate::check::{at_least_one, present, unused};
use crate::complaint::Complaint;
use crate::raw::{RawData, RawSource, RawVerify};

const ROOT: &str = "data.root";
const SOURCE: &str = "data.source";

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
        RawSource::Imagenet => "imagenet",
        RawSource::Cifar10 => "cifar10",
        RawSource::Mnist => "mnist",
    };
    unused(KEY, data.window_shards.as_ref(), SOURCE, kind).map(|()| 0)
}
