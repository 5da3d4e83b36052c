//! Shards on web servers and S3: the same bytes as from disk, also where a fifth of the requests fail, and
//! the errors of a store by their messages. The servers run on this machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod servers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moco_ingest::{
    ImageFormat, IndexFiles, IngestError, Manifest, Part, Patience, Remote, S3Access, Sampler,
    ShardCache, ShardPlace, ShardSet, ShardWriter, Slot, Source, Split, Store, read_ahead,
};
use moco_pipeline::Pipeline;
use moco_rng::{At, Purpose, Seed};
use servers::Server;
use tempfile::TempDir;

/// Pauses are short, so that failing takes no time.
const PATIENCE: Patience = Patience {
    n_attempts: 8,
    request_timeout: Duration::from_secs(30),
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(4),
};

/// Forty samples of random bytes in shards of four, with index files.
fn written() -> (TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let writer = ShardWriter::new(folder.path(), "train", 4).unwrap();
    let mut writer = writer.index_files(IndexFiles::Beside);
    for i in 0..40_u32 {
        let mut stream = Seed(1).stream(Purpose::Textures, At::index(u64::from(i)));
        let image: Vec<u8> =
            (0..3000 + 100 * i).flat_map(|_| stream.next_u32().to_le_bytes()).collect();
        writer.push(&format!("{i:04}"), ImageFormat::Jpeg, &image, Some(i % 3)).unwrap();
    }
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    let train = writer.finish().unwrap();
    (folder, Manifest { name: "tiny".to_owned(), classes, train, ..Manifest::default() })
}

fn http(server: &Server, mode: &str) -> Remote {
    let address = format!("http://127.0.0.1:{}/{mode}", server.port);
    Remote::open(&address, &S3Access::default(), PATIENCE).unwrap()
}

fn s3(server: &Server) -> Remote {
    let access = S3Access {
        endpoint: Some(format!("http://127.0.0.1:{}", server.port)),
        key_and_secret: Some(("key".to_owned(), "secret".to_owned())),
        ..S3Access::default()
    };
    Remote::open("s3://data/shards", &access, PATIENCE).unwrap()
}

fn lazy(place: ShardPlace, manifest: &Manifest) -> Arc<dyn Source> {
    Arc::new(ShardSet::lazy(place, manifest, Split::Train).unwrap())
}

/// The stages of a run: what each slot holds, in order.
fn read(source: &Arc<dyn Source>, n_readers: usize) -> Vec<(Slot, Vec<u8>, Option<u32>)> {
    let sampler = Sampler::windowed(Seed(3), &source.shard_sizes(), 3, 8).unwrap();
    let slots = read_ahead(Arc::clone(source), &sampler, sampler.slots_from(16).take(120));
    let mut pipeline = Pipeline::new();
    let slots = slots.map(|slot| slot.map_err(Into::into));
    let lanes = pipeline.source("sample", n_readers, 4, slots).unwrap();
    let lanes = pipeline.map("read", lanes, 4, |_| {
        let source = Arc::clone(source);
        move |slot: Slot| {
            let sample = source.read(slot.sample_index)?;
            let moco_ingest::Payload::Encoded(image) = sample.payload else {
                return Err("pixels".into());
            };
            Ok((slot, image, source.label(slot.sample_index)?))
        }
    });
    let mut feed = pipeline.feed(lanes.unwrap());
    std::iter::from_fn(|| feed.recv().unwrap()).collect()
}

/// Both ways to read from a store give the bytes of the disk; the cache holds two windows and no more.
fn check_equals_disk(store: &Arc<dyn Store>, shards: &Path, manifest: &Manifest) {
    let expected = read(&lazy(ShardPlace::Folder(shards.to_owned()), manifest), 1);
    assert_eq!(expected.len(), 120);
    assert_eq!(read(&lazy(ShardPlace::Ranges(Arc::clone(store)), manifest), 3), expected);
    let folder = tempfile::tempdir().unwrap();
    let largest = manifest.train.iter().map(|shard| shard.bytes).max().unwrap();
    let cache = ShardCache::open(Arc::clone(store), folder.path(), 6 * largest, 2).unwrap();
    let cache = Arc::new(cache);
    let set = ShardSet::lazy(ShardPlace::Cached(Arc::clone(&cache)), manifest, Split::Train);
    let set = set.unwrap();
    assert_eq!(set.max_window_shards(), 3);
    let cached: Arc<dyn Source> = Arc::new(set);
    for n_readers in [1, 2, 4, 8] {
        assert_eq!(read(&cached, n_readers), expected);
    }
    let report = cache.report();
    assert!(report.bytes <= 6 * largest && report.n_evicted > 0, "{report:?}");
    assert_eq!(report.n_failed_ahead, 0, "{report:?}");
}

#[test]
fn a_web_server_gives_the_bytes_of_the_disk() {
    let (folder, manifest) = written();
    let server = Server::faults(folder.path());
    let store: Arc<dyn Store> = Arc::new(http(&server, "good"));
    check_equals_disk(&store, folder.path(), &manifest);
}

#[test]
fn a_server_that_fails_a_fifth_of_the_requests_gives_the_bytes_of_the_disk() {
    let (folder, manifest) = written();
    let server = Server::faults(folder.path());
    let remote = Arc::new(http(&server, "flaky"));
    let store: Arc<dyn Store> = remote.clone();
    check_equals_disk(&store, folder.path(), &manifest);
    assert!(remote.n_retries() >= 25, "{} retries", remote.n_retries());
}

