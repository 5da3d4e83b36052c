//! Error messages, word for word.

use std::fs;

use moco_config::{ConfigError, load_pretrain};

use crate::{fixture, load_fixture};

/// The rendered error of the default config with an override, its path made short.
fn error_of(sets: &[&str]) -> String {
    let rendered = match load_fixture(sets) {
        Ok(_) => panic!("{sets:?} was accepted"),
        Err(error) => error.render(),
    };
    rendered.replace(&fixture().with_file_name("").display().to_string(), "")
}

#[test]
fn impossible_values_are_named_with_their_rule() {
    for (set, expected) in [
        ("run.steps=0", "run.steps must be at least 1, got 0"),
        ("run.epochs=0", "run.epochs must be at least 1, got 0"),
        (
            "run.steps=-4",
            "run.steps: invalid value: integer `-4`, expected a whole number, 0 or more",
        ),
        ("run.seed=1.5", "run.seed: invalid type: floating point `1.5`, expected a whole number"),
        ("run.precision=f16", "unknown run.precision \"f16\""),
        ("data.readers=0", "data.readers must be at least 1, got 0"),
        ("data.decoders=0", "data.decoders must be at least 1, got 0"),
        ("data.on_bad_sample=skipp", "unknown data.on_bad_sample \"skipp\""),
        ("data.on_bad_sample=skip", "data.on_bad_sample = \"skip\" needs data.bad_sample_budget"),
        (
            "data.bad_sample_budget=9",
            "data.bad_sample_budget has no meaning with data.on_bad_sample = \"fail\"",
        ),
        ("data.root=", "data.root must not be empty"),
        ("data.manifest=", "data.manifest must not be empty"),
        ("data.cache=", "data.cache must not be empty"),
        ("data.cache=c", "data.cache has no meaning with shards in a folder"),
        ("data.cache_bytes=1", "data.cache_bytes has no meaning with shards in a folder"),
        (
            "data.window_shards=-1",
            "data.window_shards: invalid value: integer `-1`, expected a whole number, 0 or more",
        ),
        (
            "data.root=gs://bucket",
            "data.root must be a folder or an address of s3://, https:// or http://, \
             got \"gs://bucket\"",
        ),
        ("data.verify=quick", "unknown data.verify \"quick\""),
        ("data.test_root=t", "data.test_root has no meaning with data.source = \"shards\""),
        ("augment.fidelity=rough", "unknown augment.fidelity \"rough\""),
        ("augment.finish_on=tpu", "unknown augment.finish_on \"tpu\""),
        ("augment.image_size=0", "augment.image_size must be from 1 to 20000, got 0"),
        ("augment.crop_scale=[0.5, 0.2]", "augment.crop_scale must be two shares of the area"),
        (
            "augment.mean=[0.5, 0.5]",
            "augment.mean: invalid length 2, expected an array of length 3",
        ),
        ("augment.mean=[0.5, -1, 0.5]", "augment.mean[1] must be 0 or more, got -1"),
        ("augment.std=[0.5, 0.5, 0]", "augment.std[2] must be greater than 0, got 0"),
        ("encoder.width=0", "encoder.width must be greater than 0, got 0"),
        ("encoder.bn_groups=0", "encoder.bn_groups must be at least 1, got 0"),
        ("moco.queue_size=0", "moco.queue_size must be at least 1, got 0"),
        ("moco.key_momentum=1.01", "moco.key_momentum must be from 0 to 1, got 1.01"),
        ("moco.key_momentum=-0.1", "moco.key_momentum must be from 0 to 1, got -0.1"),
        ("moco.temperature=0", "moco.temperature must be greater than 0, got 0"),
        ("moco.temperature=nan", "moco.temperature must be greater than 0, got NaN"),
        ("moco.dim=0", "moco.dim must be at least 1, got 0"),
        ("moco.symmetric=2", "moco.symmetric: invalid type: integer `2`, expected a boolean"),
        ("moco=3", "moco: invalid type: integer `3`, expected a section"),
        ("optim.batch_size=0", "optim.batch_size must be at least 1, got 0"),
        ("optim.base_lr=inf", "optim.base_lr must be 0 or more, got inf"),
        ("optim.sgd_momentum=1", "optim.sgd_momentum must be from 0 to less than 1, got 1"),
        ("optim.weight_decay=-1", "optim.weight_decay must be 0 or more, got -1"),
        ("schedule.kind=steps", "schedule.kind = \"steps\" needs schedule.gamma"),
        (
            "schedule.gamma=0.1",
            "schedule.gamma has no meaning with schedule.kind = \"cosine_per_step\"",
        ),
        ("checkpoint.keep=0", "checkpoint.keep must be at least 1, got 0"),
        ("monitor.n_neighbors=0", "monitor.n_neighbors must be at least 1, got 0"),
        ("monitor.temperature=0", "monitor.temperature must be greater than 0, got 0"),
        (
            "evaluate.resize=31",
            "evaluate.resize must be at least augment.image_size, got 31 and 32",
        ),
        ("evaluate.activations=bf16", "unknown evaluate.activations \"bf16\""),
        ("evaluate.linear_epochs=0", "evaluate.linear_epochs must be at least 1, got 0"),
        ("evaluate.linear_batch_size=0", "evaluate.linear_batch_size must be at least 1, got 0"),
        ("evaluate.linear_lr=0", "evaluate.linear_lr must be greater than 0, got 0"),
        (
            "evaluate.linear_milestones=[8, 8]",
            "evaluate.linear_milestones must be ascending, got [8, 8]",
        ),
        (
            "evaluate.linear_sgd_momentum=1",
            "evaluate.linear_sgd_momentum must be from 0 to less than 1",
        ),
        (
            "evaluate.linear_weight_decay=-1",
            "evaluate.linear_weight_decay must be 0 or more, got -1",
        ),
        ("moco.dim", "expected section.key=value"),
        ("extends=a.toml", "unknown key `extends`"),
    ] {
        let error = error_of(&[set]);
        assert!(error.starts_with(&format!("error: {expected}")), "{set}:\n{error}");
        assert!(error.contains("\n --> --set:1:"), "{error}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
}

#[test]
fn keys_of_one_place_are_refused_with_another() {
    const STORE: &str = "data.root=s3://bucket";
    for (sets, expected) in [
        (
            &["data.source=imagenet", "data.root=a", "data.window_shards=2"][..],
            "data.window_shards has no meaning with data.source = \"imagenet\"",
        ),
        (
            &["data.source=mnist", "data.root=a", "data.cache=c"],
            "data.cache has no meaning with data.source = \"mnist\"",
        ),
        (
            &["data.source=cifar10", "data.cache_bytes=1"],
            "data.cache_bytes has no meaning with data.source = \"cifar10\"",
        ),
        (
            &["data.source=imagenet", "data.test_root=t"],
            "data.test_root has no meaning with data.source = \"imagenet\"",
        ),
        (
            &["data.source=image_folder", STORE],
            "data.root is a store, where data.source = \"image_folder\" cannot read; \
             put shards there, which `cargo xtask shard make` makes",
        ),
        (&[STORE, "data.cache=c"], "data.cache needs data.cache_bytes"),
        (&[STORE, "data.cache_bytes=9"], "data.cache_bytes needs data.cache"),
        (&[STORE, "data.cache=c", "data.cache_bytes=0"], "data.cache_bytes must be at least 1"),
        (
            &[STORE, "data.verify=sizes"],
            "data.verify has no meaning with shards on a store; \
             a cache compares the checksum of each that it fetches",
        ),
    ] {
        let error = error_of(sets);
        assert!(error.starts_with(&format!("error: {expected}")), "{sets:?}:\n{error}");
        assert!(error.contains("\n --> --set:1:"), "{error}");
    }
}

#[test]
fn schedules_take_their_own_keys_only() {
    let steps = ["schedule.kind=steps", "schedule.gamma=0.1", "schedule.milestones=[9, 3]"];
    assert!(error_of(&steps).starts_with("error: schedule.milestones must be ascending"));
    let mixed = ["schedule.kind=steps", "schedule.gamma=0.1", "schedule.every_steps=9"];
    assert!(error_of(&mixed).contains("every_steps has no meaning with schedule.kind = \"steps\""));
    let exponential = ["schedule.kind=exponential", "schedule.gamma=0.1"];
    assert!(error_of(&exponential).contains("\"exponential\" needs schedule.every_steps"));
    let negative = ["schedule.kind=exponential", "schedule.gamma=-1", "schedule.every_steps=1"];
    assert!(error_of(&negative).contains("schedule.gamma must be greater than 0, got -1"));
}

#[test]
fn an_override_shows_itself_and_what_it_hides() {
    assert_eq!(
        error_of(&["moco.temperature=big"]),
        r#"error: moco.temperature: invalid type: string "big", expected a number
 --> --set:1:18
  |
1 | moco.temperature="big"
  |                  ^^^^^
  |
  = note: `moco.temperature` was also set at fixture.toml:39:1"#
    );
}

#[test]
fn two_keys_that_disagree_are_both_shown() {
    assert_eq!(
        error_of(&["encoder.bn_groups=3"]),
        r"error: optim.batch_size must be divisible by encoder.bn_groups, got 64 and 3
 --> --set:1:19
  |
1 | encoder.bn_groups=3
  |                   ^
  |
  = note: `optim.batch_size` is set at fixture.toml:47:1
  = note: `encoder.bn_groups` was also set at fixture.toml:33:1"
    );
}

#[test]
fn the_nearest_name_is_offered() {
    for (set, nearest) in [
        ("moco.momentom=1", "key_momentum"),
        ("optim.momentum=1", "sgd_momentum"),
        ("mocco.dim=1", "moco"),
        ("encoder.arch=resnet51", "resnet50"),
        ("encoder.stem=cifer", "cifar"),
        ("data.source=shard", "shards"),
    ] {
        let error = error_of(&[set]);
        assert!(error.contains(&format!("did you mean `{nearest}`?")), "{error}");
    }
    assert_eq!(
        error_of(&["encoder.head=vit"]),
        r#"error: unknown encoder.head "vit"
 --> --set:1:14
  |
1 | encoder.head="vit"
  |              ^^^^^
  |
  = note: `encoder.head` was also set at fixture.toml:32:1
  = help: allowed: fc, mlp"#
    );
}

/// A config that was copied without what it extends says what to do.
#[test]
fn a_file_to_extend_that_is_not_there() {
    let folder = Folder::new();
    folder.write("mine.toml", "# Mine.\nextends = \"base.toml\"\n");
    let error = folder.load("mine.toml");
    assert!(matches!(error, ConfigError::NothingToExtend(_)), "{error:?}");
    assert_eq!(
        folder.short(&error.render()),
        r#"error: cannot read base.toml, which this file extends: No such file or directory (os error 2)
 --> mine.toml:2:11
  |
2 | extends = "base.toml"
  |           ^^^^^^^^^^^
  |
  = help: `extends` is a path from the folder of this file: write there the path of the file that is meant, or copy that file, with what it extends itself, to this folder; `cargo xtask pretrain CONFIG --print-config` prints a config that extends nothing"#
    );
}

#[test]
fn files_that_extend_each_other() {
    let folder = Folder::new();
    folder.write("one.toml", "extends = \"./one.toml\"\n");
    folder.write("a.toml", "extends = \"b.toml\"\n");
    folder.write("b.toml", "\nextends = \"c.toml\"\n");
    folder.write("c.toml", "extends = \"a.toml\"\n");
    for (file, message, place) in [
        ("one.toml", "./one.toml extends itself", "one.toml:1:11"),
        ("a.toml", "a.toml extends itself", "c.toml:1:11"),
        ("b.toml", "b.toml extends itself", "a.toml:1:11"),
    ] {
        let error = folder.load(file);
        assert!(matches!(error, ConfigError::ExtendsItself(_)), "{error:?}");
        let (folder, error) = (&folder, error.to_string());
        assert_eq!(folder.short(&error), format!("{place}: {message}"));
    }
}

/// Each file of a chain is beside, below or far from the one that it extends.
#[test]
fn a_chain_may_cross_folders() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("deep")).unwrap();
    let base = fixture().display().to_string();
    folder.write("a.toml", &format!("extends = {base:?}\n[moco]\ndim = 1\nqueue_size = 1\n"));
    folder.write("deep/b.toml", "extends = \"../a.toml\"\nmoco.dim = 2\n");
    folder.write("deep/c.toml", "extends = \"b.toml\"\n[optim]\nbase_lr = 1\n");
    let path = folder.0.path().join("deep/c.toml");
    let moco = load_pretrain(&path, &["moco.temperature=3".to_owned()]).unwrap().plan.moco;
    assert_eq!((moco.dim, moco.queue_size, moco.temperature), (2, 1, 3.0));
}

