//! Layers, the resolved text, and what a resume may change.

use std::fs;

use moco_config::{
    KeyChange, StoredConfig, changed_keys, check_resume, compare_stored, load_pretrain,
    load_pretrain_text, load_stored_pretrain,
};
use moco_train::{DataPlan, Layout, Length, OnBadSample, ShardCheck, ShardsPlan};
use proptest::prelude::*;

use crate::{load, load_fixture, meaning};

/// Loads a resolved text again.
fn reload(resolved: &str) -> moco_config::LoadedPretrain {
    let loaded = load_pretrain_text(resolved, "config.toml");
    loaded.unwrap_or_else(|error| panic!("{}\n{resolved}", error.render()))
}

#[test]
fn a_text_without_a_folder_extends_nothing() {
    let error = load_pretrain_text("extends = \"a.toml\"\n", "step-7").unwrap_err();
    assert_eq!(error.to_string(), "step-7:1:1: unknown key `extends`");
}

#[test]
fn each_committed_config_survives_resolving() {
    for name in crate::committed::recipes() {
        let loaded = load(&name, &[]).unwrap();
        assert!(!loaded.resolved.contains("extends"), "{}", loaded.resolved);
        assert_eq!(meaning(&reload(&loaded.resolved)), meaning(&loaded));
    }
}

proptest! {
    #[test]
    fn any_value_survives_resolving(
        root in ".+",
        temperature in 1e-300_f64..1e300,
        base_lr in 0.0_f64..1e3,
        milestones in proptest::collection::btree_set(any::<u32>(), 0..5),
    ) {
        let milestones: Vec<u32> = milestones.into_iter().collect();
        let sets = [
            format!("data.root={}", toml::Value::from(root.clone())),
            format!("moco.temperature={temperature:e}"),
            format!("optim.base_lr={base_lr:?}"),
            format!("evaluate.linear_milestones={milestones:?}"),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let loaded = load_fixture(&sets).unwrap();
        prop_assert_eq!(loaded.plan.moco.temperature, temperature);
        prop_assert_eq!(&loaded.plan.evaluation.linear.milestones, &milestones);
        let DataPlan::Shards { place: ShardsPlan::Folder { root: read, .. }, .. } = &loaded.data
        else { panic!("no shards in a folder") };
        prop_assert_eq!(read.to_str(), Some(root.as_str()));
        prop_assert_eq!(meaning(&reload(&loaded.resolved)), meaning(&loaded));
        prop_assert_eq!(changed_keys(&loaded.resolved, &loaded.resolved).unwrap(), []);
    }
}

#[test]
fn each_line_says_where_its_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(crate::fixture(), folder.path().join("base.toml")).unwrap();
    let path = folder.path().join("mine.toml");
    fs::write(&path, "extends = \"base.toml\"\nmoco.dim = 64\n[run]\nepochs = 2\n").unwrap();
    let loaded = load_pretrain(&path, &["data.root=x".to_owned()]).unwrap();
    let resolved = loaded.resolved.replace(&format!("{}/", folder.path().display()), "");
    for line in [
        "root = \"x\"  # --set",
        "dim = 64  # mine.toml:2",
        "epochs = 2  # mine.toml:4",
        "seed = 0  # base.toml:4",
    ] {
        assert!(resolved.lines().any(|each| each == line), "{line}:\n{resolved}");
    }
    assert!(resolved.starts_with("format = 3  # base.toml:2\n\n[run]\nseed = 0  # "), "{resolved}");
}

#[test]
fn a_choice_above_drops_what_it_makes_meaningless_below() {
    let length = |sets: &[&str]| load_fixture(sets).unwrap().plan.length;
    assert_eq!(length(&["run.epochs=3"]), Length::Epochs(3));
    assert_eq!(length(&["run.epochs=3", "run.steps=9"]), Length::Steps(9));
    let loaded = load("moco-v1-in1m-200ep.toml", &["schedule.kind=constant"]).unwrap();
    assert!(!loaded.resolved.contains("gamma") && !loaded.resolved.contains("\nmilestones"));
    let loaded = load_fixture(&["data.source=mnist", "data.root=m"]).unwrap();
    assert_eq!(loaded.data, DataPlan::Mnist { root: "m".into() });
    let folder = ["data.source=image_folder", "data.root=i"];
    let loaded = load_fixture(&folder).unwrap();
    let folder_plan = |layout, test_root| DataPlan::ImageFolder {
        root: "i".into(),
        layout,
        test_root,
        on_bad_sample: OnBadSample::Fail,
    };
    assert_eq!(loaded.data, folder_plan(Layout::Classes, None));
    let loaded = load_fixture(&[&folder[..], &["data.test_root=t"]].concat()).unwrap();
    assert_eq!(loaded.data, folder_plan(Layout::Classes, Some("t".into())));
    let loaded = load_fixture(&["data.source=unlabeled_folder", "data.root=i"]).unwrap();
    assert_eq!(loaded.data, folder_plan(Layout::Unlabeled, None));
    let loaded = load_fixture(&["data.source=imagenet", "data.root=a"]).unwrap();
    assert_eq!(loaded.data, DataPlan::ImageNet { root: "a".into() });
    assert_eq!(loaded.plan.window_shards, 0);
}