#[test]
fn s3_gives_the_bytes_of_the_disk() {
    let (folder, manifest) = written();
    let server = Server::s3(folder.path());
    let store: Arc<dyn Store> = Arc::new(s3(&server));
    check_equals_disk(&store, folder.path(), &manifest);
    let error = s3(&server).read("gone.tar", Part::Range { offset: 0, n_bytes: 1 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "shard gone.tar is missing from s3://data/shards (404); upload it, or correct the address"
    );
}

#[test]
fn what_stays_is_an_error_at_once_and_what_may_pass_after_some_attempts() {
    let (folder, _) = written();
    let server = Server::faults(folder.path());
    let (key, part) = ("train-000000.tar", Part::Range { offset: 512, n_bytes: 1000 });
    let failed = |how: &str| {
        format!(
            "cannot read 1000 bytes of shard train-000000.tar at offset 512 from ADDRESS: 3 attempts failed, the \
             last one {how}; try again later"
        )
    };
    let denied = "ADDRESS denies access to shard train-000000.tar (401 or 403); check the credentials and the \
                  rights of the bucket";
    let cases = [
        ("404", "shard train-000000.tar is missing from ADDRESS (404); upload it, or", 0),
        ("403", denied, 0),
        ("401", denied, 0),
        (
            "410",
            "store ADDRESS cannot be used: it answers 410 to a request for train-000000.tar",
            0,
        ),
        (
            "whole",
            "store ADDRESS cannot be used: it does not answer requests for a part of train",
            0,
        ),
        ("500", &failed("with status 500"), 2),
        ("503", &failed("with status 503"), 2),
        ("429", &failed("with status 429"), 2),
        ("reset", &failed("while the answer came"), 2),
        ("short", &failed("while the answer came"), 2),
        ("hang", &failed("with no whole answer within 300ms"), 2),
        ("stall", &failed("with no whole answer within 300ms"), 2),
    ];
    for (mode, expected, n_retries) in cases {
        let address = format!("http://127.0.0.1:{}/{mode}", server.port);
        let ends = !matches!(mode, "hang" | "stall");
        let timeout = if ends { PATIENCE.request_timeout } else { Duration::from_millis(300) };
        let patience = Patience { n_attempts: 3, request_timeout: timeout, ..PATIENCE };
        let remote = Remote::open(&address, &S3Access::default(), patience).unwrap();
        let error = remote.read(key, part).unwrap_err();
        let message = error.to_string().replace(&address, "ADDRESS");
        assert!(message.starts_with(expected), "{mode}: {message}");
        assert_eq!(
            (remote.n_retries(), error.is_transient()),
            (n_retries, n_retries > 0),
            "{mode}"
        );
    }
}

#[test]
fn a_server_that_is_not_there_is_asked_again_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let port = Server::faults(folder.path()).port;
    let address = format!("http://127.0.0.1:{port}");
    let patience = Patience { n_attempts: 2, ..PATIENCE };
    let remote = Remote::open(&address, &S3Access::default(), patience).unwrap();
    let message = remote.read("a.tar", Part::All { limit: 1 }).unwrap_err().to_string();
    let expected =
        format!("cannot read all bytes of shard a.tar at offset 0 from {address}: 2 attempts");
    assert!(message.starts_with(&expected), "{message}");
}

#[test]
fn a_cache_is_dropped_also_when_the_store_does_not_answer() {
    let (folder, manifest) = written();
    let server = Server::faults(folder.path());
    let store: Arc<dyn Store> = Arc::new(http(&server, "hang"));
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = ShardCache::open(Arc::clone(&store), cache_folder.path(), 1 << 30, 2).unwrap();
    let source = lazy(ShardPlace::Cached(Arc::new(cache)), &manifest);
    (0..10).for_each(|shard| source.will_read(4 * shard).unwrap());
    // All attempts together would take four minutes a shard.
    drop(source);
    let message = store.read("a.tar", Part::All { limit: 1 }).unwrap_err().to_string();
    assert!(message.ends_with("cannot be used: it was closed"), "{message}");
}

#[test]
fn wrong_objects_are_told_apart() {
    let (folder, mut manifest) = written();
    let server = Server::faults(folder.path());
    let store: Arc<dyn Store> = Arc::new(http(&server, "good"));
    let bytes = std::fs::read(folder.path().join("train-000000.tar")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("train-000000.tar", &bytes[..bytes.len() / 2]);
    write("train-000001.tar", &bytes);
    manifest.train[1].bytes = bytes.len() as u64;
    write("train-000002.tar.idx", b"no index at all, though long enough to be one");
    std::fs::remove_file(folder.path().join("train-000003.tar.idx")).unwrap();
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = ShardCache::open(Arc::clone(&store), cache_folder.path(), 1 << 30, 0).unwrap();
    let cached = lazy(ShardPlace::Cached(Arc::new(cache)), &manifest);
    let ranges = lazy(ShardPlace::Ranges(store), &manifest);
    let n_half = bytes.len() / 2;
    let cases: [(&Arc<dyn Source>, u64, String); 5] = [
        (
            &cached,
            0,
            format!(
                "train-000000.tar is truncated: {} bytes needed at offset 0, got {n_half}",
                bytes.len()
            ),
        ),
        (&cached, 4, "train-000001.tar has the wrong checksum: expected blake3 ".to_owned()),
        (&ranges, 3, "train-000000.tar is truncated: ".to_owned()),
        (
            &ranges,
            8,
            "index train-000002.tar.idx is unfit: its checksum is wrong; delete it".to_owned(),
        ),
        (&ranges, 12, "shard train-000003.tar.idx is missing from ".to_owned()),
    ];
    for (source, sample_index, expected) in cases {
        let error = source.read(sample_index).unwrap_err();
        assert!(error.to_string().contains(&expected), "{error}");
        assert!(!error.is_transient());
    }
    assert!(matches!(ranges.read(40), Err(IngestError::SampleIndex { .. })));
}
