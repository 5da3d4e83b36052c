//! `shard make`: from a folder or an archive to shards, index files and a manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use moco_cli::{Console, Exit, print_result, usage};
use moco_ingest::{
    ImageFolder, ImageNet, IndexFiles, Manifest, Payload, ShardWriter, Source, Split,
};
use moco_pipeline::{Feed, Pipeline, StageError};
use moco_rng::{At, Permutation, Purpose, Seed};
use moco_telemetry::{format_bytes, format_count};

use crate::args::{From, MakeArgs, Order, SplitName};
use crate::recode::{Encoded, format_of, limited};

/// Images that wait in each lane.
const AHEAD: usize = 16;
/// Letters of an image's name that go into its key.
const NAME_LETTERS: usize = 60;

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
    metadata: Option<Vec<u8>>,
}

/// The outcome for an image.
enum Taken {
    Good(Sample),
    /// It cannot go into a shard, and why.
    Bad(anyhow::Error),
}

pub(crate) fn run(args: &MakeArgs) -> anyhow::Result<Exit> {
    let mut console = Console::detect();
    let images = open(&args.from, &mut console)?;
    let split = match args.split {
        SplitName::Train => Split::Train,
        SplitName::Test => Split::Test,
    };
    let mut manifest = manifest(args, split, &images.classes)?;
    let writer = ShardWriter::new(&args.out, &split.to_string(), args.samples_per_shard.into())?;
    let mut writer = writer.index_files(IndexFiles::Beside);
    let total = images.source.len();
    let mut feed = feed(args, images)?;
    console.start(0, total);
    let (mut done, mut n_bad) = (0, 0);
    while let Some(taken) = feed.recv()? {
        let sample = match taken {
            Taken::Good(sample) => sample,
            Taken::Bad(error) if n_bad < args.skip_bad => {
                n_bad += 1;
                console.report(&format!("skipped: {error:#}"));
                continue;
            }
            Taken::Bad(error) if n_bad == 0 => {
                let hint =
                    "repair or remove it, or give --skip-bad N to leave out up to N such images";
                return Err(error.context(format!("an image is bad; {hint}")));
            }
            Taken::Bad(error) => {
                let budget = format!("more images are bad than the {n_bad} of --skip-bad");
                return Err(error.context(budget));
            }
        };
        let key = format!("{done:09}_{}", sample.name);
        writer.push(&key, sample.image.format, &sample.image.bytes, sample.label)?;
        if let Some(json) = &sample.metadata {
            writer.push_metadata(json)?;
        }
        done += 1;
        console.advance(done + n_bad);
        if done % 1000 == 0 || done + n_bad == total {
            console.status(done + n_bad, "images");
        }
    }
    console.finish();
    if done == 0 {
        return Err(usage(Exit::DataOrMachine, "no image is left to make a shard of"));
    }
    let shards = writer.finish()?;
    let bytes = shards.iter().map(|shard| shard.bytes).sum();
    print_result(&format!(
        "{}: {} images in {} shards of {} in all, described by {}",
        args.out.display(),
        format_count(done),
        shards.len(),
        format_bytes(bytes),
        args.manifest.display(),
    ));
    if n_bad > 0 {
        print_result(&format!("{} images were skipped", format_count(n_bad)));
    }
    match split {
        Split::Train => manifest.train = shards,
        Split::Test => manifest.test = shards,
    }
    manifest.save(&args.manifest)?;
    Ok(Exit::Done)
}

fn open(from: &From, console: &mut Console) -> anyhow::Result<Images> {
    if let Some(root) = from.folder.as_ref().or(from.unlabeled_folder.as_ref()) {
        let folder = ImageFolder::open(root)?;
        let labeled = from.folder.is_some();
        let classes = if labeled { folder.classes().to_vec() } else { Vec::new() };
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
fn manifest(args: &MakeArgs, split: Split, classes: &[String]) -> anyhow::Result<Manifest> {
    let new = Manifest {
        name: args.name.clone(),
        license: args.license.clone(),
        source: args.source.clone(),
        classes: classes.to_vec(),
        ..Manifest::default()
    };
    if !args.manifest.exists() {
        return Ok(new);
    }
    let old = Manifest::load(&args.manifest)?;
    let other = match split {
        Split::Train => &old.test,
        Split::Test => &old.train,
    };
    if !other.is_empty() && (&old.name, &old.classes) != (&new.name, &new.classes) {
        let (path, name) = (args.manifest.display(), &old.name);
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

/// Reads and shrinks on several threads; the order is that of the positions.
fn feed(args: &MakeArgs, images: Images) -> anyhow::Result<Feed<Taken>> {
    let n_samples = images.source.len();
    let stream = Seed(0).stream(Purpose::Order, At::default());
    let order = (args.order == Order::Mixed).then(|| Permutation::new(stream, n_samples));
    let indices =
        (0..n_samples).map(move |at| Ok(order.as_ref().map_or(at, |order| order.get(at))));
    let images = Arc::new(images);
    let (max_side, quality) = (args.max_side, args.quality);
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("sample", args.workers.into(), AHEAD, indices)?;
    let lanes = pipeline.map("recode", lanes, AHEAD, |_| {
        let images = Arc::clone(&images);
        move |sample_index| -> Result<Taken, StageError> {
            Ok(sample(&images, sample_index, max_side, quality)?)
        }
    })?;
    Ok(pipeline.feed(lanes))
}

fn sample(
    images: &Images,
    sample_index: u64,
    max_side: Option<u32>,
    quality: u8,
) -> anyhow::Result<Taken> {
    let read = images.source.read(sample_index)?;
    let (name, place) = (short_name(&read.key.name), read.key.to_string());
    let Payload::Encoded(bytes) = read.payload else {
        anyhow::bail!("{place} is no encoded image");
    };
    let image = match max_side {
        Some(max_side) => limited(bytes, max_side, quality),
        None => format_of(&bytes).map(|format| Encoded { format, bytes }),
    };
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            return Ok(Taken::Bad(
                error.context(format!("the image {place} cannot go into a shard")),
            ));
        }
    };
    let label = images.source.label(sample_index)?.filter(|_| !images.classes.is_empty());
    let metadata = images.metadata.as_deref().map(|root| metadata(root, &read.key.name));
    Ok(Taken::Good(Sample { name, image, label, metadata: metadata.transpose()?.flatten() }))
}

fn metadata(root: &Path, image: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let path = root.join(image).with_extension("json");
    match std::fs::read(&path) {
        Ok(json) => Ok(Some(json)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
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
