//! Opens the place where shards lie: a folder, or a store behind a cache.

use std::path::PathBuf;

use moco_cli::{Exit, usage};
use moco_ingest::ShardPlace;

use crate::LookArgs;

/// Shards that are fetched at the same time as one is looked at.
#[cfg(feature = "remote")]
const FETCHERS: usize = 2;

pub(crate) fn open(args: &LookArgs) -> anyhow::Result<ShardPlace> {
    if args.root.contains("://") {
        store(args)
    } else {
        Ok(ShardPlace::Folder(PathBuf::from(&args.root)))
    }
}

#[cfg(feature = "remote")]
fn store(args: &LookArgs) -> anyhow::Result<ShardPlace> {
    use moco_ingest::{Patience, Remote, S3Access, ShardCache};
    let variable = |name: &str| {
        #[expect(clippy::disallowed_methods, reason = "credentials come from the environment")]
        let value = std::env::var(name);
        value.ok().filter(|value| !value.is_empty())
    };
    let key = variable("AWS_ACCESS_KEY_ID");
    let access = S3Access {
        endpoint: variable("AWS_ENDPOINT_URL"),
        region: variable("AWS_REGION").unwrap_or_default(),
        key_and_secret: key.zip(variable("AWS_SECRET_ACCESS_KEY")),
        token: variable("AWS_SESSION_TOKEN"),
    };
    let remote = Remote::open(&args.root, &access, Patience::default());
    let remote = remote.map_err(|error| usage(Exit::Usage, error.to_string()))?;
    let store = std::sync::Arc::new(remote);
    let cache = ShardCache::open(store, &args.cache, args.cache_bytes, FETCHERS)?;
    Ok(ShardPlace::Cached(std::sync::Arc::new(cache)))
}

#[cfg(not(feature = "remote"))]
fn store(args: &LookArgs) -> anyhow::Result<ShardPlace> {
    Err(usage(
        Exit::Usage,
        format!(
            "{} is a store, which this build cannot reach\n  help: build it with `--features remote`",
            args.root
        ),
    ))
}
