//! Draws a picture of images and their views, and writes what a view was made of.
#![forbid(unsafe_code)]

mod dump;
mod rows;
mod sheet;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use moco_cli::{Exit, print_result, run_program, sources, usage};
use moco_config::load_pretrain;
use moco_train::training_recipe;

use rows::Wanted;

const EXAMPLES: &str = "\
Examples:
  cargo xtask preview                                         the first images of the default run
  cargo xtask preview --images 4 --draws 3                    their views of three epochs
  cargo xtask preview configs/pretrain/moco-v2-in1m-200ep.toml --set data.root=/data/imagenet
  cargo xtask preview runs/0001-default/config.toml --step 1200 --index 17
                                                              what that run saw there
  cargo xtask preview --index 3 --dump view.safetensors       also the pixels, and view.json with every
                                                              number that was drawn

The picture has a row for each image: the image with the boxes of its views, then the query's view framed
in orange and the key's in blue, once for each draw. Small images are shown enlarged. Each row is described
on standard output too.

A view of the dump can be made again with Pillow: bins/preview/tests/repeat_views.py does so and compares.

Exit codes: 0 done, 1 failed, 2 usage or config, 3 data missing or damaged, or a file that cannot be written.";

/// Draws a contact sheet of images and their views, as a pretraining config makes them.
///
/// Images, order and randomness are those of the trainer: the row of step S and index I shows what it got
/// there, bit for bit. No encoder is needed, and no run.
#[derive(Debug, Parser)]
#[command(name = "preview", version, after_help = EXAMPLES)]
struct Args {
    /// The config of a pretraining run; the one inside a run's folder will do.
    #[arg(default_value = "configs/pretrain/default.toml")]
    config: PathBuf,
    /// Overrides a key of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Images, from the first of the step on; past the end of the batch come those of the next step.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    images: u32,
    /// Draws of the two views of each image: those of its epoch, then those it gets in the epochs after.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    draws: u32,
    /// The step whose batch is shown; the first of a run is 0.
    #[arg(long, value_name = "S", default_value_t = 0)]
    step: u64,
    /// Only the image at this place of the batch, from 0; may be repeated.
    #[arg(long = "index", value_name = "I", conflicts_with = "images")]
    indices: Vec<u64>,
    /// The picture to write, a PNG file.
    #[arg(long, value_name = "FILE", default_value = "preview.png")]
    out: PathBuf,
    /// Also writes images and views as u8 tensors [H, W, 3], and a JSON file of the same name beside it.
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
}

fn main() -> ExitCode {
    run_program(|_| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let json = args.dump.as_ref().map(|file| file.with_extension("json"));
    if json.is_some() && json == args.dump {
        let text = "--dump names the file of tensors, and the JSON file is written beside it: \
                    give it another ending, such as .safetensors";
        return Err(usage(Exit::Usage, text));
    }
    let loaded = load_pretrain(&args.config, &args.sets)?;
    let indices = if args.indices.is_empty() {
        (0..u64::from(args.images)).collect()
    } else {
        let batch_size = loaded.plan.batch_size as u64;
        if let Some(index) = args.indices.iter().find(|index| **index >= batch_size) {
            let last = batch_size - 1;
            let text = format!("--index {index} is past the batch: it has places 0 to {last}");
            return Err(usage(Exit::Usage, text));
        }
        args.indices.clone()
    };
    sheet::check_size(loaded.recipe.image_size, indices.len(), args.draws)?;
    let wanted = Wanted { step: args.step, indices, n_draws: args.draws };
    let recipe = training_recipe(loaded.recipe, loaded.fidelity)?;
    let shown = rows::draw(&loaded.plan, &sources(&loaded)?.train, &recipe, &wanted)?;
    for row in &shown.rows {
        print_result(&shown.describe(row));
    }
    let picture = sheet::draw(&shown);
    let png = sheet::to_png(&picture).context("cannot encode the picture")?;
    write(&args.out, &png)?;
    if let (Some(file), Some(json)) = (&args.dump, &json) {
        write(file, &dump::tensors(&shown)?)?;
        write(json, dump::numbers(&shown, &loaded, &recipe)?.as_bytes())?;
    }
    Ok(Exit::Done)
}

fn write(file: &std::path::Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(file, bytes).map_err(|error| {
        usage(Exit::DataOrMachine, format!("cannot write {}: {error}", file.display()))
    })?;
    print_result(&format!("written to {}", file.display()));
    Ok(())
}
