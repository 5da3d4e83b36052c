//! `shard verify` and `shard inspect`: reads every shard and says what is wrong or what it holds.

use std::sync::Arc;

use moco_augment::RgbImage;
use moco_cli::{Console, Exit, print_result, usage};
use moco_ingest::{
    BadSample, IngestError, Manifest, Payload, ShardSet, Source as _, Split, Survey,
};
use moco_pipeline::{Pipeline, StageError};
use moco_telemetry::{format_bytes, format_count};

use crate::args::{LookArgs, VerifyArgs};
use crate::place;

/// Images that wait in each lane for their decoder.
const DECODE_AHEAD: usize = 8;
/// Hashtags that are listed.
const TOP_HASHTAGS: usize = 10;

pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<Exit> {
    let (mut n_wrong, mut n_bad) = (0, 0);
    each_split(&args.look, |split, set, console| {
        let before = n_wrong;
        let mut survey = Survey::default();
        walk(set, console, &mut survey, |console, error| {
            console.report(&format!("wrong: {:#}", anyhow::Error::from(error)));
            n_wrong += 1;
            Ok(())
        })?;
        let n_right = set.entries().len() - (n_wrong - before);
        print_result(&format!("{split}: {n_right} of {} shards are right", set.entries().len()));
        if let Some(left_out) = left_out(&survey) {
            print_result(&format!("  {left_out}"));
        }
        // Images of a shard that is wrong cannot be trusted, or not even read.
        if args.decode && n_wrong == before {
            let bad = undecodable(set, args.workers.into(), console)?;
            n_bad += bad;
            let (n, total) = (format_count(set.len() - bad), format_count(set.len()));
            print_result(&format!("{split}: {n} of {total} images decode"));
        }
        Ok(())
    })?;
    let shards = match n_wrong {
        0 => None,
        1 => Some("1 shard is wrong".to_owned()),
        n => Some(format!("{n} shards are wrong")),
    };
    let images = match n_bad {
        0 => None,
        1 => Some("1 image does not decode".to_owned()),
        n => Some(format!("{n} images do not decode")),
    };
    let faults: Vec<String> = shards.into_iter().chain(images).collect();
    if faults.is_empty() {
        return Ok(Exit::Done);
    }
    Err(usage(Exit::DataOrMachine, faults.join(", and ")))
}

/// Decodes every image as training does, names those that cannot be, and returns how many they are.
fn undecodable(set: &Arc<ShardSet>, workers: usize, console: &mut Console) -> anyhow::Result<u64> {
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("sample", workers, DECODE_AHEAD, (0..set.len()).map(Ok))?;
    let lanes = pipeline.map("decode", lanes, DECODE_AHEAD, |_| {
        let set = Arc::clone(set);
        move |sample_index| -> Result<Option<BadSample>, StageError> {
            Ok(bad_sample(&set, sample_index)?)
        }
    })?;
    let mut feed = pipeline.feed(lanes);
    console.start(0, set.len());
    let mut n_bad = 0;
    for done in 1.. {
        let Some(bad) = feed.recv()? else { break };
        if let Some(bad) = bad {
            n_bad += 1;
            console.report(&format!("bad: {bad}"));
        }
        console.advance(done);
        if done.is_multiple_of(100) || done == set.len() {
            console.status(done, "images decoded");
        }
    }
    console.finish();
    Ok(n_bad)
}

/// Why an image cannot be trained on, if it cannot.
fn bad_sample(set: &ShardSet, sample_index: u64) -> anyhow::Result<Option<BadSample>> {
    let sample = match set.read(sample_index) {
        Ok(sample) => sample,
        Err(error) => match error.bad_sample(sample_index) {
            Some(bad) => return Ok(Some(bad)),
            None => return Err(error.into()),
        },
    };
    let path = sample.key.to_string();
    let decoded = match sample.payload {
        Payload::Encoded(bytes) => RgbImage::decode(&bytes),
        Payload::Rgb { width, height, pixels } => RgbImage::new(width, height, pixels),
    };
    let reason = |error| format!("{:#}", anyhow::Error::from(error));
    Ok(decoded.err().map(|error| BadSample { sample_index, path, reason: reason(error) }))
}