#[test]
fn a_root_that_is_a_store_drops_what_belongs_to_folders_and_back() {
    let place = |sets: &[&str]| match load_fixture(sets).unwrap().data {
        DataPlan::Shards { place, .. } => place,
        other => panic!("{other:?}"),
    };
    for address in ["s3://bucket/prefix", "https://host/prefix", "http://host:9000"] {
        let root = format!("data.root={address}");
        let address = address.to_owned();
        let ranges = ShardsPlan::Ranges { address: address.clone() };
        assert_eq!(place(&[&root]), ranges);
        let cache = ["data.cache=c", "data.cache_bytes=1000000000000"];
        let cache_bytes = 1_000_000_000_000;
        let cached = ShardsPlan::Cached { address, cache: "c".into(), cache_bytes };
        assert_eq!(place(&[&root, cache[0], cache[1]]), cached);
        for (name, check) in [
            ("checksums", ShardCheck::Checksums),
            ("sizes", ShardCheck::Sizes),
            ("when_read", ShardCheck::WhenRead),
        ] {
            let verify = format!("data.verify={name}");
            let back = [&root, cache[0], cache[1], "data.root=f", &verify];
            assert_eq!(place(&back), ShardsPlan::Folder { root: "f".into(), check });
        }
        // A run may move between the disk and a store.
        let [old, new] = [&["data.window_shards=0"][..], &[&root, cache[0], cache[1]]]
            .map(|sets| load_fixture(sets).unwrap().resolved);
        assert_eq!(check_resume("r", &old, &new).unwrap().len(), 4);
        assert_eq!(check_resume("r", &new, &old).unwrap().len(), 4);
    }
}

#[test]
fn every_key_changes_the_run() {
    let base = load_fixture(&[]).unwrap();
    let sets = [
        "run.seed=1",
        "run.steps=2",
        "run.epochs=2",
        "run.precision=bf16",
        "run.cuda_graph=true",
        "run.conv_backend=graph",
        "data.source=cifar10",
        "data.root=r",
        "data.manifest=m",
        "data.window_shards=2",
        "data.verify=sizes",
        "data.readers=2",
        "data.decoders=2",
        "data.exif=apply",
        "augment.recipe=v1",
        "augment.fidelity=fast",
        "augment.finish_on=gpu",
        "augment.image_size=31",
        "augment.crop_scale=[0.2, 0.9]",
        "augment.mean=[1, 0, 0]",
        "augment.std=[1, 2, 3]",
        "augment.pairing=shuffled",
        "encoder.arch=resnet18",
        "encoder.stem=imagenet",
        "encoder.width=1",
        "encoder.head=fc",
        "encoder.bn_groups=4",
        "encoder.bn_running=first",
        "moco.mechanism=end_to_end",
        "moco.queue_size=9",
        "moco.key_momentum=0",
        "moco.temperature=1",
        "moco.dim=9",
        "moco.symmetric=true",
        "moco.shuffle_bn=false",
        "moco.queue_precision=bf16",
        "optim.kind=lars",
        "optim.batch_size=32",
        "optim.base_lr=0",
        "optim.sgd_momentum=0",
        "optim.weight_decay=0",
        "optim.warmup_epochs=1",
        "schedule.kind=constant",
        "log.every_steps=1",
        "checkpoint.every_steps=1",
        "checkpoint.keep=1",
        "monitor.knn_every_steps=1",
        "monitor.n_neighbors=1",
        "monitor.temperature=1",
        "monitor.bank=0",
        "evaluate.at_end=false",
        "evaluate.resize=40",
        "evaluate.activations=as_trained",
        "evaluate.linear_epochs=1",
        "evaluate.linear_batch_size=1",
        "evaluate.linear_lr=1",
        "evaluate.linear_milestones=[]",
        "evaluate.linear_sgd_momentum=0",
        "evaluate.linear_weight_decay=1",
        "health.stop_on_collapse=false",
    ];
    for set in sets {
        let loaded = load_fixture(&[set]).unwrap_or_else(|e| panic!("{}", e.render()));
        assert_ne!(meaning(&loaded), meaning(&base), "{set} has no effect");
        let changes = changed_keys(&base.resolved, &loaded.resolved).unwrap();
        let key = set.split('=').next().unwrap();
        assert!(changes.iter().any(|change| change.key == key && change.origin == "--set"));
    }
    let n_lines = base.resolved.lines().filter(|line| line.contains(" = ")).count();
    // `run.epochs` stands for `run.steps`, `data.on_bad_sample` changes with its budget only, and then `format`.
    assert_eq!(n_lines, sets.len() + 1);
    let skip = |budget| load_fixture(&["data.on_bad_sample=skip", budget]).unwrap();
    let (one, two) = (skip("data.bad_sample_budget=1"), skip("data.bad_sample_budget=2"));
    assert_ne!(meaning(&one), meaning(&base));
    assert_ne!(meaning(&one), meaning(&two));
    let zero = ["data.on_bad_sample=skip", "data.bad_sample_budget=0"];
    let error = load_fixture(&zero).err().map(|error| error.render()).unwrap();
    assert!(error.contains("data.bad_sample_budget must be at least 1, got 0"), "{error}");
}

