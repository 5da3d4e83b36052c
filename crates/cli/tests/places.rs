//! Where a config's images are makes no difference to what is read, and the order is in windows of shards.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use moco_config::{LoadedPretrain, load_pretrain};
use moco_feed::{Placement, TrainingOrder};
use moco_ingest::{
    FolderStore, ImageFormat, IndexFiles, Manifest, Payload, Sampler, ShardSet, ShardWriter,
    Source, Split, Store, Verify,
};
use moco_rng::Seed;
use moco_textures::TexturesConfig;
use moco_train::{DataAccess, ErrorKind, Sources, TrainError, open_sources, training_recipe};
use tempfile::TempDir;

const N_TRAIN: u64 = 40;
const SAMPLES_PER_SHARD: u64 = 8;
const BATCH_SIZE: u64 = 8;

/// Training images in five shards with indexes and test images in two, and `manifest.toml`.
fn written() -> (TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let drawn = folder.path().join("drawn");
    std::fs::create_dir(&drawn).unwrap();
    let config = TexturesConfig { seed: Seed(1), n_train: 40, n_test: 16, n_workers: 1 };
    let drawn_manifest = moco_textures::write(&drawn, &config, &mut |_, _| ()).unwrap();
    let repacked = |split, name| {
        let set = ShardSet::open(&drawn, &drawn_manifest, split, Verify::Sizes).unwrap();
        let writer = ShardWriter::new(folder.path(), name, SAMPLES_PER_SHARD).unwrap();
        let mut writer = writer.index_files(IndexFiles::Beside);
        for i in 0..set.len() {
            let Payload::Encoded(image) = set.read(i).unwrap().payload else { panic!("pixels") };
            let label = set.label(i).unwrap();
            writer.push(&format!("{i:03}"), ImageFormat::Jpeg, &image, label).unwrap();
        }
        writer.finish().unwrap()
    };
    let manifest = Manifest {
        name: "small".to_owned(),
        classes: drawn_manifest.classes.clone(),
        train: repacked(Split::Train, "train"),
        test: repacked(Split::Test, "test"),
        ..Manifest::default()
    };
    manifest.save(&folder.path().join("manifest.toml")).unwrap();
    (folder, manifest)
}

/// The default config with this data.
fn loaded(folder: &Path, sets: &[&str]) -> LoadedPretrain {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pretrain/default.toml");
    let mut all = vec![
        format!("data.manifest={}/manifest.toml", folder.display()),
        format!("data.root={}", folder.display()),
        format!("optim.batch_size={BATCH_SIZE}"),
    ];
    all.extend(sets.iter().map(|set| set.replace("FOLDER", &folder.display().to_string())));
    load_pretrain(&path, &all).unwrap_or_else(|error| panic!("{}", error.render()))
}

/// The sources of a config whose store is a folder.
fn opened(folder: &Path, loaded: &LoadedPretrain) -> Result<Sources, TrainError> {
    let store = |address: &str| {
        assert_eq!(address, "s3://bucket/small");
        Ok(Arc::new(FolderStore::new(folder)) as Arc<dyn Store>)
    };
    let preparing = &mut |_: &str, _, _| panic!("nothing is prepared");
    let access = DataAccess { open_store: &store, preparing };
    open_sources(&loaded.data, loaded.plan.workers, access)
}

fn contents(source: &dyn Source) -> Vec<(Payload, Option<u32>)> {
    let sample = |i| (source.read(i).unwrap().payload, source.label(i).unwrap());
    (0..source.len()).map(sample).collect()
}

/// What the trainer is fed with in its first two epochs.
fn fed(loaded: &LoadedPretrain, sources: &Sources) -> Vec<(Vec<u64>, Vec<f32>)> {
    let plan = &loaded.plan;
    let order = plan.training_order(sources.train.as_ref()).unwrap();
    let recipe = Arc::new(training_recipe(loaded.recipe, loaded.fidelity).unwrap());
    let stages = plan.view_stages(Placement::cpu());
    let mut batches = stages.training(&sources.train, recipe, &order, plan.on_bad_sample).unwrap();
    let batches = std::iter::from_fn(|| batches.recv().unwrap()).take(10);
    let pixels = |view: &candle_core::Tensor| view.flatten_all().unwrap().to_vec1().unwrap();
    batches.map(|batch| (batch.sample_indices, pixels(&batch.views[1]))).collect()
}

