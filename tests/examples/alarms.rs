//! The campaign of the alarms, for docs/results.md: seeded faults, each of which must be named within 200 steps, and
//! good runs of full length, which must ring nothing.
//! `cargo run --release -p moco-tests --example alarms -- faults small 5`, the same with `default`, and
//! `cargo run --release -p moco-tests --example alarms -- good` with the names of runs, or all of them.

#[path = "../faults/mod.rs"]
mod faults;

use std::time::Instant;

use anyhow::bail;
use faults::{FAULTS, Heard, Recipe, SMALL, WITHIN, draw, listen, listen_to};

/// The default run as it is.
const DEFAULT: Recipe = Recipe { sets: &[], base_lr: 0.5 };

/// The CIFAR-10 notebook's settings on the network and the data of the default run.
const NOTEBOOK: &[&str] = &[
    "moco.temperature=0.1",
    "encoder.head=\"fc\"",
    "encoder.bn_groups=8",
    "optim.base_lr=0.03",
    "augment.crop_scale=[0.08,1.0]",
    "schedule.kind=\"cosine_per_epoch\"",
];
/// Those of MoCo v1 on ImageNet, with its milestones at 60 and 80 % of the run.
const V1: &[&str] = &[
    "moco.temperature=0.07",
    "moco.key_momentum=0.999",
    "encoder.head=\"fc\"",
    "optim.base_lr=0.03",
    "optim.weight_decay=1e-4",
    "augment.recipe=\"v1\"",
    "schedule.kind=\"steps\"",
    "schedule.milestones=[23,31]",
    "schedule.gamma=0.1",
];
/// Those of MoCo v2 on ImageNet.
const V2: &[&str] = &[
    "moco.key_momentum=0.999",
    "optim.base_lr=0.03",
    "optim.weight_decay=1e-4",
    "augment.recipe=\"v2\"",
    "schedule.kind=\"cosine_per_epoch\"",
];

/// Good runs by name: overrides of the default run, and seeds.
const GOOD: [(&str, &[&str], u64); 5] = [
    ("default", &[], 8),
    ("notebook", NOTEBOOK, 3),
    ("v1", V1, 3),
    ("v2", V2, 3),
    ("base_lr=0.02", &["optim.base_lr=0.02"], 3),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["faults", "small", seeds] => faults(SMALL, seeds.parse()?),
        ["faults", "default", seeds] => faults(DEFAULT, seeds.parse()?),
        ["good", ref names @ ..] => good(names),
        _ => bail!("expected `faults small|default SEEDS` or `good [NAME…]`"),
    }
}

fn faults(recipe: Recipe, n_seeds: u64) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    draw(data.path())?;
    let (mut named, mut all) = (0, 0);
    for fault in &FAULTS {
        for seed in 0..n_seeds {
            let heard = listen_to(fault, recipe, seed, data.path())?;
            let first = heard.findings.first().map(|finding| finding.alarm);
            let is_named = first == Some(fault.alarm) && heard.step <= WITHIN;
            (named, all) = (named + u64::from(is_named), all + 1);
            print(fault.name, seed, &heard);
        }
    }
    moco_cli::print_result(&format!("{named} of {all} faults were named"));
    if named < all {
        bail!("{} faults were not named within {WITHIN} steps", all - named);
    }
    Ok(())
}

fn good(names: &[&str]) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let textures = moco_textures::TexturesConfig::standard(2);
    moco_textures::write(data.path(), &textures, &mut |_, _| ())?;
    let (mut silent, mut all) = (0, 0);
    for (name, sets, seeds) in GOOD {
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        for seed in 0..seeds {
            let start = Instant::now();
            let whole = u64::MAX;
            let heard = listen(DEFAULT, &sets, seed, data.path(), &|components| components, whole)?;
            let is_silent = heard.findings.is_empty() && heard.error.is_none();
            (silent, all) = (silent + u64::from(is_silent), all + 1);
            print(&format!("{name} ({:.0} s)", start.elapsed().as_secs_f64()), seed, &heard);
        }
    }
    moco_cli::print_result(&format!("{silent} of {all} good runs rang nothing"));
    if silent < all {
        bail!("{} good runs rang an alarm", all - silent);
    }
    Ok(())
}

fn print(name: &str, seed: u64, heard: &Heard) {
    let first = heard.findings.first().map(ToString::to_string);
    let first = first.or_else(|| heard.error.clone()).unwrap_or_else(|| "no alarm".into());
    moco_cli::print_result(&format!("{name}, seed {seed}: step {}: {first}", heard.step));
}
