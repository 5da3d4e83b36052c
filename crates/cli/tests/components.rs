//! Components and trained encoders from configs: what they do not fit is refused by name.

use std::path::Path;

use candle_core::{DType, Device};
use moco::Moco;
use moco_config::{LoadedPretrain, load_pretrain};
use moco_feed::Placement;
use moco_train::{
    Components, DataAccess, ErrorKind, SavedRun, TrainedEncoder, build_encoder, no_store,
    training_recipe,
};

/// The default config with a small model.
fn loaded(sets: &[&str]) -> LoadedPretrain {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pretrain/default.toml");
    let small = ["encoder.width=0.0625", "moco.queue_size=64"];
    let sets: Vec<String> = small.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    load_pretrain(&path, &sets).unwrap_or_else(|error| panic!("{}", error.render()))
}

#[test]
fn a_cpu_refuses_settings_of_a_gpu_before_data_is_opened() {
    for (set, expected) in [
        ("augment.finish_on=gpu", "augment.finish_on = \"gpu\" needs --device cuda:N"),
        ("run.cuda_graph=true", "run.cuda_graph = true needs --device cuda:N"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = format!("data.root={:?}", folder.path().join("textures").display().to_string());
        let loaded = loaded(&[set, &root]);
        let recipe = training_recipe(loaded.recipe, loaded.fidelity).unwrap();
        let preparing = &mut |what: &str, _, _| panic!("{what} before the refusal");
        let access = DataAccess { open_store: &no_store, preparing };
        let (plan, data) = (&loaded.plan, &loaded.data);
        let error = Components::from_plan(plan, data, recipe, &Device::Cpu, access).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Usage, expected.to_owned()));
    }
}

#[test]
fn features_of_images_without_labels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cat")).unwrap();
    std::fs::write(folder.path().join("cat/0.png"), "never read").unwrap();
    let root = format!("data.root={:?}", folder.path().display().to_string());
    let loaded = loaded(&["data.source=image_folder", &root]);
    let plan = loaded.plan;
    let encoder = build_encoder(&plan, DType::F32, &Device::Cpu).unwrap();
    let moco = Moco::new(encoder, plan.head, plan.moco.clone(), plan.optimizer, plan.seed).unwrap();
    let tensors = moco.state().unwrap();
    let (run_id, rejected) = (None, Vec::new());
    let saved = SavedRun { tensors, config: loaded.resolved, global_step: 3, run_id, rejected };
    let mut trained = TrainedEncoder::new(&saved, plan, loaded.data, Placement::cpu()).unwrap();
    assert_eq!(trained.model.global_step(), 3);
    let access = DataAccess { open_store: &no_store, preparing: &mut |_, _, _| () };
    let error = trained.labeled_features(access).unwrap_err();
    let expected = "the config's data has no labeled test split";
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::DataOrMachine, expected.to_owned()));
}

#[test]
fn a_store_is_refused_where_there_is_none() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data-manifests/textures.toml");
    let manifest = format!("data.manifest={manifest:?}");
    let loaded = loaded(&["data.root=s3://bucket/small", &manifest]);
    let access = DataAccess { open_store: &no_store, preparing: &mut |_, _, _| () };
    let opened = moco_train::open_sources(&loaded.data, loaded.plan.workers, access);
    let error = opened.unwrap_err();
    let expected =
        "store s3://bucket/small cannot be used: this program reads data from folders only";
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Usage, expected.to_owned()));
}