#[test]
fn a_format_that_is_missing_or_unknown() {
    const NONE: &str = "`format = 3` at the top, or in a file that this one extends such as \
                        configs/pretrain/base.toml, says which keys there are; one from before there was a number \
                        is `format = 1`";
    const OTHER: &str = "use the release that wrote it, or a later one";
    let folder = Folder::new();
    let base = fs::read_to_string(fixture()).unwrap();
    for (line, message, help) in [
        ("", "a.toml:1:1: missing key `format`", NONE),
        (
            "format = 4\nan_unknown_key = 1",
            "a.toml:2:10: this config has format 4, and this program reads up to 3",
            OTHER,
        ),
        ("format = 0", "a.toml:2:10: format must be from 1 to 3, got 0", OTHER),
    ] {
        folder.write("a.toml", &base.replace("format = 3", line));
        let error = folder.load("a.toml");
        assert!(matches!(error, ConfigError::Format(_)), "{error:?}");
        assert_eq!(folder.short(&error.to_string()), message);
        assert!(error.render().ends_with(&format!("= help: {help}")), "{}", error.render());
    }
    folder.write("a.toml", &base.replace("format = 3", "format = \"2\""));
    assert_eq!(
        folder.short(&folder.load("a.toml").to_string()),
        "a.toml:2:10: format: invalid type: string \"2\", expected a whole number, 0 or more"
    );
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn load(&self, name: &str) -> ConfigError {
        load_pretrain(&self.0.path().join(name), &[]).unwrap_err()
    }

    fn error_of(&self, name: &str) -> String {
        self.short(&self.load(name).render())
    }

    /// A text without the path of this folder.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn an_unknown_key_is_shown_in_its_file() {
    let folder = Folder::new();
    let base = fs::read_to_string(fixture()).unwrap();
    folder.write("base.toml", &base);
    folder.write("mine.toml", "extends = \"base.toml\"\n\n[moco]\nmomentom = 0.99\n");
    assert_eq!(
        folder.error_of("mine.toml"),
        r"error: unknown key `moco.momentom`
 --> mine.toml:4:1
  |
4 | momentom = 0.99
  | ^^^^^^^^ did you mean `key_momentum`?
  |
  = help: allowed: mechanism, queue_size, key_momentum, temperature, dim, symmetric, shuffle_bn, queue_precision"
    );
}

