//! Times two 224-pixel views of each JPEG of a folder, in memory; `cargo xtask bench data` runs it.
//!
//! usage: `data_bench FOLDER THREADS REPEATS`. Prints a line of JSON for each case, then one with the
//! microseconds an image of each stage.
#![expect(clippy::print_stdout, reason = "a program that measures")]

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context as _;
use moco_augment::{
    Augmentation as _, Fidelity, Normalizer, Recipe, RecipeConfig, RecipeKind, RgbImage, Step,
};
use moco_rng::{At, Purpose, Seed, Stream};
use serde_json::{Map, json};

const SIDE: u32 = 224;
const N_SAMPLES: usize = 3 * (SIDE * SIDE) as usize;
const FIDELITIES: [(&str, Fidelity); 2] = [("exact", Fidelity::Exact), ("fast", Fidelity::Fast)];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, n_threads, n_repeats] = args.as_slice() else {
        anyhow::bail!("usage: data_bench FOLDER THREADS REPEATS");
    };
    let (n_threads, n_repeats): (usize, usize) = (n_threads.parse()?, n_repeats.parse()?);
    let files = read_files(folder)?;
    for (name, fidelity) in FIDELITIES {
        for output in ["f32", "u8"] {
            let work = || views(&files, fidelity, output, 0..files.len());
            work()?;
            let mut seconds = Vec::new();
            for _ in 0..n_repeats {
                let start = Instant::now();
                if n_threads == 1 {
                    work()?
                } else {
                    in_threads(&files, fidelity, output, n_threads)?
                }
                seconds.push(start.elapsed().as_secs_f64());
            }
            println!(
                "{}",
                json!({
                    "peer": format!("{name} {output}"), "threads": n_threads, "n_files": files.len(), "seconds": seconds,
                })
            );
        }
    }
    if n_threads == 1 {
        for (name, fidelity) in FIDELITIES {
            println!("{}", json!({"stages": name, "microseconds": stages(&files, fidelity)?}));
        }
    }
    Ok(())
}

fn read_files(folder: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("no folder {folder}"))?
        .flatten()
        .collect();
    paths.sort_by_key(std::fs::DirEntry::path);
    paths.iter().map(|entry| Ok(std::fs::read(entry.path())?)).collect()
}

fn recipe(fidelity: Fidelity) -> anyhow::Result<Recipe> {
    let config = RecipeConfig { image_size: SIDE, crop_scale: (0.2, 1.0), kind: RecipeKind::V2 };
    Ok(Recipe::new(config)?.with_fidelity(fidelity))
}

fn normalizer() -> Normalizer {
    Normalizer::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
}

fn streams(index: usize) -> Vec<Stream> {
    let stream =
        |view| Seed(1).stream(Purpose::Augment, At { epoch: 0, index: index as u64, view });
    vec![stream(0), stream(1)]
}

fn views(
    files: &[Vec<u8>],
    fidelity: Fidelity,
    output: &str,
    indices: impl Iterator<Item = usize>,
) -> anyhow::Result<()> {
    let (recipe, normalizer) = (recipe(fidelity)?, normalizer());
    let mut normalized = vec![0.0; N_SAMPLES];
    for index in indices {
        for view in recipe.views(&files[index], streams(index))? {
            if output == "f32" {
                normalizer.apply(&view, fidelity, &mut normalized)?;
                black_box(&normalized);
            }
            black_box(&view);
        }
    }
    Ok(())
}

fn in_threads(files: &[Vec<u8>], fidelity: Fidelity, output: &str, n: usize) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let work = |first| move || views(files, fidelity, output, (first..files.len()).step_by(n));
        let threads: Vec<_> = (0..n).map(|first| scope.spawn(work(first))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })
}

/// Microseconds an image; every stage on whole decoded images, so they add up to a little more than the
/// whole, which decodes only what the views show.
fn stages(files: &[Vec<u8>], fidelity: Fidelity) -> anyhow::Result<Map<String, serde_json::Value>> {
    let (recipe, normalizer) = (recipe(fidelity)?, normalizer());
    let names = ["decode", "crop and resize", "jitter", "grayscale", "blur", "flip", "normalize"];
    let mut seconds = [0.0; 7];
    let mut normalized = vec![0.0; N_SAMPLES];
    for (index, file) in files.iter().enumerate() {
        let mut clock = Instant::now();
        let mut lap = |stage: usize| {
            seconds[stage] += clock.elapsed().as_secs_f64();
            clock = Instant::now();
        };
        let image = RgbImage::decode(file)?;
        lap(0);
        for stream in streams(index) {
            let mut drawn = recipe.draw(image.width(), image.height(), stream);
            let steps = std::mem::take(&mut drawn.steps);
            let mut view = drawn.apply_as(&image, fidelity)?;
            lap(1);
            for step in steps {
                step.apply_as(&mut view, fidelity);
                lap(match step {
                    Step::Jitter(_) => 2,
                    Step::Grayscale => 3,
                    Step::Blur { .. } => 4,
                    Step::Flip => 5,
                });
            }
            normalizer.apply(&view, fidelity, &mut normalized)?;
            lap(6);
        }
    }
    let micros = |seconds: f64| json!((seconds * 1e7 / files.len() as f64).round() / 10.0);
    Ok(names.into_iter().map(String::from).zip(seconds.map(micros)).collect())
}