#[test]
fn a_store_feeds_what_the_disk_feeds() {
    let (folder, manifest) = written();
    let path = folder.path();
    let largest = manifest.train.iter().map(|shard| shard.bytes).max().unwrap();
    let bytes = format!("data.cache_bytes={}", 4 * largest);
    let cached = ["data.root=s3://bucket/small", "data.cache=FOLDER/cache", &bytes];
    let on_disk = loaded(path, &["data.window_shards=2"]);
    let disk = opened(path, &on_disk).unwrap();
    let expected = fed(&on_disk, &disk);
    assert_eq!(expected.len(), 10);
    for place in [&cached[..], &cached[..1], &["data.verify=when_read"]] {
        let on_store = loaded(path, &[place, &["data.window_shards=2"]].concat());
        let store = opened(path, &on_store).unwrap();
        assert!(fed(&on_store, &store) == expected, "{place:?}");
        assert_eq!(contents(store.train.as_ref()), contents(disk.train.as_ref()));
        let [store, disk] = [&store, &disk].map(|sources| sources.labeled.as_ref().unwrap());
        assert_eq!(contents(store.test.as_ref()), contents(disk.test.as_ref()));
    }
    // Each batch is a shard long, so it comes from one window.
    for (indices, _) in &expected {
        let shards: BTreeSet<u64> = indices.iter().map(|i| i / SAMPLES_PER_SHARD).collect();
        assert!(shards.len() <= 2, "{shards:?}");
    }
    let epoch: BTreeSet<u64> = expected.iter().take(5).flat_map(|batch| batch.0.clone()).collect();
    assert_eq!(epoch.len() as u64, N_TRAIN);
}

#[test]
fn without_windows_the_order_is_that_of_one_permutation() {
    let (folder, _) = written();
    let plain = Sampler::new(Seed(0), N_TRAIN, BATCH_SIZE).unwrap();
    for set in ["data.window_shards=0", "data.window_shards=5", "data.window_shards=99"] {
        let loaded = loaded(folder.path(), &[set]);
        let sources = opened(folder.path(), &loaded).unwrap();
        let order = loaded.plan.training_order(sources.train.as_ref()).unwrap();
        let TrainingOrder { sampler, .. } = order;
        assert!(sampler.slots_from(3).take(99).eq(plain.slots_from(3).take(99)), "{set}");
    }
}

#[test]
fn a_shard_that_is_missing_is_found_at_the_start_or_when_it_is_read() {
    let (folder, _) = written();
    let gone = folder.path().join("train-000003.tar");
    std::fs::remove_file(&gone).unwrap();
    let expected =
        format!("shard {} is missing; restore it, or correct the data folder", gone.display());
    for verify in ["checksums", "sizes"] {
        let loaded = loaded(folder.path(), &[&format!("data.verify={verify}")]);
        assert_eq!(opened(folder.path(), &loaded).unwrap_err().to_string(), expected);
    }
    let loaded = loaded(folder.path(), &["data.verify=when_read"]);
    let train = opened(folder.path(), &loaded).unwrap().train;
    for (sample_index, is_there) in [(23, true), (24, false), (31, false), (32, true)] {
        let error = train.read(sample_index).err().map(|error| error.to_string());
        assert_eq!(error, (!is_there).then(|| expected.clone()), "{sample_index}");
    }
}

