//! What bf16 activations do to the accuracies of runs: the same images through the same encoder with f32 on
//! the CPU and with bf16 on the emulated GPU. For docs/results.md:
//! `cargo run --release -p moco-tests --features emulator --example bf16_accuracy -- RUN…`

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use candle_core::DType;
use moco_cli::{Activations, Device, labeled_features, trained_encoder};
use moco_evaluate::{FeatureSet, KnnConfig, knn_accuracy, linear_accuracy, train_linear};
use moco_ops::emulate;
use moco_train::{TrainedEncoder, linear_config};

fn main() -> anyhow::Result<()> {
    let print = moco_cli::print_result;
    print("run  activations  images  seconds  kNN  linear");
    for run in std::env::args().skip(1) {
        let activations: Activations = "f32".parse().map_err(anyhow::Error::msg)?;
        let mut trained = trained_encoder(Path::new(&run), Device::Cpu, activations)?;
        let row = |what: &str, start: Instant, sets: &[FeatureSet; 2], of: [f64; 2]| {
            let (images, seconds) = (sets[0].len() + sets[1].len(), start.elapsed().as_secs_f64());
            let [knn, linear] = of;
            print(&format!("{run}  {what}  {images}  {seconds:.1}  {knn:.2}  {linear:.2}"));
        };
        let start = Instant::now();
        let sets = labeled_features(&mut trained, None)?.map(|of| of.features);
        row("f32", start, &sets, accuracies(&trained, &sets)?);
        trained.placement.dtype = DType::BF16;
        let start = Instant::now();
        let (sets, launched) = emulate(|| labeled_features(&mut trained, None));
        let sets = sets?.map(|of| of.features);
        launched
            .iter()
            .find(|name| *name == "bn_normalize_relu_bf16")
            .context("no activations were stored in bf16")?;
        row("bf16", start, &sets, accuracies(&trained, &sets)?);
    }
    Ok(())
}

/// kNN and linear, as at the end of a run; both on the CPU in f32.
fn accuracies(
    trained: &TrainedEncoder,
    [train, test]: &[FeatureSet; 2],
) -> anyhow::Result<[f64; 2]> {
    let plan = &trained.plan;
    let knn = plan.evaluation.knn;
    let knn = KnnConfig { n_neighbors: knn.n_neighbors, temperature: knn.temperature };
    let n_classes = train.n_classes().max(test.n_classes());
    let config = linear_config(&plan.evaluation.linear);
    let probe = train_linear(train, n_classes, &config, plan.seed, &mut |_, _| ())?;
    Ok([knn_accuracy(train, test, knn, &mut |_, _| ())?, linear_accuracy(&probe, test)?])
}
