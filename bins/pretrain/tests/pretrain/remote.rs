//! Runs over stores: the same bits as from disk, through a cache and by ranges, also where a fifth of the
//! requests fail and where the run was killed.

use moco_ingest::{
    ImageFormat, IndexFiles, Manifest, Payload, ShardSet, ShardWriter, Source, Split, Verify,
};

use crate::common::{Bench, text};
use crate::servers::Server;

const SAMPLES_PER_SHARD: u64 = 12;

/// The images of the bench in small shards with indexes, in the folder `many`.
fn repack(bench: &Bench) {
    let drawn = Manifest::load(&bench.path("data/manifest.toml")).unwrap();
    let repacked = |split, name| {
        let set = ShardSet::open(&bench.path("data"), &drawn, split, Verify::Sizes).unwrap();
        let writer = ShardWriter::new(&bench.path("many"), name, SAMPLES_PER_SHARD).unwrap();
        let mut writer = writer.index_files(IndexFiles::Beside);
        for i in 0..set.len() {
            let image = match set.read(i).unwrap().payload {
                Payload::Encoded(bytes) => bytes,
                Payload::Rgb { pixels, .. } => pixels,
            };
            let label = set.label(i).unwrap();
            writer.push(&format!("{i:03}"), ImageFormat::Jpeg, &image, label).unwrap();
        }
        writer.finish().unwrap()
    };
    let (train, test) = (repacked(Split::Train, "train"), repacked(Split::Test, "test"));
    let manifest = Manifest { train, test, generator: None, ..drawn };
    manifest.save(&bench.path("many.toml")).unwrap();
}

/// Loss and accuracy of each line that has one.
fn numbers(bench: &Bench, run: &str) -> Vec<(u64, String)> {
    let log = std::fs::read_to_string(bench.path("runs").join(run).join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let measured = lines.filter(|line| line["loss"].is_number() || line["knn"].is_number());
    measured
        .map(|line| (line["step"].as_u64().unwrap(), format!("{} {}", line["loss"], line["knn"])))
        .collect()
}

#[test]
fn a_store_trains_what_the_disk_trains() {
    let bench = Bench::new();
    repack(&bench);
    let largest = Manifest::load(&bench.path("many.toml")).unwrap();
    let largest = largest.train.iter().map(|shard| shard.bytes).max().unwrap();
    let (s3, web) = (Server::s3(&bench.path("many")), Server::faults(&bench.path("many")));
    let common = ["data.manifest=many.toml", "data.window_shards=3", "run.steps=20"];
    let arguments = |name: &str, sets: &[String]| {
        let mut arguments = vec!["tiny.toml".to_owned(), "--name".to_owned(), name.to_owned()];
        let monitor = "monitor.knn_every_steps=10".to_owned();
        let sets = common.iter().map(|set| (*set).to_owned()).chain([monitor]).chain(sets.to_vec());
        arguments.extend(sets.flat_map(|set| ["--set".to_owned(), set]));
        arguments
    };
    let run = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = bench.command(&arguments);
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", s3.port));
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    };
    run(&arguments("disk", &["data.root=many".to_owned()]));
    let expected = (bench.state("disk"), numbers(&bench, "disk"));
    assert_eq!((expected.0.0, expected.1.len()), (20, 21));

    let cached = |name: &str| {
        [format!("data.cache=cache-{name}"), format!("data.cache_bytes={}", 6 * largest)]
    };
    let s3 = "data.root=s3://data/shards".to_owned();
    let web = format!("data.root=http://127.0.0.1:{}/flaky", web.port);
    for (name, root, how) in [
        ("s3-cached", &s3, &cached("s3")[..]),
        ("s3-ranges", &s3, &[]),
        ("web-cached", &web, &cached("web")[..]),
        // Pauses after failures overlap.
        ("web-ranges", &web, &["data.readers=8".to_owned()]),
    ] {
        run(&arguments(name, &[std::slice::from_ref(root), how].concat()));
        assert!((bench.state(name), numbers(&bench, name)) == expected, "{name}");
    }

    let start = arguments("killed", &[&[web][..], &cached("killed")].concat());
    let start: Vec<&str> = start.iter().map(String::as_str).collect();
    let mut child = bench.start_until(&start, "killed", 8);
    child.kill().unwrap();
    child.wait().unwrap();
    run(&["--resume", "killed"].map(str::to_owned));
    assert!((bench.state("killed"), numbers(&bench, "killed")) == expected, "killed");
}

#[test]
fn windows_without_room_in_the_cache_are_refused_before_anything_is_left() {
    let bench = Bench::new();
    repack(&bench);
    let manifest = Manifest::load(&bench.path("many.toml")).unwrap();
    let largest = manifest.train.iter().map(|shard| shard.bytes).max().unwrap();
    let bytes = format!("data.cache_bytes={}", 5 * largest);
    let sets = ["data.root=s3://data/shards", "data.manifest=many.toml", "data.cache=c", &bytes];
    let sets = sets.into_iter().chain(["data.window_shards=3"]).flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["tiny.toml", "--name", "x"].into_iter().chain(sets).collect();
    let output = bench.run(&arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let expected = "data.window_shards = 3 mixes 3 shards at a time, but data.cache_bytes has room for \
                    windows of at most 2; choose from 1 to that, or raise data.cache_bytes";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(std::fs::read_dir(bench.path("runs")).unwrap().count(), 0);
}
