//! `shard make`: from a folder or an archive to shards, index files and a manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use moco_cli::{Console, Exit, print_result, usage};
use moco_ingest::{
    BadSample, BadSamples, ImageFolder, ImageNet, IndexFiles, IngestError, Layout, Manifest,
    OnBadSample, Payload, ShardEntry, ShardWriter, Source, Split, check_metadata,
};
use moco_pipeline::{Feed, Pipeline, StageError};
use moco_rng::{At, Permutation, Purpose, Seed};
use moco_telemetry::{format_bytes, format_count};

use crate::args::{Described, From, MakeArgs, Order};
use crate::recode::{Encoded, Limit, limited};

/// Images that wait in each lane.
const AHEAD: usize = 16;
/// Letters of an image's name that go into its key.
const NAME_LETTERS: usize = 60;
/// Larger metadata is not even read.
const SIDECAR_BYTES_MAX: u64 = 1 << 24;
/// Files that are named on the console; the list beside the shards has all bad images.
const NAMED: u64 = 20;

/// Where the images are, the names of their classes, and a folder that may hold metadata.
struct Images {
    source: Arc<dyn Source>,
    classes: Vec<String>,
    metadata: Option<PathBuf>,
}

/// The contents of a shard.
struct Sample {
    name: String,
    image: Encoded,
    label: Option<u32>,
    metadata: Sidecar,
}

/// The metadata beside an image.
enum Sidecar {
    None,
    Fit(Vec<u8>),
    /// No reader of the shard would accept it.
    Unfit(String),
}

/// The outcome for an image.
enum Taken {
    Good(Sample),
    Bad(BadSample),
}

/// What was made so far.
struct Progress {
    console: Console,
    total: u64,
    n_good: u64,
    bad: BadSamples,
    n_bad: u64,
    n_unfit_metadata: u64,
}

pub(crate) fn run(args: &MakeArgs) -> anyhow::Result<Exit> {
    let mut console = Console::detect();
    let images = open(args, &mut console)?;
    let split = Split::from(args.described.split);
    let manifest = joined(&args.described, &images.classes)?;
    let writer = ShardWriter::new(&args.out, &split.to_string(), args.samples_per_shard.into())?;
    let mut writer = writer.index_files(IndexFiles::Beside);
    let (total, bad_list) = (images.source.len(), args.out.join("bad_samples.txt"));
    // That of a run before is of other images.
    match std::fs::remove_file(&bad_list) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let policy = OnBadSample::Skip { budget: args.skip_bad };
    let bad = BadSamples::listed_in(&bad_list, policy, 0)?;
    let left_out = images.source.left_out();
    let mut progress = Progress { console, total, n_good: 0, bad, n_bad: 0, n_unfit_metadata: 0 };
    let mut feed = feed(args, images)?;
    progress.console.start(0, total);
    while let Some(taken) = feed.recv()? {
        match taken {
            Taken::Good(sample) => progress.push(&mut writer, sample)?,
            Taken::Bad(sample) => progress.refuse(&sample),
        }
    }
    progress.console.finish();
    progress.bad.save()?;
    progress.check(args.skip_bad, &bad_list)?;
    let shards = writer.finish()?;
    let bytes = shards.iter().map(|shard| shard.bytes).sum();
    print_result(&format!(
        "{}: {} images in {} shards of {} in all, described by {}",
        args.out.display(),
        format_count(progress.n_good),
        shards.len(),
        format_bytes(bytes),
        args.described.manifest.display(),
    ));
    if progress.n_bad > 0 {
        let n = format_count(progress.n_bad);
        print_result(&format!("{n} images were skipped; {} names them", bad_list.display()));
    }
    if progress.n_unfit_metadata > 0 {
        let n = format_count(progress.n_unfit_metadata);
        print_result(&format!("the metadata of {n} images was left out"));
    }
    if let Some(left_out) = left_out {
        print_result(&format!("beside the images: {left_out}"));
    }
    save(manifest, &args.described, shards)?;
    Ok(Exit::Done)
}

