//! `shard verify` and `shard inspect`: reads every shard and says what is wrong or what it holds.

use moco_cli::{Console, Exit, print_result, usage};
use moco_ingest::{IngestError, Manifest, ShardSet, Source as _, Split, Survey};
use moco_telemetry::{format_bytes, format_count};

use crate::args::LookArgs;
use crate::place;

/// Hashtags that are listed.
const TOP_HASHTAGS: usize = 10;

pub(crate) fn verify(args: &LookArgs) -> anyhow::Result<Exit> {
    let mut n_wrong = 0;
    each_split(args, |split, set, console| {
        let before = n_wrong;
        walk(set, console, &mut Survey::default(), |console, error| {
            console.report(&format!("wrong: {:#}", anyhow::Error::from(error)));
            n_wrong += 1;
            Ok(())
        })?;
        let n_right = set.entries().len() - (n_wrong - before);
        print_result(&format!("{split}: {n_right} of {} shards are right", set.entries().len()));
        Ok(())
    })?;
    match n_wrong {
        0 => Ok(Exit::Done),
        1 => Err(usage(Exit::DataOrMachine, "1 shard is wrong")),
        _ => Err(usage(Exit::DataOrMachine, format!("{n_wrong} shards are wrong"))),
    }
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
    mut look: impl FnMut(Split, &ShardSet, &mut Console) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let manifest = Manifest::load(&args.manifest)?;
    let place = place::open(args)?;
    let mut console = Console::detect();
    for split in [Split::Train, Split::Test] {
        if !manifest.shards(split).is_empty() {
            let set = ShardSet::lazy(place.clone(), &manifest, split)?;
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
    lines.join("\n")
}
