//! The configs of the repository say what the papers say.

use std::collections::BTreeSet;
use std::fs;

use moco_config::{LoadedPretrain, changed_keys};
use moco_train::{DataPlan, ShardsPlan};

use crate::{config_path, load};

const BASE: &str = "base.toml";

fn recipe(name: &str) -> LoadedPretrain {
    load(name, &[]).unwrap_or_else(|error| panic!("{}", error.render()))
}

/// The recipes: each file but the one that they extend.
pub(crate) fn recipes() -> Vec<String> {
    let files = fs::read_dir(config_path("")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name != BASE).collect();
    assert!(names.len() >= 6, "{names:?}");
    names
}

#[test]
fn each_recipe_loads_and_its_head_says_how_to_run_it() {
    for name in recipes() {
        let data = recipe(&name).data;
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
        assert!(text.contains("\nextends = \""), "{name} repeats what base.toml says");
    }
}

/// The keys of a section, as the error for an unknown one lists them.
fn known_keys(section: &str) -> BTreeSet<String> {
    let error = load("default.toml", &[&format!("{section}.no_such_key=0")]).unwrap_err().render();
    let (_, names) = error.rsplit_once("= help: allowed: ").unwrap();
    names.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_base_holds_every_key_once_behind_a_comment() {
    let text = fs::read_to_string(config_path(BASE)).unwrap();
    let (mut section, mut above, mut seen) = ("", "", Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        // A key that each recipe decides follows a `#`, with an example.
        let assignment = line.strip_prefix("# ").unwrap_or(line).split_once(" = ");
        let is_name = |word: &str| {
            word.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
        };
        if let Some((key, value)) = assignment.filter(|(key, _)| is_name(key)) {
            assert!(toml::from_str::<toml::Table>(&format!("x = {value}")).is_ok(), "{line}");
            // Keys that belong together share the comment above the first.
            assert!(!above.is_empty(), "no comment above {section}.{key}");
            seen.push((section.to_owned(), key.to_owned()));
        }
        above = if line.starts_with('[') { "" } else { line };
    }
    let once: BTreeSet<(String, String)> = seen.iter().cloned().collect();
    assert_eq!(seen.len(), once.len(), "a key occurs twice");
    let top = load("default.toml", &["no_such_key=0"]).unwrap_err().render();
    let (_, names) = top.rsplit_once("= help: allowed: ").unwrap();
    let mut expected = BTreeSet::from([(String::new(), "format".to_owned())]);
    for section in names.split(", ").filter(|name| *name != "format") {
        expected.extend(known_keys(section).into_iter().map(|key| (section.to_owned(), key)));
    }
    assert_eq!(once, expected);
}

#[test]
fn the_base_is_no_recipe() {
    let error = load(BASE, &[]).unwrap_err().to_string();
    assert!(error.ends_with("base.toml:54:2: missing key `augment.recipe`"), "{error}");
}

/// Files of the table below, in the order of its columns.
const FILES: [&str; 5] = [
    "moco-v1-in1m-200ep.toml",
    "moco-v1-ig1b.toml",
    "moco-v2-in1m-200ep.toml",
    "moco-v2-in1m-800ep.toml",
    "cifar10-notebook.toml",
];
const NONE: &str = "";

/// What distinguishes the recipes, and what all of them take from the base, with the place that says so: v1 is
/// arXiv 1911.05722v3, v2 arXiv 2003.04297, then the authors' scripts, then the names in their notebook.
const TABLE: &[(&str, &str, [&str; 5])] = &[
    ("run.epochs", "v1 §4; v2 Table 1 (d), (e); epochs", ["200", NONE, "200", "800", "200"]),
    ("run.steps", "v1 §4: 1.25M iterations", [NONE, "1250000", NONE, NONE, NONE]),
    ("augment.recipe", "v1 §3.3; v2 §3", ["\"v1\"", "\"v1\"", "\"v2\"", "\"v2\"", "\"cifar\""]),
    ("augment.image_size", "v1 §3.3; RandomResizedCrop", ["224", "224", "224", "224", "32"]),
    (
        "augment.crop_scale",
        "main_moco.py:326-348; torchvision's default",
        ["[0.2, 1.0]", "[0.2, 1.0]", "[0.2, 1.0]", "[0.2, 1.0]", "[0.08, 1.0]"],
    ),
    (
        "augment.mean",
        "main_moco.py:323-325; Normalize",
        [IMAGENET_MEAN, IMAGENET_MEAN, IMAGENET_MEAN, IMAGENET_MEAN, "[0.4914, 0.4822, 0.4465]"],
    ),
    (
        "augment.std",
        "main_moco.py:323-325; Normalize",
        [IMAGENET_STD, IMAGENET_STD, IMAGENET_STD, IMAGENET_STD, "[0.2023, 0.1994, 0.201]"],
    ),
    ("encoder.arch", "v1 §4; arch", [R50, R50, R50, R50, "\"resnet18\""]),
    (
        "encoder.stem",
        "v1 §3.3; ModelBase",
        ["\"imagenet\"", "\"imagenet\"", "\"imagenet\"", "\"imagenet\"", "\"cifar\""],
    ),
    ("encoder.width", "v1 Table 1", ["1.0"; 5]),
    ("encoder.head", "v1 §3.3; v2 §3", ["\"fc\"", "\"fc\"", "\"mlp\"", "\"mlp\"", "\"fc\""]),
    ("encoder.bn_groups", "v1 §4: GPUs; bn_splits", ["8", "64", "8", "8", "8"]),
    (
        "encoder.bn_running",
        "rank 0 of DistributedDataParallel; SplitBatchNorm",
        ["\"first\"", "\"first\"", "\"first\"", "\"first\"", "\"mean\""],
    ),
    ("moco.queue_size", "v1 §4.1; moco_k", ["65536", "65536", "65536", "65536", "4096"]),
    ("moco.key_momentum", "v1 §3.2; moco_m", ["0.999", "0.999", "0.999", "0.999", "0.99"]),
    ("moco.temperature", "v1 §3.3; v2 §3; moco_t", ["0.07", "0.07", "0.2", "0.2", "0.1"]),
    ("moco.dim", "v1 §3.3; moco_dim", ["128"; 5]),
    ("moco.symmetric", "v1 Algorithm 1; symmetric", ["false"; 5]),
    ("moco.shuffle_bn", "v1 §3.3, Shuffling BN", ["true"; 5]),
    ("moco.queue_precision", "builder.py:50-53", ["\"f32\""; 5]),
    ("optim.batch_size", "v1 §4; batch_size", ["256", "1024", "256", "256", "512"]),
    ("optim.base_lr", "v1 §4: 0.03, and 0.12 at 1024; lr 0.06 at 512", ["0.03"; 5]),
    ("optim.sgd_momentum", "v1 §4; momentum", ["0.9"; 5]),
    ("optim.weight_decay", "v1 §4; wd", ["0.0001", "0.0001", "0.0001", "0.0001", "0.0005"]),
    (
        "schedule.kind",
        "v1 §4; v2 Table 1, cos; cos",
        ["\"steps\"", "\"exponential\"", COSINE, COSINE, COSINE],
    ),
    ("schedule.milestones", "v1 §4: at 120 and 160", ["[120, 160]", NONE, NONE, NONE, NONE]),
    ("schedule.gamma", "v1 §4: 0.1; 0.9 each", ["0.1", "0.9", NONE, NONE, NONE]),
    ("schedule.every_steps", "v1 §4: 62.5k iterations", [NONE, "62500", NONE, NONE, NONE]),
    ("monitor.n_neighbors", "the notebook's knn_k", ["200"; 5]),
    ("monitor.temperature", "the notebook's knn_t", ["0.1"; 5]),
    ("evaluate.resize", "main_lincls.py:340-382", ["256", "256", "256", "256", "32"]),
    ("evaluate.linear_epochs", "v1 §4.1", ["100"; 5]),
    ("evaluate.linear_batch_size", "main_lincls.py:55-98", ["256"; 5]),
    ("evaluate.linear_lr", "v1 §4.1: 30", ["30.0"; 5]),
    ("evaluate.linear_milestones", "main_lincls.py:55-98", ["[60, 80]"; 5]),
    ("evaluate.linear_sgd_momentum", "main_lincls.py:55-98", ["0.9"; 5]),
    ("evaluate.linear_weight_decay", "v1 §4.1: 0", ["0.0"; 5]),
];
const IMAGENET_MEAN: &str = "[0.485, 0.456, 0.406]";
const IMAGENET_STD: &str = "[0.229, 0.224, 0.225]";
const R50: &str = "\"resnet50\"";
const COSINE: &str = "\"cosine_per_epoch\"";

#[test]
fn recipes_say_what_their_sources_say() {
    for (file_idx, file) in FILES.iter().enumerate() {
        let resolved: toml::Table = recipe(file).resolved.parse().unwrap();
        for (key, place, expected) in TABLE {
            let (section, name) = key.split_once('.').unwrap();
            let got = resolved[section].get(name).map_or(NONE.to_owned(), toml::Value::to_string);
            assert_eq!(got, expected[file_idx], "{file}: {key}, {place}");
        }
    }
}

fn differences(a: &str, b: &str) -> Vec<String> {
    let changes = changed_keys(&recipe(a).resolved, &recipe(b).resolved).unwrap();
    changes.into_iter().map(|change| change.key).collect()
}

#[test]
fn v2_differs_from_v1_by_the_four_changes_of_its_table() {
    let [v1, _, v2, v2_800, _] = FILES;
    let cos = ["schedule.gamma", "schedule.kind", "schedule.milestones"];
    let changes = ["augment.recipe", "encoder.head", "moco.temperature"];
    assert_eq!(differences(v1, v2), [&changes[..], &cos].concat());
    assert_eq!(differences(v2, v2_800), ["run.epochs"]);
}

#[test]
fn rates_are_those_of_the_papers_at_their_batches() {
    for (file, expected) in FILES.iter().zip([0.03, 0.12, 0.03, 0.03, 0.06]) {
        let lr = recipe(file).plan.lr;
        assert!((lr - expected).abs() < 1e-12, "{file}: {lr}");
    }
}

#[test]
fn ig1b_reads_a_store_in_windows() {
    let loaded = recipe("moco-v1-ig1b.toml");
    let DataPlan::Shards { place: ShardsPlan::Cached { cache_bytes, .. }, .. } = loaded.data else {
        panic!("{:?}", loaded.data);
    };
    assert_eq!(loaded.plan.window_shards, 64);
    // Two windows are on disk at a time, of about 1 GB a shard.
    assert!(cache_bytes >= 2 * 64 * 1_000_000_000, "{cache_bytes}");
    // A folder instead of the store brings the keys of folders back.
    let folder = ["data.root=shards", "data.verify=when_read"];
    load("moco-v1-ig1b.toml", &folder).unwrap_or_else(|error| panic!("{}", error.render()));
}
