//! Opens the place where shards are: a folder, or a store behind a cache.

use std::path::PathBuf;
use std::sync::Arc;

use moco_cli::{Exit, open_store, usage};
use moco_ingest::{ShardCache, ShardPlace};

use crate::args::LookArgs;

/// Shards that are fetched at the same time as one is looked at.
const FETCHERS: usize = 2;

pub(crate) fn open(args: &LookArgs) -> anyhow::Result<ShardPlace> {
    if !args.root.contains("://") {
        return Ok(ShardPlace::Folder(PathBuf::from(&args.root)));
    }
    let store = open_store(&args.root);
    let store = store.map_err(|error| usage(Exit::Usage, error.to_string()))?;
    let cache = ShardCache::open(store, &args.cache, args.cache_bytes, FETCHERS)?;
    Ok(ShardPlace::Cached(Arc::new(cache)))
}