#[test]
fn missing_keys_sections_and_lengths_are_named() {
    let folder = Folder::new();
    let base = fs::read_to_string(fixture()).unwrap();
    folder.write("a.toml", &base.replace("dim = 128\n", ""));
    assert_eq!(
        folder.error_of("a.toml"),
        r#"error: missing key `moco.dim`
  --> a.toml:35:2
   |
35 | [moco]
   |  ^^^^
   |
   = help: each key must be set, here or in a file that this one extends; configs/pretrain/base.toml explains them all"#
    );
    folder.write("b.toml", &base.replace("[health]\nstop_on_collapse = true\n", ""));
    let error = folder.error_of("b.toml");
    assert!(error.starts_with("error: missing key `health`\n --> b.toml:1:1\n"), "{error}");
    folder.write("c.toml", &base.replace("steps = 1500\n", ""));
    let error = folder.error_of("c.toml");
    let expected = "error: run.steps or run.epochs must say how long the run is\n --> c.toml:3:2\n";
    assert!(error.starts_with(expected), "{error}");
    folder.write("d.toml", &base.replace("steps = 1500\n", "steps = 1500\nepochs = 3\n"));
    let error = folder.error_of("d.toml");
    assert!(error.starts_with("error: run.steps and run.epochs are both set"), "{error}");
    folder.write("e.toml", &base.replace("manifest = ", "#"));
    let error = folder.error_of("e.toml");
    assert!(error.starts_with("error: data.source = \"shards\" needs data.manifest"), "{error}");
}

#[test]
fn broken_files_and_chains_are_shown() {
    let folder = Folder::new();
    folder.write("a.toml", "[run]\nseed = = 3\n");
    let error = folder.error_of("a.toml");
    assert!(error.contains(" --> a.toml:2:8\n"), "{error}");
    folder.write("d.toml", "extends = 3\n");
    let error = folder.error_of("d.toml");
    assert!(error.starts_with("error: extends must be a file name, got integer\n"), "{error}");
    let error = folder.error_of("none.toml");
    let expected = "error: cannot read config none.toml: No such file or directory";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn the_short_form_names_file_line_and_column() {
    let error = load_pretrain(&fixture(), &["moco.dim=0".to_owned()]);
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "--set:1:10: moco.dim must be at least 1, got 0");
}