impl Progress {
    /// Writes an image, unless no shards are wanted any more and only the bad ones are looked for.
    fn push(&mut self, writer: &mut ShardWriter, sample: Sample) -> anyhow::Result<()> {
        if self.n_bad == self.bad.n_met() {
            let key = format!("{:09}_{}", self.n_good, sample.name);
            writer.push(&key, sample.image.format, &sample.image.bytes, sample.label)?;
            match sample.metadata {
                Sidecar::None => {}
                Sidecar::Fit(json) => writer.push_metadata(&json)?,
                Sidecar::Unfit(reason) => {
                    self.n_unfit_metadata += 1;
                    if self.n_unfit_metadata <= NAMED {
                        self.console.report(&format!("left out: {reason}"));
                    }
                }
            }
        }
        self.n_good += 1;
        self.advance();
        Ok(())
    }

    /// Lists a bad image. The others are looked at also where there are too many, so that all are named.
    fn refuse(&mut self, sample: &BadSample) {
        self.n_bad += 1;
        // Over the budget the count stands still, which `check` reports.
        let is_within = self.bad.admit(sample).is_ok();
        if self.n_bad <= NAMED {
            let word = if is_within { "skipped" } else { "bad" };
            self.console.report(&format!("{word}: {sample}"));
        }
        self.advance();
    }

    fn advance(&mut self) {
        let done = self.n_good + self.n_bad;
        self.console.advance(done);
        if done.is_multiple_of(1000) || done == self.total {
            self.console.status(done, "images");
        }
    }

    fn check(&self, allowed: u64, bad_list: &Path) -> anyhow::Result<()> {
        let Self { n_good, n_bad, .. } = *self;
        if n_bad > allowed {
            let n = match n_bad {
                1 => "1 image".to_owned(),
                n => format!("{} images", format_count(n)),
            };
            return Err(usage(
                Exit::DataOrMachine,
                format!(
                    "{n} of {} cannot be used, and --skip-bad allows {allowed}; {} names all of them; \
                     repair or remove them, or give --skip-bad {n_bad}",
                    format_count(n_good + n_bad),
                    bad_list.display(),
                ),
            ));
        }
        if n_good == 0 {
            return Err(usage(Exit::DataOrMachine, "no image is left to make a shard of"));
        }
        Ok(())
    }
}

fn open(args: &MakeArgs, console: &mut Console) -> anyhow::Result<Images> {
    let from: &From = &args.from;
    let folder = from.folder.as_ref().map(|root| (root, Layout::Classes));
    let unlabeled = from.unlabeled_folder.as_ref().map(|root| (root, Layout::Unlabeled));
    if let Some((root, layout)) = folder.or(unlabeled) {
        let policy = OnBadSample::Skip { budget: args.skip_bad };
        let folder = ImageFolder::open(root, layout, policy)?;
        let classes = folder.classes().to_vec();
        return Ok(Images { source: Arc::new(folder), classes, metadata: Some(root.clone()) });
    }
    let set = if let Some(archive) = &from.imagenet_train {
        console.report(&format!("walking over {}", archive.display()));
        let mut is_started = false;
        let set = ImageNet::train(archive, IndexFiles::Beside, &mut |done, total| {
            if !is_started {
                console.start(0, total);
                is_started = true;
            }
            console.advance(done);
            console.status(done, "bytes of headers");
        })?;
        console.finish();
        set
    } else {
        let Some([archive, devkit]) = from.imagenet_val.as_deref() else {
            return Err(usage(Exit::Usage, "expected --imagenet-val ARCHIVE DEVKIT"));
        };
        ImageNet::validation(archive, devkit, IndexFiles::Beside)?
    };
    let classes = set.classes().to_vec();
    Ok(Images { source: Arc::new(set), classes, metadata: None })
}

/// The manifest that is there already, if its other split goes with these images, or a new one.
pub(crate) fn joined(described: &Described, classes: &[String]) -> anyhow::Result<Manifest> {
    let Described { manifest: path, split, about } = described;
    let new = Manifest {
        name: about.name.clone(),
        license: about.license.clone(),
        source: about.source.clone(),
        classes: classes.to_vec(),
        ..Manifest::default()
    };
    if !path.exists() {
        return Ok(new);
    }
    let old = Manifest::load(path)?;
    let other = match Split::from(*split) {
        Split::Train => &old.test,
        Split::Test => &old.train,
    };
    if !other.is_empty() && (&old.name, &old.classes) != (&new.name, &new.classes) {
        let (path, name) = (path.display(), &old.name);
        return Err(usage(
            Exit::Usage,
            format!(
                "{path} describes {name}, which has another name or other classes; give another file"
            ),
        ));
    }
    let (train, test) = (old.train, old.test);
    Ok(Manifest { train, test, ..new })
}