#[test]
fn windows_that_the_cache_has_no_room_for_are_refused() {
    let (folder, manifest) = written();
    let largest = manifest.train.iter().map(|shard| shard.bytes).max().unwrap();
    let whole: u64 = manifest.train.iter().map(|shard| shard.bytes).sum();
    let limit = |bytes: u64, window_shards: usize| {
        let cache = format!("data.cache_bytes={bytes}");
        let window = format!("data.window_shards={window_shards}");
        let root = "data.root=s3://bucket/small";
        let loaded = loaded(folder.path(), &[root, "data.cache=FOLDER/cache", &cache, &window]);
        let sources = opened(folder.path(), &loaded).unwrap();
        loaded.plan.training_order(sources.train.as_ref()).err()
    };
    for (bytes, window_shards) in [(4 * largest, 2), (whole, 0), (whole, 4), (2 * largest, 1)] {
        assert!(limit(bytes, window_shards).is_none(), "{bytes} {window_shards}");
    }
    for (bytes, window_shards, what, room) in [
        (4 * largest, 3, "3 mixes 3", "2; choose from 1 to that, or raise"),
        (whole - 1, 0, "0 mixes all 5", "2; choose from 1 to that, or raise"),
        (largest, 1, "1 mixes 1", "0; raise"),
    ] {
        let error = TrainError::from(limit(bytes, window_shards).unwrap());
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert_eq!(
            error.to_string(),
            format!(
                "data.window_shards = {what} shards at a time, but data.cache_bytes has room for \
                 windows of at most {room} data.cache_bytes"
            )
        );
    }
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn archives_of_imagenet_are_both_splits() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, members: &[(&str, &[u8])]| {
        std::fs::write(folder.path().join(name), tar_of(members)).unwrap();
    };
    let [dogs, cats] = [("a.JPEG", b"dog"), ("b.JPEG", b"cat")].map(|(n, b)| tar_of(&[(n, b)]));
    let train = "ILSVRC2012_img_train.tar";
    write(train, &[("n02119789.tar", &cats), ("n02100735.tar", &dogs)]);
    let plan = loaded(folder.path(), &["data.source=imagenet", "data.root=FOLDER"]);
    let mut reported = Vec::new();
    let mut open = || {
        let mut preparing =
            |what: &str, done: u64, total: u64| reported.push((what.to_owned(), done, total));
        let open_store = &|address: &str| panic!("{address}");
        let access = DataAccess { open_store, preparing: &mut preparing };
        open_sources(&plan.data, plan.plan.workers, access)
    };
    let error = open().unwrap_err();
    let missing = folder.path().join("ILSVRC2012_devkit_t12.tar.gz");
    assert_eq!(error.to_string(), format!("cannot open {}", missing.display()));

    // Class 1 of the devkit is n02119789, which sorts after n02100735.
    let meta = include_bytes!("../../ingest/tests/golden/packed.mat");
    let kit = tar_of(&[
        ("d/data/ILSVRC2012_validation_ground_truth.txt", b"1\n2\n"),
        ("d/data/meta.mat", meta),
    ]);
    let mut packed = GzEncoder::new(File::create(&missing).unwrap(), Compression::fast());
    std::io::Write::write_all(&mut packed, &kit).unwrap();
    packed.finish().unwrap();
    write("ILSVRC2012_img_val.tar", &[("v_1.JPEG", b"a cat"), ("v_2.JPEG", b"a dog")]);
    let sources = open().unwrap();
    let texts = |source: &dyn Source| -> Vec<(String, Option<u32>)> {
        let text = |(payload, label)| match payload {
            Payload::Encoded(bytes) => (String::from_utf8(bytes).unwrap(), label),
            Payload::Rgb { .. } => panic!("pixels"),
        };
        contents(source).into_iter().map(text).collect()
    };
    let of = |a: &str, b: &str| [(a.to_owned(), Some(0)), (b.to_owned(), Some(1))];
    assert_eq!(texts(sources.train.as_ref()), of("dog", "cat"));
    let labeled = sources.labeled.unwrap();
    assert_eq!(texts(labeled.train.as_ref()), of("dog", "cat"));
    assert_eq!(texts(labeled.test.as_ref()), of("a dog", "a cat"));

    write(train, &[("n00000001.tar", &cats)]);
    let error = open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataOrMachine);
    assert_eq!(
        error.to_string(),
        format!(
            "the test images in {} have 2 classes that the training images lack: \"n02100735\", \
             \"n02119789\"; the training images have 1: \"n00000001\"; classes are matched by name: remove \
             or rename those folders, or add training images of these classes",
            missing.display()
        )
    );
    // Each archive is read once, class by class.
    let n_bytes = cats.len() as u64;
    let [two, one] = [2, 1].map(|n| n * n_bytes);
    let expected = [(n_bytes, two), (two, two), (n_bytes, one)];
    let what = "bytes of the training archive".to_owned();
    assert_eq!(reported, expected.map(|(done, total)| (what.clone(), done, total)));
}

#[test]
fn a_build_without_cifar_says_how_to_get_one_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for (data_source, first_file) in
        [("cifar10", "data_batch_1.bin"), ("mnist", "train-images-idx3-ubyte")]
    {
        let source = format!("data.source={data_source}");
        let plan = loaded(folder.path(), &[&source, "data.root=FOLDER"]);
        let error = opened(folder.path(), &plan).unwrap_err();
        if cfg!(feature = "cifar") {
            assert_eq!(error.kind(), ErrorKind::DataOrMachine);
            let file = folder.path().join(first_file);
            let expected = format!("{} is missing; the folder must hold the ", file.display());
            assert!(error.to_string().starts_with(&expected), "{error}");
        } else {
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert_eq!(error.to_string(), no_reader(data_source));
        }
    }
}

fn no_reader(data_source: &str) -> String {
    format!(
        "this build does not read data.source = \"{data_source}\"; start one that does by \
         `cargo xtask --features cifar STAGE`, for instance \
         `cargo xtask --features cifar pretrain configs/pretrain/cifar10-notebook.toml`"
    )
}

/// A build with the feature never gives this error, so it is made here.
#[test]
fn the_error_of_a_build_without_cifar_is_a_command_to_copy() {
    let error = TrainError::NoReader { data_source: "mnist" };
    assert_eq!(error.to_string(), no_reader("mnist"));
}
