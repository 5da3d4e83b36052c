//! Keeps shards of a slow store on the local disk, within a bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use moco_pipeline::Sink;

use crate::{
    durable::publish,
    error::{IngestError, Remedy},
    manifest::ShardEntry,
    store::{Part, Store},
};

/// The size of one request to the store; a failure costs no more than this.
const CHUNK_BYTES: u64 = 8 << 20;
/// Shards that may wait for one fetching thread; whoever asks for more waits.
const WANTED_AHEAD: usize = 64;
const LOCK_FILE: &str = "lock";

/// Shards of a store on the local disk.
///
/// A file gets its name, the checksum of its bytes, only when all of them are there and right; what an
/// interrupted process leaves behind is deleted by the next one. Where room is needed, the shard that was
/// not used for the longest time goes. One process owns the folder.
pub struct ShardCache {
    held: Arc<Held>,
    fetchers: Vec<Sink<ShardEntry>>,
    next_fetcher: AtomicUsize,
}

/// Counts of a cache's work so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Bytes on disk now, with those on their way.
    pub bytes: u64,
    /// Shards that were fetched.
    pub n_fetched: u64,
    /// Shards that had to go.
    pub n_evicted: u64,
    /// Shards that could not be fetched ahead; whoever needs one tries again and reports the failure.
    pub n_failed_ahead: u64,
}

struct Held {
    store: Arc<dyn Store>,
    folder: PathBuf,
    capacity: u64,
    state: Mutex<State>,
    changed: Condvar,
    closing: AtomicBool,
    /// Locked while it lives.
    _lock: File,
}

#[derive(Default)]
struct State {
    /// Length and last use of each file.
    files: BTreeMap<String, (u64, u64)>,
    n_uses: u64,
    fetching: BTreeSet<String>,
    report: CacheReport,
}

impl fmt::Debug for ShardCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (store, folder) = (self.held.store.address(), &self.held.folder);
        f.debug_struct("ShardCache").field("store", &store).field("folder", folder).finish()
    }
}

impl ShardCache {
    /// A cache of at most `capacity` bytes in `folder`, which is created if need be; `n_fetchers` threads
    /// read ahead. Dropping it closes the store.
    ///
    /// # Errors
    /// If the folder cannot be used or belongs to another process, or a thread cannot start.
    pub fn open(
        store: Arc<dyn Store>,
        folder: &Path,
        capacity: u64,
        n_fetchers: usize,
    ) -> Result<Self, IngestError> {
        fs::create_dir_all(folder).map_err(IngestError::io("create", folder))?;
        let lock_path = folder.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(IngestError::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(IngestError::CacheBusy { folder: folder.to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(IngestError::io("lock", &lock_path)(source));
            }
        }
        let held = Arc::new(Held {
            state: Mutex::new(left_behind(folder)?),
            store,
            folder: folder.to_owned(),
            capacity,
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            _lock: lock,
        });
        let fetcher = |fetcher_idx: usize| {
            let held = Arc::clone(&held);
            Sink::spawn(&format!("fetch-{fetcher_idx}"), WANTED_AHEAD, move |shard: ShardEntry| {
                held.fetch_ahead(&shard);
                Ok(())
            })
        };
        let fetchers = (0..n_fetchers).map(fetcher).collect::<Result<_, _>>()?;
        Ok(Self { held, fetchers, next_fetcher: AtomicUsize::new(0) })
    }

    /// Opens a shard for reading, after fetching it if it is not there.
    pub(crate) fn file(&self, shard: &ShardEntry) -> Result<File, IngestError> {
        self.held.file(shard)
    }

    /// Starts to fetch a shard that is needed soon; waits while too many are wanted already.
    pub(crate) fn want(&self, shard: &ShardEntry) -> Result<(), IngestError> {
        if self.fetchers.is_empty() || self.held.lock().files.contains_key(&shard.blake3) {
            return Ok(());
        }
        let turn = self.next_fetcher.fetch_add(1, Ordering::Relaxed);
        Ok(self.fetchers[turn % self.fetchers.len()].send(shard.clone())?)
    }

    /// Bytes that the cache may hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.held.capacity
    }

    /// Counts of the work so far.
    #[must_use]
    pub fn report(&self) -> CacheReport {
        self.held.lock().report
    }
}