#[test]
fn the_learning_rate_follows_the_batch() {
    let lr = |set| load_fixture(&[set]).unwrap().plan.lr;
    for (set, expected) in [("optim.batch_size=64", 0.125), ("optim.batch_size=512", 1.0)] {
        assert!((lr(set) - expected).abs() < 1e-12, "{set}: {}", lr(set));
    }
}

#[test]
fn a_change_of_spelling_is_no_change() {
    let old = "[moco]\ntemperature = 1\ndim = 0x80\n";
    let new = "moco = { dim = 128, temperature = 1.0 }\n";
    assert_eq!(changed_keys(old, new).unwrap(), []);
    let changed = changed_keys(old, "[moco]\ntemperature = 1\ndim = 64 # a.toml:2\n").unwrap();
    let (old, new) = (Some("128".to_owned()), Some("64".to_owned()));
    assert_eq!(
        changed,
        [KeyChange { key: "moco.dim".into(), old, new, origin: "a.toml:2".into() }]
    );
}

#[test]
fn a_resume_may_change_what_does_not_change_the_numbers() {
    let old = load_fixture(&[]).unwrap().resolved;
    let allowed = [
        "log.every_steps=1",
        "checkpoint.keep=9",
        "data.readers=2",
        "data.decoders=3",
        "data.root=r",
        "data.on_bad_sample=skip",
        "data.bad_sample_budget=9",
        "monitor.bank=0",
    ];
    let new = load_fixture(&allowed).unwrap().resolved;
    let changes = check_resume("runs/a", &old, &new).unwrap();
    assert_eq!(changes.len(), allowed.len());

    let new = load_fixture(&["moco.queue_size=512", "log.every_steps=1"]).unwrap().resolved;
    assert_eq!(
        check_resume("runs/a", &old, &new).unwrap_err().render(),
        "error: runs/a was trained with moco.queue_size = 1024; \
         --set moco.queue_size=512 would change it\n  \
         = help: a resume may change run.cuda_graph, log.*, checkpoint.*, data.readers, data.decoders, data.root, \
         data.test_root, data.manifest, data.cache, data.cache_bytes, data.verify, data.on_bad_sample, data.bad_sample_budget, \
         monitor.*, evaluate.*; --extend STEPS makes a run longer, and --fork RUN begins another one with its \
         encoders and queue"
    );
    let new = load_fixture(&["run.epochs=3"]).unwrap().resolved;
    assert_eq!(
        check_resume("runs/a", &old, &new).unwrap_err().to_string(),
        "runs/a was trained with no run.epochs; --set run.epochs=3 would change it \
         and run.steps = 1500; the new config does not set it"
    );
    let new = old.replace("dim = 128", "dim = 64");
    let error = check_resume("runs/a", &old, &new).unwrap_err().to_string();
    assert!(error.contains("moco.dim = 128; "), "{error}");
    assert!(error.ends_with("fixture.toml:40 would change it to 64"), "{error}");
}

/// Keys that came with a format: each with what an older config means, as text and as a plan, and another value.
const ADDED: &[(&str, &str, &str, &str, &str)] = &[
    ("run.conv_backend", "\"legacy\"", "conv_backend: Legacy", "\"graph\"", "[run]"),
    ("data.exif", "\"ignore\"", "exif: Ignore", "\"apply\"", "[data]"),
    ("moco.mechanism", "\"queue\"", "mechanism: Queue", "\"end_to_end\"", "[moco]"),
    ("optim.kind", "\"sgd\"", "optimizer: Sgd", "\"lars\"", "[optim]"),
    ("optim.warmup_epochs", "0", "schedule: CosinePerStep", "3", "[optim]"),
    ("evaluate.activations", "\"f32\"", "activations: F32", "\"as_trained\"", "[evaluate]"),
];

