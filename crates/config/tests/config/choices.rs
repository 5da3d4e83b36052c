//! Networks and optimizers, and their keys.

use moco_encoders::{EncoderConfig, VitConfig, VitShape};
use moco_optim::{LarsConfig, OptimizerConfig, Schedule, SgdConfig};

use crate::{fixture, load_fixture};

const CUSTOM: [&str; 5] = [
    "encoder.arch=vit",
    "encoder.patch_size=4",
    "encoder.embed_dim=24",
    "encoder.depth=2",
    "encoder.n_heads=3",
];

/// The first line of the error.
fn error_of(sets: &[&str]) -> String {
    let Err(error) = load_fixture(sets) else { panic!("{sets:?} was accepted") };
    let rendered = error.render();
    assert!(rendered.contains("\n --> --set:"), "{rendered}");
    rendered.lines().next().unwrap().to_owned()
}

#[test]
fn a_vision_transformer_needs_no_key_of_a_resnet() {
    for (sets, shape) in [
        (
            &["encoder.arch=vit_tiny", "encoder.patch_size=4"][..],
            VitShape { embed_dim: 192, depth: 12, n_heads: 3 },
        ),
        (
            &["encoder.arch=vit_small", "encoder.patch_size=4"],
            VitShape { embed_dim: 384, depth: 12, n_heads: 6 },
        ),
        (&CUSTOM, VitShape { embed_dim: 24, depth: 2, n_heads: 3 }),
    ] {
        let loaded = load_fixture(sets).unwrap();
        let expected = EncoderConfig::Vit(VitConfig { image_size: 32, patch_size: 4, shape });
        assert_eq!(loaded.plan.encoder, expected);
        // What a run keeps names the network and nothing of another one.
        assert!(loaded.resolved.contains("arch = \"vit"), "{}", loaded.resolved);
        for key in ["stem", "width", "bn_groups", "bn_running"] {
            assert!(!loaded.resolved.contains(&format!("\n{key} = ")), "{}", loaded.resolved);
        }
        let again = moco_config::load_pretrain_text(&loaded.resolved, "config.toml").unwrap();
        assert_eq!(again.plan.encoder, expected);
    }
}

#[test]
fn keys_of_one_network_are_refused_with_another() {
    const TINY: [&str; 2] = ["encoder.arch=vit_tiny", "encoder.patch_size=4"];
    for (sets, more, expected) in [
        (
            &[][..],
            &["encoder.patch_size=4"][..],
            "encoder.patch_size has no meaning with encoder.arch = \"resnet10\"",
        ),
        (
            &[],
            &["encoder.n_heads=4"],
            "encoder.n_heads has no meaning with encoder.arch = \"resnet10\"",
        ),
        (
            &TINY,
            &["encoder.stem=cifar"],
            "encoder.stem has no meaning with encoder.arch = \"vit_tiny\"",
        ),
        (
            &TINY,
            &["encoder.width=0.5"],
            "encoder.width has no meaning with encoder.arch = \"vit_tiny\"",
        ),
        (
            &TINY,
            &["encoder.bn_groups=2"],
            "encoder.bn_groups has no meaning with encoder.arch = \"vit_tiny\"",
        ),
        (
            &TINY,
            &["encoder.bn_running=mean"],
            "encoder.bn_running has no meaning with encoder.arch = \"vit_tiny\"",
        ),
        (
            &TINY,
            &["encoder.depth=3"],
            "encoder.depth has no meaning with encoder.arch = \"vit_tiny\"",
        ),
        (&TINY[..1], &[], "encoder.arch = \"vit_tiny\" needs encoder.patch_size"),
        (&CUSTOM[..4], &[], "encoder.arch = \"vit\" needs encoder.n_heads"),
        (
            &TINY,
            &["encoder.patch_size=5"],
            "encoder.patch_size must be a divisor of the image size 32, got 5",
        ),
        (&CUSTOM, &["encoder.depth=0"], "encoder.depth must be at least 1, got 0"),
        (
            &CUSTOM,
            &["encoder.n_heads=5"],
            "encoder.n_heads must be a divisor of the width 24, got 5",
        ),
        (
            &TINY,
            &["run.precision=bf16"],
            "run.precision must be \"f32\" or \"tf32\" with a vision transformer",
        ),
        (
            &TINY,
            &["run.cuda_graph=true"],
            "run.cuda_graph must be false with a vision transformer, whose operations cannot be captured",
        ),
    ] {
        let sets: Vec<&str> = sets.iter().chain(more).copied().collect();
        assert_eq!(error_of(&sets), format!("error: {expected}"));
    }
}

#[test]
fn a_resnet_needs_its_keys() {
    let base = std::fs::read_to_string(fixture()).unwrap();
    for (line, key) in [
        ("stem = \"cifar\"\n", "encoder.stem"),
        ("width = 0.25\n", "encoder.width"),
        ("bn_groups = 2\n", "encoder.bn_groups"),
        ("bn_running = \"mean\"\n", "encoder.bn_running"),
    ] {
        let text = base.replace(line, "");
        assert_ne!(text, base);
        let error = moco_config::load_pretrain_text(&text, "mine.toml").unwrap_err().render();
        let expected = format!("error: encoder.arch = \"resnet10\" needs {key}");
        assert_eq!(error.lines().next(), Some(expected.as_str()));
    }
}

#[test]
fn the_optimizer_is_the_one_that_is_named() {
    let of = |sets: &[&str]| load_fixture(sets).unwrap().plan.optimizer;
    let sgd = OptimizerConfig::Sgd(SgdConfig { sgd_momentum: 0.9, weight_decay: 5e-4 });
    assert_eq!(of(&[]), sgd);
    assert_eq!(of(&["optim.kind=sgd"]), sgd);
    let lars = LarsConfig { sgd_momentum: 0.8, weight_decay: 1e-6 };
    let sets = ["optim.kind=lars", "optim.sgd_momentum=0.8", "optim.weight_decay=1e-6"];
    assert_eq!(of(&sets), OptimizerConfig::Lars(lars));
}

#[test]
fn a_warm_up_stands_before_any_schedule() {
    let of = |sets: &[&str]| load_fixture(sets).unwrap().plan.schedule;
    assert_eq!(of(&["optim.warmup_epochs=0"]), Schedule::CosinePerStep);
    for (kind, then) in
        [("cosine_per_step", Schedule::CosinePerStep), ("constant", Schedule::Constant)]
    {
        let expected = Schedule::Warmup { epochs: 3, then: Box::new(then) };
        assert_eq!(of(&["optim.warmup_epochs=3", &format!("schedule.kind={kind}")]), expected);
    }
}

#[test]
fn impossible_optimizers_and_warm_ups_are_refused() {
    for (sets, expected) in [
        (&["optim.kind=adam"][..], "unknown optim.kind \"adam\""),
        (
            &["run.epochs=5", "optim.warmup_epochs=5"],
            "optim.warmup_epochs must be less than run.epochs, got 5 and 5",
        ),
        (
            &["optim.warmup_epochs=1.5"],
            "optim.warmup_epochs: invalid type: floating point `1.5`, expected a whole number, 0 or more",
        ),
        (
            &["moco.mechanism=end_to_end", "run.cuda_graph=true"],
            "run.cuda_graph must be false with moco.mechanism = \"end_to_end\", which runs on the CPU only",
        ),
        (
            &["optim.kind=lars", "run.cuda_graph=true"],
            "run.cuda_graph must be false with optim.kind = \"lars\", whose operations cannot be captured",
        ),
    ] {
        assert_eq!(error_of(sets), format!("error: {expected}"));
    }
}