/// Closes the store too, so that the threads that read ahead leave also when it does not answer.
impl Drop for ShardCache {
    fn drop(&mut self) {
        self.held.closing.store(true, Ordering::Relaxed);
        self.held.store.close();
    }
}

/// The files of an earlier process; those that it had not completed are deleted.
fn left_behind(folder: &Path) -> Result<State, IngestError> {
    let mut state = State::default();
    for entry in fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
        let entry = entry.map_err(IngestError::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name.ends_with(".partial") {
            fs::remove_file(&path).map_err(IngestError::io("remove", &path))?;
        } else if name.len() == 64 {
            let bytes = entry.metadata().map_err(IngestError::io("inspect", &path))?.len();
            state.files.insert(name, (bytes, 0));
            state.report.bytes += bytes;
        }
    }
    Ok(state)
}

/// Takes a shard off the list of those on their way, also when its thread panics.
struct Underway<'a> {
    held: &'a Held,
    shard: &'a ShardEntry,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut state = self.held.lock();
        state.fetching.remove(&self.shard.blake3);
        if !state.files.contains_key(&self.shard.blake3) {
            state.report.bytes -= self.shard.bytes;
        }
        drop(state);
        self.held.changed.notify_all();
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, shard: &ShardEntry) -> Result<File, IngestError> {
        let path = self.folder.join(&shard.blake3);
        let mut state = self.lock();
        loop {
            state.n_uses += 1;
            let now = state.n_uses;
            if let Some((bytes, last_use)) = state.files.get_mut(&shard.blake3) {
                *last_use = now;
                let bytes = *bytes;
                // Within the lock, so that no other thread deletes the file before it is open.
                match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        state.files.remove(&shard.blake3);
                        state.report.bytes -= bytes;
                    }
                    opened => return opened.map_err(IngestError::io("open", &path)),
                }
            }
            if !state.fetching.contains(&shard.blake3) && self.make_room(&mut state, shard)? {
                break;
            }
            // Fetching ends in any case, since each request to the store does.
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.fetching.insert(shard.blake3.clone());
        state.report.bytes += shard.bytes;
        drop(state);
        let underway = Underway { held: self, shard };
        let file = self.fetch(shard, &path)?;
        let mut state = self.lock();
        state.n_uses += 1;
        let now = state.n_uses;
        state.files.insert(shard.blake3.clone(), (shard.bytes, now));
        state.report.n_fetched += 1;
        drop(state);
        drop(underway);
        Ok(file)
    }

    fn fetch_ahead(&self, shard: &ShardEntry) {
        if !self.closing.load(Ordering::Relaxed) && self.file(shard).is_err() {
            self.lock().report.n_failed_ahead += 1;
        }
    }

    /// Deletes what was not used for the longest time until the shard fits; `false` if shards on their way
    /// take the room.
    fn make_room(&self, state: &mut State, shard: &ShardEntry) -> Result<bool, IngestError> {
        if shard.bytes > self.capacity {
            return Err(IngestError::CacheTooSmall {
                folder: self.folder.clone(),
                key: shard.file.clone(),
                needed: shard.bytes,
                capacity: self.capacity,
            });
        }
        while state.report.bytes + shard.bytes > self.capacity {
            let oldest = state.files.iter().min_by_key(|(_, (_, last_use))| *last_use);
            let Some((name, bytes)) = oldest.map(|(name, (bytes, _))| (name.clone(), *bytes))
            else {
                return Ok(false);
            };
            let path = self.folder.join(&name);
            fs::remove_file(&path).map_err(IngestError::io("remove", &path))?;
            state.files.remove(&name);
            state.report.bytes -= bytes;
            state.report.n_evicted += 1;
        }
        Ok(true)
    }

    fn fetch(&self, shard: &ShardEntry, path: &Path) -> Result<File, IngestError> {
        let temporary = path.with_extension("partial");
        let result = self.download(shard, &temporary).and_then(|file| {
            publish(&file, &temporary, path)?;
            Ok(file)
        });
        if result.is_err() {
            // The first error counts; what is left is deleted when the cache is opened again.
            drop(fs::remove_file(&temporary));
        }
        result
    }

    fn download(&self, shard: &ShardEntry, temporary: &Path) -> Result<File, IngestError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(temporary);
        let mut file = file.map_err(IngestError::io("create", temporary))?;
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < shard.bytes {
            if self.closing.load(Ordering::Relaxed) {
                return Err(IngestError::CacheClosed { key: shard.file.clone() });
            }
            let n_bytes = CHUNK_BYTES.min(shard.bytes - offset);
            let bytes = self.store.read(&shard.file, Part::Range { offset, n_bytes })?;
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(IngestError::io("write", temporary))?;
            offset += n_bytes;
        }
        let got = hasher.finalize().to_hex().to_string();
        if got == shard.blake3 {
            return Ok(file);
        }
        Err(IngestError::ShardChecksum {
            shard: PathBuf::from(format!("{}/{}", self.store.address(), shard.file)),
            expected: shard.blake3.clone(),
            got,
            remedy: Remedy::Upload,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Barrier;

    use moco_pipeline::Pipeline;
    use tempfile::TempDir;

    use super::*;
    use crate::store::FolderStore;

    /// A folder of shards of 1000 bytes each, `0.tar` and so on, and their entries.
    fn shards(n: u8) -> (TempDir, Vec<ShardEntry>) {
        let folder = tempfile::tempdir().unwrap();
        let entries = (0..n)
            .map(|i| {
                let (file, bytes) = (format!("{i}.tar"), vec![i; 1000]);
                fs::write(folder.path().join(&file), &bytes).unwrap();
                let blake3 = blake3::hash(&bytes).to_hex().to_string();
                ShardEntry { file, samples: 1, bytes: 1000, blake3 }
            })
            .collect();
        (folder, entries)
    }

    fn cache(store: &TempDir, folder: &TempDir, capacity: u64) -> ShardCache {
        let store = Arc::new(FolderStore::new(store.path()));
        ShardCache::open(store, folder.path(), capacity, 2).unwrap()
    }

    fn content(file: &mut File) -> Vec<u8> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; 2000];
        let n = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(n);
        bytes
    }

    fn names(folder: &TempDir) -> BTreeSet<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != LOCK_FILE).collect()
    }

    #[test]
    fn the_least_recently_used_goes_and_an_open_file_stays_readable() {
        let ((store, entries), folder) = (shards(4), tempfile::tempdir().unwrap());
        let cache = cache(&store, &folder, 3500);
        let mut first = cache.file(&entries[0]).unwrap();
        for i in [1, 2, 1, 0, 3] {
            assert_eq!(
                content(&mut cache.file(&entries[i]).unwrap()),
                [u8::try_from(i).unwrap(); 1000]
            );
        }
        let expected: BTreeSet<String> = [1, 0, 3].map(|i| entries[i].blake3.clone()).into();
        assert_eq!(names(&folder), expected);
        let report = CacheReport { bytes: 3000, n_fetched: 4, n_evicted: 1, n_failed_ahead: 0 };
        assert_eq!(cache.report(), report);
        for entry in &entries[2..4] {
            cache.file(entry).unwrap();
        }
        cache.file(&entries[1]).unwrap();
        assert!(!names(&folder).contains(&entries[0].blake3));
        assert_eq!(content(&mut first), [0; 1000]);
    }

    #[test]
    fn a_new_process_keeps_what_is_whole_and_deletes_the_rest() {
        let ((store_folder, entries), folder) = (shards(2), tempfile::tempdir().unwrap());
        let store = &store_folder;
        drop(cache(store, &folder, 5000).file(&entries[0]).unwrap());
        let partial = format!("{}.partial", entries[1].blake3);
        fs::write(folder.path().join(&partial), vec![1; 500]).unwrap();
        let cache = cache(store, &folder, 5000);
        assert_eq!(names(&folder), [entries[0].blake3.clone()].into());
        assert_eq!(cache.report().bytes, 1000);
        fs::remove_file(store.path().join("0.tar")).unwrap();
        assert_eq!(content(&mut cache.file(&entries[0]).unwrap()), [0; 1000]);
        let store = Arc::new(FolderStore::new(store.path()));
        // A user who cleans up by hand costs a fetch and no run.
        fs::write(store_folder.path().join("0.tar"), vec![0; 1000]).unwrap();
        fs::remove_file(folder.path().join(&entries[0].blake3)).unwrap();
        assert_eq!(content(&mut cache.file(&entries[0]).unwrap()), [0; 1000]);
        assert_eq!((cache.report().bytes, cache.report().n_fetched), (1000, 1));
        let message = ShardCache::open(store, folder.path(), 1, 0).unwrap_err().to_string();
        let expected = format!(
            "the cache {} is in use by another process; give each process a folder of its own",
            folder.path().display()
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn wrong_bytes_are_never_used() {
        let ((store, mut entries), folder) = (shards(3), tempfile::tempdir().unwrap());
        let cache = cache(&store, &folder, 5000);
        fs::write(store.path().join("0.tar"), vec![9; 1000]).unwrap();
        fs::write(store.path().join("1.tar"), vec![1; 999]).unwrap();
        entries[2].file = "gone.tar".to_owned();
        let place = format!("{}/", store.path().display());
        let expected = [
            "shard 0.tar has the wrong checksum: expected blake3 ",
            "shard 1.tar is truncated: 1000 bytes needed at offset 0, got 999; make it again, or",
            "shard gone.tar is missing; restore it",
        ];
        for (entry, expected) in entries.iter().zip(expected) {
            for _ in 0..2 {
                let message = cache.file(entry).unwrap_err().to_string().replace(&place, "");
                assert!(message.starts_with(expected), "{message}");
            }
        }
        assert_eq!(names(&folder), BTreeSet::new());
        assert_eq!(cache.report().bytes, 0);
    }

    #[test]
    fn a_shard_that_cannot_fit_is_refused() {
        let ((store, entries), folder) = (shards(1), tempfile::tempdir().unwrap());
        let cache = cache(&store, &folder, 999);
        let message = cache.file(&entries[0]).unwrap_err().to_string();
        let expected = format!(
            "shard 0.tar has 1000 bytes, but the cache {} may hold 999; raise its capacity",
            folder.path().display()
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn what_is_wanted_is_fetched_ahead_and_a_failure_waits_for_who_needs_it() {
        let ((store, mut entries), folder) = (shards(3), tempfile::tempdir().unwrap());
        entries[2].file = "gone.tar".to_owned();
        let mut cache = cache(&store, &folder, 5000);
        entries.iter().for_each(|entry| cache.want(entry).unwrap());
        cache.fetchers.iter().for_each(|fetcher| fetcher.flush().unwrap());
        let report = CacheReport { bytes: 2000, n_fetched: 2, n_evicted: 0, n_failed_ahead: 1 };
        assert_eq!(cache.report(), report);
        cache.file(&entries[2]).unwrap_err();
        cache.fetchers.clear();
        cache.want(&entries[2]).unwrap();
    }

    /// A store whose reads wait for each other, so that requests certainly overlap.
    #[derive(Debug)]
    struct Meeting(Barrier);

    impl Store for Meeting {
        fn address(&self) -> &str {
            "meeting"
        }

        fn read(&self, key: &str, _: Part) -> Result<Vec<u8>, IngestError> {
            self.0.wait();
            let byte = key.as_bytes().first().map_or(0, |digit| digit - b'0');
            Ok(vec![byte; 1000])
        }
    }

    #[test]
    fn readers_of_one_shard_share_one_fetch_and_those_of_two_do_not_wait() {
        let ((_store, entries), folder) = (shards(2), tempfile::tempdir().unwrap());
        let store = Arc::new(Meeting(Barrier::new(2)));
        let cache = Arc::new(ShardCache::open(store, folder.path(), 2500, 0).unwrap());
        let mut pipeline = Pipeline::new();
        let wanted = (0..40).map(move |i| Ok(entries[i % 2].clone()));
        let lanes = pipeline.source("want", 4, 4, wanted).unwrap();
        let reader = Arc::clone(&cache);
        let lanes = pipeline.map("read", lanes, 4, move |_| {
            let cache = Arc::clone(&reader);
            move |entry: ShardEntry| {
                let mut bytes = Vec::new();
                cache.file(&entry)?.take(1).read_to_end(&mut bytes)?;
                Ok(())
            }
        });
        let mut feed = pipeline.feed(lanes.unwrap());
        let mut n = 0;
        while feed.recv().unwrap().is_some() {
            n += 1;
        }
        assert_eq!((n, cache.report().n_fetched), (40, 2));
    }
}