/// What the shards hold besides images, in words.
fn left_out(survey: &Survey) -> Option<String> {
    let one = |(extension, n): (&String, &u64)| match extension.as_str() {
        "" => format!("{} without an extension", format_count(*n)),
        extension => format!("{} .{extension}", format_count(*n)),
    };
    let kinds: Vec<String> = survey.left_out.iter().map(one).collect();
    (!kinds.is_empty())
        .then(|| format!("left out, members that are no images: {}", kinds.join(", ")))
}

pub(crate) fn inspect(args: &LookArgs) -> anyhow::Result<Exit> {
    each_split(args, |split, set, console| {
        let mut survey = Survey::default();
        walk(set, console, &mut survey, |_, error| Err(error.into()))?;
        print_result(&describe(split, set, &survey));
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn each_split(
    args: &LookArgs,
    mut look: impl FnMut(Split, &Arc<ShardSet>, &mut Console) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let manifest = Manifest::load(&args.manifest)?;
    let place = place::open(args)?;
    let mut console = Console::detect();
    for split in [Split::Train, Split::Test] {
        if !manifest.shards(split).is_empty() {
            let set = Arc::new(ShardSet::lazy(place.clone(), &manifest, split)?);
            look(split, &set, &mut console)?;
        }
    }
    Ok(())
}

/// Surveys one shard after the other while the next one is fetched.
fn walk(
    set: &ShardSet,
    console: &mut Console,
    survey: &mut Survey,
    mut failed: impl FnMut(&Console, IngestError) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let sizes = set.shard_sizes();
    let total = set.entries().map(|entry| entry.bytes).sum();
    console.start(0, total);
    let (mut done, mut first) = (0, 0);
    for (shard_idx, entry) in set.entries().enumerate() {
        first += sizes[shard_idx];
        if first < set.len() {
            set.will_read(first)?;
        }
        if let Err(error) = set.survey(shard_idx, survey) {
            failed(console, error)?;
        }
        done += entry.bytes;
        console.advance(done);
        console.status(done, &format!("bytes, {}", entry.file));
    }
    console.finish();
    Ok(())
}

fn describe(split: Split, set: &ShardSet, survey: &Survey) -> String {
    let mean = survey.image_bytes.checked_div(survey.n_samples).unwrap_or(0);
    let mut lines = vec![format!(
        "{split}: {} images in {} shards; an image has {} on average, {} to {}",
        format_count(survey.n_samples),
        set.entries().len(),
        format_bytes(mean),
        format_bytes(survey.smallest),
        format_bytes(survey.largest),
    )];
    if let (Some(fewest), Some(most)) = (survey.labels.values().min(), survey.labels.values().max())
    {
        lines.push(format!(
            "  {} of {} classes occur, with {} to {} images each; {} images have no label",
            format_count(survey.labels.len() as u64),
            set.n_classes().unwrap_or(0),
            format_count(*fewest),
            format_count(*most),
            format_count(survey.n_unlabeled),
        ));
    } else {
        lines.push("  no labels".to_owned());
    }
    if survey.n_metadata > 0 {
        let mut top: Vec<(&String, &u64)> = survey.hashtags.iter().collect();
        top.sort_by_key(|(hashtag, n)| (std::cmp::Reverse(**n), *hashtag));
        let top = top.iter().take(TOP_HASHTAGS).map(|(hashtag, n)| format!("#{hashtag} {n}"));
        lines.push(format!(
            "  {} images have metadata, with {} hashtags: {}",
            format_count(survey.n_metadata),
            format_count(survey.hashtags.len() as u64),
            top.collect::<Vec<_>>().join(", "),
        ));
    }
    lines.extend(left_out(survey).map(|left_out| format!("  {left_out}")));
    lines.join("\n")
}
