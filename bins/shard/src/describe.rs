//! `shard manifest`: describes shards that are there already, such as those of webdataset and img2dataset.

use std::path::Path;

use anyhow::Context as _;
use moco_cli::{Console, Exit, print_result, usage};
use moco_ingest::{describe_shard, labels_of_shard};
use moco_telemetry::{format_bytes, format_count};

use crate::args::ManifestArgs;
use crate::make::{joined, save};

/// More classes than any labeled set of images has; a larger label is no class.
const CLASSES_MAX: u32 = 1_000_000;

pub(crate) fn run(args: &ManifestArgs) -> anyhow::Result<Exit> {
    let files = shards(&args.root)?;
    let mut console = Console::detect();
    let classes = classes(args, &files, &mut console)?;
    let manifest = joined(&args.described, &classes)?;
    console.start(0, files.len() as u64);
    let mut entries = Vec::new();
    for (done, file) in (1..).zip(&files) {
        entries.push(describe_shard(&args.root, file, classes.len())?);
        console.advance(done);
        console.status(done, "shards");
    }
    console.finish();
    let n_images = entries.iter().map(|entry| entry.samples).sum();
    if n_images == 0 {
        let message = format!("no shard in {} holds an image", args.root.display());
        return Err(usage(Exit::DataOrMachine, message));
    }
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    let labels = match classes.len() {
        0 => "no labels".to_owned(),
        n => format!("{} classes", format_count(n as u64)),
    };
    let text = format!(
        "{}: {} images in {} shards of {} in all, {labels}",
        args.described.manifest.display(),
        format_count(n_images),
        entries.len(),
        format_bytes(bytes),
    );
    save(manifest, &args.described, entries)?;
    print_result(&text);
    Ok(Exit::Done)
}

/// The names of the tar files of a folder, sorted.
fn shards(root: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        std::fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()));
    let mut files = Vec::new();
    for entry in entries.map_err(|error| usage(Exit::DataOrMachine, format!("{error:#}")))? {
        let entry = entry?;
        // Names of shards are ASCII; another one cannot stand in a manifest.
        if let Ok(name) = entry.file_name().into_string()
            && name.ends_with(".tar")
            && !name.starts_with('.')
            && entry.path().is_file()
        {
            files.push(name);
        }
    }
    if files.is_empty() {
        let message = format!("there is no file NAME.tar in {}", root.display());
        return Err(usage(Exit::DataOrMachine, message));
    }
    files.sort_unstable();
    Ok(files)
}

/// The names of the classes: those of the file given, or numbers where the shards have labels.
fn classes(
    args: &ManifestArgs,
    files: &[String],
    console: &mut Console,
) -> anyhow::Result<Vec<String>> {
    if let Some(path) = &args.classes {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| {
            usage(Exit::DataOrMachine, format!("cannot read {}: {error}", path.display()))
        })?;
        return Ok(text.lines().map(str::to_owned).collect());
    }
    console.start(0, files.len() as u64);
    let mut highest = None;
    for (done, file) in (1..).zip(files) {
        highest = highest.max(labels_of_shard(&args.root, file)?);
        console.advance(done);
        console.status(done, "shards searched for labels");
    }
    console.finish();
    match highest {
        None => Ok(Vec::new()),
        Some(label) if label < CLASSES_MAX => Ok((0..=label).map(|n| n.to_string()).collect()),
        Some(label) => Err(usage(
            Exit::DataOrMachine,
            format!(
                "the shards hold the label {label}, expected less than {CLASSES_MAX}; \
                 if it is one, --classes FILE names all classes, one a line"
            ),
        )),
    }
}
