//! The configs of the repository say what the papers say.

use std::fs;

use moco::{MocoConfig, QueuePrecision};
use moco_augment::{RecipeConfig, RecipeKind};
use moco_encoders::{Arch, BnConfig, EncoderConfig, HeadKind, ResNetConfig, RunningStats, Stem};
use moco_optim::{OptimizerConfig, Schedule, SgdConfig};
use moco_train::{DataPlan, Length, LinearPlan, PretrainPlan, ShardsPlan};

use crate::{config_path, load};

fn plan(name: &str) -> (PretrainPlan, RecipeConfig) {
    let loaded = load(name, &[]).unwrap();
    (loaded.plan, loaded.recipe)
}

#[test]
fn each_loads_and_its_head_says_how_to_run_it() {
    let files = fs::read_dir(config_path("")).unwrap();
    let names: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let data = match load(&name, &[]) {
            Ok(loaded) => loaded.data,
            Err(error) => panic!("{}", error.render()),
        };
        let text = fs::read_to_string(config_path(&name)).unwrap();
        let on_store = matches!(
            data,
            DataPlan::Shards { place: ShardsPlan::Cached { .. } | ShardsPlan::Ranges { .. }, .. }
        );
        let command = match name.as_str() {
            "default.toml" => "cargo xtask pretrain\n".to_owned(),
            _ if on_store => {
                format!("cargo xtask --features remote pretrain configs/pretrain/{name}\n")
            }
            _ if matches!(data, DataPlan::Cifar10 { .. } | DataPlan::Mnist { .. }) => {
                format!("cargo xtask --features cifar pretrain configs/pretrain/{name}\n")
            }
            _ => format!("cargo xtask pretrain configs/pretrain/{name}\n"),
        };
        for head in ["# Source ", "# Hardware ", "# Time ", "# Expected ", &command] {
            assert!(text.contains(head), "{name} lacks {head}");
        }
    }
}

const SGD: OptimizerConfig =
    OptimizerConfig::Sgd(SgdConfig { sgd_momentum: 0.9, weight_decay: 1e-4 });

/// arXiv 1911.05722 section 3 and the defaults of the official main_moco.py.
const V1: MocoConfig = MocoConfig {
    queue_size: 65536,
    key_momentum: 0.999,
    temperature: 0.07,
    dim: 128,
    symmetric: false,
    shuffle_bn: true,
    queue_precision: QueuePrecision::AsParameters,
};