/// A stored text that begins with `format` and lacks the line of a key.
fn without(text: &str, key: &str, format: &str) -> String {
    let (section, name) = key.split_once('.').unwrap();
    let (before, inside) = text.split_once(&format!("[{section}]\n")).unwrap();
    let line = inside.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
    let (_, before) = before.split_once('\n').unwrap();
    format!("{format}{before}[{section}]\n{}", inside.replacen(&format!("{line}\n"), "", 1))
}

#[test]
fn a_config_of_an_older_format_means_what_it_meant() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    for (key, value, meant, other, section) in ADDED {
        let set = format!("{key}={other}");
        let text = load_fixture(&[&set]).unwrap().resolved;
        assert!(text.starts_with("format = 3  # "), "{text}");
        assert!(!meaning(&reload(&text)).contains(meant), "{key}");
        // The config of a run without a number, and a user's that names the first format.
        let old = without(&text, key, "");
        let stored = reload(&old);
        assert!(meaning(&stored).contains(meant), "{key}: {}", meaning(&stored));
        let name = key.rsplit('.').next().unwrap();
        let line = format!("{name} = {value}  # older programs:2\n");
        assert!(stored.resolved.contains(&line), "{line}: {}", stored.resolved);
        assert!(stored.resolved.starts_with("format = 3  # older programs:1\n"), "{key}");
        fs::write(&file, without(&text, key, "format = 1\n")).unwrap();
        assert_eq!(meaning(&load_pretrain(&file, &[]).unwrap()), meaning(&stored));

        // A resume compares with what the run meant.
        let again = |sets: &[String]| load_stored_pretrain(&old, "r", sets).unwrap().resolved;
        assert_eq!(check_resume("runs/a", &old, &again(&[])).unwrap(), []);
        let changed = check_resume("runs/a", &old, &again(std::slice::from_ref(&set)));
        if key.starts_with("evaluate.") {
            // It changes no number of the training, so a resume may change it.
            assert_eq!(changed.unwrap().len(), 1, "{key}");
        } else {
            assert_eq!(
                changed.unwrap_err().to_string(),
                format!(
                    "runs/a was trained with {key} = {value}; \
                     --set {key}={other} would change it"
                )
            );
        }

        // Today's format has the key, and a text that was cut off is no old one.
        let cut = reload_error(&without(&text, key, "format = 3\n"));
        assert!(cut.ends_with(&format!(": missing key `{key}`")), "{cut}");
        let (cut, _) = old.split_once(section).unwrap();
        let section = section.trim_matches(['[', ']']);
        let expected = format!("config.toml:1:1: missing key `{section}`");
        assert_eq!(reload_error(&format!("{cut}\n")), expected);
    }
}

fn reload_error(text: &str) -> String {
    load_pretrain_text(text, "config.toml").unwrap_err().to_string()
}

#[test]
fn a_younger_config_is_refused_wherever_it_is_stored() {
    let text = load_fixture(&[]).unwrap().resolved.replace("format = 3  ", "format = 4  ");
    let expected = "this config has format 4, and this program reads up to 3";
    assert_eq!(reload_error(&text), format!("config.toml:1:10: {expected}"));
    let error = check_resume("runs/a", &text, &text).unwrap_err().to_string();
    assert_eq!(error, format!("old config:1:10: {expected}"));
}

#[test]
fn a_stored_config_is_the_same_or_missing_or_torn_or_edited() {
    let text = load_fixture(&[]).unwrap().resolved;
    let compared = |file: Option<&str>| compare_stored(file, &text).unwrap();
    let plain: String =
        text.lines().map(|line| line.split('#').next().unwrap().to_owned() + "\n").collect();
    for same in [&text, &plain] {
        assert_eq!(compared(Some(same)), StoredConfig::Same);
    }
    assert_eq!(compared(None), StoredConfig::Missing);
    // The last line's comment is no loss.
    let last = text.rfind('=').unwrap();
    for len in (0..last).step_by(7) {
        assert_eq!(compared(Some(&text[..len])), StoredConfig::Torn, "{len}");
    }
    for torn in ["\0\0\0", "format = ", "not a config"] {
        assert_eq!(compared(Some(torn)), StoredConfig::Torn, "{torn:?}");
    }
    let edited = text.replace("dim = 128 ", "dim = 64 ").replace("symmetric = false", "# none");
    let StoredConfig::Edited(changes) = compared(Some(&edited)) else { panic!("{edited}") };
    let of = |change: &KeyChange| (change.key.clone(), change.old.clone(), change.new.clone());
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("moco.dim".to_owned(), some("128"), some("64")),
        ("moco.symmetric".to_owned(), some("false"), None),
    ];
    assert_eq!(changes.iter().map(of).collect::<Vec<_>>(), expected);
    let error = compare_stored(Some(&text), "[run").unwrap_err().to_string();
    assert!(error.starts_with("the config in the checkpoint:1:"), "{error}");
}