/// Writes the manifest with these shards as those of the split.
pub(crate) fn save(
    mut manifest: Manifest,
    described: &Described,
    shards: Vec<ShardEntry>,
) -> anyhow::Result<()> {
    match Split::from(described.split) {
        Split::Train => manifest.train = shards,
        Split::Test => manifest.test = shards,
    }
    Ok(manifest.save(&described.manifest)?)
}

/// Reads and shrinks on several threads; the order is that of the positions.
fn feed(args: &MakeArgs, images: Images) -> anyhow::Result<Feed<Taken>> {
    let n_samples = images.source.len();
    let stream = Seed(0).stream(Purpose::Order, At::default());
    let order = (args.order == Order::Mixed).then(|| Permutation::new(stream, n_samples));
    let indices =
        (0..n_samples).map(move |at| Ok(order.as_ref().map_or(at, |order| order.get(at))));
    let images = Arc::new(images);
    let limit = Limit { max_side: args.max_side, quality: args.quality };
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("sample", args.workers.into(), AHEAD, indices)?;
    let lanes = pipeline.map("recode", lanes, AHEAD, |_| {
        let images = Arc::clone(&images);
        move |sample_index| -> Result<Taken, StageError> {
            Ok(sample(&images, sample_index, limit)?)
        }
    })?;
    Ok(pipeline.feed(lanes))
}

fn sample(images: &Images, sample_index: u64, limit: Limit) -> anyhow::Result<Taken> {
    let read = match images.source.read(sample_index) {
        Ok(read) => read,
        Err(error) => match error.bad_sample(sample_index) {
            Some(bad) => return Ok(Taken::Bad(bad)),
            None => return Err(error.into()),
        },
    };
    let (name, path) = (short_name(&read.key.name), read.key.to_string());
    let Payload::Encoded(bytes) = read.payload else {
        anyhow::bail!("{path} is no encoded image");
    };
    let image = match limited(bytes, limit) {
        Ok(image) => image,
        Err(error) => {
            let reason = format!("{error:#}");
            return Ok(Taken::Bad(BadSample { sample_index, path, reason }));
        }
    };
    let label = images.source.label(sample_index)?.filter(|_| !images.classes.is_empty());
    let metadata = match &images.metadata {
        Some(root) => metadata(root, &read.key.name)?,
        None => Sidecar::None,
    };
    Ok(Taken::Good(Sample { name, image, label, metadata }))
}

/// The JSON beside an image, if there is any.
fn metadata(root: &Path, image: &str) -> anyhow::Result<Sidecar> {
    let path = root.join(image).with_extension("json");
    let unfit = |reason: &str| Ok(Sidecar::Unfit(format!("metadata {}: {reason}", path.display())));
    // Looked at before it is opened: a pipe would wait for somebody to write to it.
    let json = match std::fs::metadata(&path) {
        Ok(found) if !found.is_file() => return unfit("it is no regular file"),
        Ok(found) if found.len() > SIDECAR_BYTES_MAX => {
            return unfit(&format!("it has {} bytes", found.len()));
        }
        Ok(_) => std::fs::read(&path),
        Err(error) => Err(error),
    };
    match json {
        Ok(json) => match check_metadata(&json) {
            Ok(()) => Ok(Sidecar::Fit(json)),
            Err(reason) => unfit(&reason),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Sidecar::None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            unfit(&error.to_string())
        }
        Err(source) => Err(IngestError::Io { action: "read", path, source }.into()),
    }
}

/// The file name without folders and extension, in the letters that a key may have.
fn short_name(name: &str) -> String {
    let file = name.rsplit_once('/').map_or(name, |(_, file)| file);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    stem.chars().take(NAME_LETTERS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_what_a_key_may_hold() {
        for (name, expected) in [
            ("n01440764/n01440764_10026.JPEG", "n01440764_10026"),
            ("a b/größe.v2.png", "gr__e_v2"),
            ("plain", "plain"),
        ] {
            assert_eq!(short_name(name), expected);
        }
        assert_eq!(short_name(&"x".repeat(100)).len(), NAME_LETTERS);
    }
}