fn resnet50(groups: usize) -> EncoderConfig {
    let bn = BnConfig { groups, running: RunningStats::First };
    let (arch, stem) = (Arch::ResNet50, Stem::ImageNet);
    EncoderConfig::ResNet(ResNetConfig { arch, stem, width: 1.0, bn })
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn v1_is_the_paper() {
    let (plan, recipe) = plan("moco-v1-in1m-200ep.toml");
    let crop_scale = (0.2, 1.0);
    assert_eq!(recipe, RecipeConfig { image_size: 224, crop_scale, kind: RecipeKind::V1 });
    assert_eq!((&plan.moco, plan.head), (&V1, HeadKind::Fc));
    assert_eq!((plan.encoder, plan.optimizer), (resnet50(8), SGD));
    assert_eq!((plan.length, plan.batch_size), (Length::Epochs(200), 256));
    assert!(near(plan.lr, 0.03), "{}", plan.lr);
    assert_eq!(plan.schedule, Schedule::Steps { milestones: vec![120, 160], gamma: 0.1 });
    assert_eq!(plan.input.mean, [0.485, 0.456, 0.406]);
    assert_eq!(plan.input.std, [0.229, 0.224, 0.225]);
    assert_eq!(plan.evaluation.resize, 256);
    let linear = LinearPlan {
        epochs: 100,
        batch_size: 256,
        lr: 30.0,
        milestones: vec![60, 80],
        sgd_momentum: 0.9,
        weight_decay: 0.0,
    };
    assert_eq!(plan.evaluation.linear, linear);
}

#[test]
fn v2_differs_from_v1_by_the_four_changes_of_its_table() {
    let (v1, v1_recipe) = plan("moco-v1-in1m-200ep.toml");
    for (name, epochs) in [("moco-v2-in1m-200ep.toml", 200), ("moco-v2-in1m-800ep.toml", 800)] {
        let (v2, recipe) = plan(name);
        assert_eq!(v2.moco, MocoConfig { temperature: 0.2, ..V1 });
        assert_eq!(v2.head, HeadKind::Mlp);
        assert_eq!(v2.schedule, Schedule::CosinePerEpoch);
        assert_eq!(recipe, RecipeConfig { kind: RecipeKind::V2, ..v1_recipe });
        assert_eq!(v2.length, Length::Epochs(epochs));
        assert_eq!(
            (v2.encoder, v2.optimizer, v2.batch_size),
            (v1.encoder, v1.optimizer, v1.batch_size)
        );
        assert!(near(v2.lr, v1.lr), "{}", v2.lr);
        assert_eq!((v2.input, v2.evaluation), (v1.input.clone(), v1.evaluation.clone()));
    }
}

#[test]
fn ig1b_counts_iterations_and_reads_a_store_in_windows() {
    let loaded = load("moco-v1-ig1b.toml", &[]).unwrap();
    let DataPlan::Shards { place: ShardsPlan::Cached { cache_bytes, .. }, .. } = loaded.data else {
        panic!("{:?}", loaded.data);
    };
    let (plan, recipe) = (loaded.plan, loaded.recipe);
    // Two windows of shards of a gigabyte.
    assert!(plan.window_shards > 0 && cache_bytes >= 2 * plan.window_shards as u64 * 1_000_000_000);
    assert_eq!((recipe.kind, plan.head, &plan.moco), (RecipeKind::V1, HeadKind::Fc, &V1));
    assert_eq!((plan.length, plan.batch_size), (Length::Steps(1_250_000), 1024));
    assert_eq!((plan.encoder, plan.optimizer), (resnet50(64), SGD));
    assert!(near(plan.lr, 0.12), "{}", plan.lr);
    assert_eq!(plan.schedule, Schedule::Exponential { every_steps: 62_500, gamma: 0.9 });
}

#[test]
fn cifar10_is_the_notebook() {
    let loaded = load("cifar10-notebook.toml", &[]).unwrap();
    let plan = loaded.plan;
    let crop_scale = (0.08, 1.0);
    let recipe = RecipeConfig { image_size: 32, crop_scale, kind: RecipeKind::Cifar };
    assert_eq!(loaded.recipe, recipe);
    assert!(matches!(loaded.data, DataPlan::Cifar10 { .. }), "{:?}", loaded.data);
    let moco = MocoConfig { queue_size: 4096, key_momentum: 0.99, temperature: 0.1, ..V1 };
    assert_eq!(plan.moco, moco);
    let bn = BnConfig { groups: 8, running: RunningStats::Mean };
    let encoder = ResNetConfig { arch: Arch::ResNet18, stem: Stem::Cifar, width: 1.0, bn };
    assert_eq!((plan.encoder, plan.head), (EncoderConfig::ResNet(encoder), HeadKind::Fc));
    assert_eq!((plan.length, plan.batch_size), (Length::Epochs(200), 512));
    assert!(near(plan.lr, 0.06), "{}", plan.lr);
    let sgd = SgdConfig { sgd_momentum: 0.9, weight_decay: 5e-4 };
    assert_eq!(plan.optimizer, OptimizerConfig::Sgd(sgd));
    assert_eq!(plan.schedule, Schedule::CosinePerEpoch);
    assert_eq!(plan.input.mean, [0.4914, 0.4822, 0.4465]);
    assert_eq!(plan.input.std, [0.2023, 0.1994, 0.2010]);
    assert_eq!((plan.evaluation.knn.n_neighbors, plan.evaluation.monitor_bank), (200, 0));
}
