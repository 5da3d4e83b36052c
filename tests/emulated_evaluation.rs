//! Evaluation of a run in bf16 on the emulated GPU: which activations are stored how, and what that does to
//! features.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};
use moco_augment::{Exif, Recipe};
use moco_config::{LoadedPretrain, load_pretrain};
use moco_encoders::{Encoder, Mode};
use moco_feed::decode;
use moco_ops::{
    After, BatchNorm, Conv2dSpec, batch_norm_eval, conv2d, emulate, global_average_pool,
    normalize_images,
};
use moco_rng::{At, Purpose, Seed};
use moco_textures::TexturesConfig;
use moco_train::{
    Components, Control, DataAccess, Labeled, OnBadSample, Outcome, RunFolder, SavedRun, Sources,
    Start, Summary, encode, evaluation_recipe, no_store, open_sources, placement_of, pretrain,
};

/// A program for a device carries them along: the config, and what it extends.
const CONFIGS: [(&str, &str); 2] = [
    ("default.toml", include_str!("../configs/pretrain/default.toml")),
    ("base.toml", include_str!("../configs/pretrain/base.toml")),
];
const N_TRAIN: u32 = 48;
const N_TEST: u32 = 32;
/// That of PyTorch's batch norm.
const EPS: f64 = 1e-5;

/// A small run in bf16 on images below `root`, with overrides.
fn loaded(root: &Path, sets: &[&str]) -> LoadedPretrain {
    let data = root.join("data");
    if !data.exists() {
        std::fs::create_dir(&data).unwrap();
        let textures =
            TexturesConfig { seed: Seed(0), n_train: N_TRAIN, n_test: N_TEST, n_workers: 2 };
        moco_textures::write(&data, &textures, &mut |_, _| ()).unwrap();
        for (name, text) in CONFIGS {
            std::fs::write(root.join(name), text).unwrap();
        }
    }
    let all = [
        format!("data.root={:?}", data.display().to_string()),
        format!("data.manifest={:?}", data.join("manifest.toml").display().to_string()),
        "run.precision=bf16".into(),
        "run.steps=2".into(),
        "encoder.width=0.0625".into(),
        "optim.batch_size=16".into(),
        "moco.queue_size=32".into(),
        "monitor.knn_every_steps=1".into(),
        "monitor.n_neighbors=5".into(),
        "monitor.bank=32".into(),
        "evaluate.linear_epochs=1".into(),
        "evaluate.linear_milestones=[]".into(),
    ];
    let all = all.into_iter().chain(sets.iter().map(|&set| set.to_owned()));
    load_pretrain(&root.join("default.toml"), &all.collect::<Vec<_>>())
        .unwrap_or_else(|error| panic!("{}", error.render()))
}

fn sources(loaded: &LoadedPretrain) -> Sources {
    let access = DataAccess { open_store: &no_store, preparing: &mut |_, _, _| () };
    open_sources(&loaded.data, loaded.plan.workers, access).unwrap()
}

fn encoder(loaded: &LoadedPretrain) -> Box<dyn Encoder> {
    loaded.plan.encoder.build(loaded.plan.seed, DType::F32, &Device::Cpu).unwrap()
}

/// The results of a run.
struct Run {
    summary: Summary,
    state: Vec<(String, Vec<f32>)>,
    launched: BTreeSet<String>,
}

fn run(root: &Path, activations: &str) -> Run {
    let loaded = loaded(root, &[&format!("evaluate.activations={activations}")]);
    let components = Components {
        sources: sources(&loaded),
        augmentation: Arc::new(Recipe::new(loaded.recipe).unwrap()),
        encoder: encoder(&loaded),
    };
    let folder = RunFolder::create(&root.join("runs"), activations, &loaded.resolved).unwrap();
    let control = Control { stop: &AtomicBool::new(false), observe: &mut |_| () };
    let (outcome, launched) =
        emulate(|| pretrain(&loaded.plan, components, &folder, Start::New, control));
    let Outcome::Finished(summary) = outcome.unwrap() else { panic!("nobody asked it to stop") };
    let state = SavedRun::load(folder.path()).unwrap().tensors;
    let numbers = |x: &Tensor| {
        x.to_dtype(DType::F32).and_then(|x| x.flatten_all()?.to_vec1::<f32>()).unwrap()
    };
    let state = state.iter().map(|(name, x)| (name.clone(), numbers(x))).collect();
    Run { summary: *summary, state, launched: launched.into_iter().collect() }
}

/// Kernels of the encoder that take activations of this type.
fn of_encoder<'a>(run: &'a Run, dtype: &str) -> Vec<&'a str> {
    let names = run.launched.iter().map(String::as_str);
    let is_of_encoder = |name: &str| {
        ["bn_", "global_average_pool_"].iter().any(|part| name.starts_with(part))
            && !name.contains("backward")
            && !name.contains("gradient")
    };
    names.filter(|name| is_of_encoder(name) && name.ends_with(dtype)).collect()
}

#[test]
fn a_run_in_bf16_is_evaluated_with_the_activations_that_its_config_names() {
    let root = tempfile::tempdir().unwrap();
    let [wide, narrow] = ["f32", "as_trained"].map(|activations| run(root.path(), activations));
    let passes = |dtype: &str| {
        ["bn_moments", "bn_normalize_add_relu", "bn_normalize", "bn_normalize_relu"]
            .into_iter()
            .chain(["global_average_pool"])
            .map(|name| format!("{name}_{dtype}"))
            .collect::<BTreeSet<_>>()
    };
    let set = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    // The moments are those that calibrate the untrained encoder.
    assert_eq!(set(of_encoder(&wide, "_f32")), passes("f32"));
    assert_eq!(set(of_encoder(&narrow, "_f32")), BTreeSet::new());
    for run in [&wide, &narrow] {
        assert_eq!(set(of_encoder(run, "_bf16")), passes("bf16"), "training");
        assert!(run.launched.contains("bn_running"), "evaluation mode");
        assert!(run.summary.knn.trained.is_some() && run.summary.linear.random.is_some());
    }
    // Neither pixels nor training are touched, though the monitor runs between the two steps.
    assert_eq!(wide.summary.knn.pixels, narrow.summary.knn.pixels);
    assert_eq!(wide.summary.linear.pixels, narrow.summary.linear.pixels);
    // A device measures its algorithms again for each run, and other algorithms have other bits.
    if cfg!(not(feature = "device-tests")) {
        assert_eq!(wide.state, narrow.state);
    }
}

fn round(x: &Tensor) -> Tensor {
    x.to_dtype(DType::BF16).and_then(|x| x.to_dtype(DType::F32)).unwrap()
}

/// Features of a ResNet-10 with the CIFAR stem by the CPU's operations in f32, where `stored` is what becomes
/// of images, of weights of convolutions and of each operation's result.
fn features_by_hand(
    encoder: &dyn Encoder,
    images: &Tensor,
    stored: fn(&Tensor) -> Tensor,
) -> Tensor {
    let get = |name: String| encoder.params().get(&name).unwrap();
    let unit = |x: &Tensor, [conv, bn]: [&str; 2], spec, after: After<'_>| {
        let weight = stored(get(format!("{conv}.weight")));
        let y = stored(&conv2d(x, &weight, spec).unwrap());
        let [gamma, beta, mean, var] = ["weight", "bias", "running_mean", "running_var"]
            .map(|name| get(format!("{bn}.{name}")));
        let bn = BatchNorm { gamma, beta, eps: EPS, groups: 1 };
        stored(&batch_norm_eval(&y, bn, mean, var, after).unwrap())
    };
    let mut x = unit(&stored(images), ["conv1", "bn1"], Conv2dSpec::new(1, 1), After::Relu);
    for (stage, stride) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        let names = ["conv1", "bn1", "conv2", "bn2", "downsample.0", "downsample.1"];
        let [conv1, bn1, conv2, bn2, conv0, bn0] =
            names.map(|name| format!("layer{stage}.0.{name}"));
        let y = unit(&x, [&conv1, &bn1], Conv2dSpec::new(stride, 1), After::Relu);
        let shortcut = match stride {
            1 => x,
            _ => unit(&x, [&conv0, &bn0], Conv2dSpec::new(stride, 0), After::Nothing),
        };
        x = unit(&y, [&conv2, &bn2], Conv2dSpec::new(1, 1), After::AddRelu(&shortcut));
    }
    global_average_pool(&x).unwrap()
}

/// An untrained encoder with batch norm statistics of the test images, which are returned too.
fn calibrated(loaded: &LoadedPretrain, labeled: &Labeled) -> (Box<dyn Encoder>, Tensor) {
    let recipe = evaluation_recipe(&loaded.plan).unwrap();
    let pixels: Vec<u8> = (0..N_TEST)
        .flat_map(|index| {
            let index = u64::from(index);
            let image = decode(labeled.test.read(index).unwrap(), Exif::Ignore).unwrap();
            let stream = Seed(0).stream(Purpose::Augment, At::index(index));
            recipe.view(&image, stream).unwrap().pixels().to_vec()
        })
        .collect();
    let input = &loaded.plan.input;
    let side = input.image_size as usize;
    let pixels = Tensor::from_vec(pixels, (N_TEST as usize, side, side, 3), &Device::Cpu).unwrap();
    let images = normalize_images(&pixels, input.mean, input.std, DType::F32).unwrap();
    let mut encoder = encoder(loaded);
    for _ in 0..50 {
        encoder.features(&images, Mode::Train).unwrap();
    }
    (encoder, images)
}

/// Rows of features, as an evaluation gets them.
fn features(
    encoder: &mut dyn Encoder,
    loaded: &LoadedPretrain,
    labeled: &Labeled,
    activations: DType,
) -> Vec<f32> {
    let recipe = evaluation_recipe(&loaded.plan).unwrap();
    let stages = loaded.plan.view_stages(placement_of(encoder, activations));
    let encoded =
        encode(encoder, &labeled.test, &recipe, &stages, OnBadSample::Fail, &mut |_| ()).unwrap();
    let set = encoded.features;
    assert_eq!(set.len(), N_TEST as usize);
    set.numbers().to_vec()
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let errors = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    errors / norm(&mut b.iter().map(|b| f64::from(*b)))
}

/// How far features in f32, and how far those from bf16 activations, may be from those by hand; the latter as a
/// share of what rounding does to them.
struct Allowed {
    f32: f64,
    bf16: f64,
}

/// The emulator convolves by the CPU's operations, so f32 is equal. Its batch norm fuses a product and a sum that
/// the CPU rounds one after the other, so that a number in a million rounds to another bf16: measured 0.011.
const ON_HOST: Allowed = Allowed { f32: 0.0, bf16: 0.05 };
/// Sums in another order, so that some numbers round to the other side.
const ON_DEVICE: Allowed = Allowed { f32: 1e-5, bf16: 0.5 };

/// Compares features in f32 and from bf16 activations with those by hand.
fn check_features(
    allowed: &Allowed,
    computed: impl FnOnce(&mut dyn Encoder, &LoadedPretrain, &Labeled) -> [Vec<f32>; 2],
) {
    let root = tempfile::tempdir().unwrap();
    let loaded = loaded(root.path(), &[]);
    let labeled = sources(&loaded).labeled.unwrap();
    let (mut encoder, images) = calibrated(&loaded, &labeled);
    let by_hand = |stored: fn(&Tensor) -> Tensor| {
        let features = features_by_hand(encoder.as_ref(), &images, stored);
        features.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let [exact, rounded] = [by_hand(Tensor::clone), by_hand(round)];
    let [wide, narrow] = computed(encoder.as_mut(), &loaded, &labeled);
    let [off, left, moved] =
        [distance(&wide, &exact), distance(&narrow, &rounded), distance(&rounded, &exact)];
    assert!(off <= allowed.f32, "{off}");
    assert!(left <= allowed.bf16 * moved, "{left} and {moved}");
    // 2^-9 at most a rounding, and about ten on the way to a feature.
    assert!((1e-3..2e-2).contains(&moved), "{moved}");
}

#[test]
fn bf16_features_are_those_of_f32_operations_whose_results_are_rounded() {
    let allowed = if cfg!(feature = "device-tests") { &ON_DEVICE } else { &ON_HOST };
    check_features(allowed, |encoder, loaded, labeled| {
        let wide = features(encoder, loaded, labeled, DType::F32);
        let (narrow, launched) = emulate(|| features(encoder, loaded, labeled, DType::BF16));
        let takes_f32 = |name: &&String| name.ends_with("_f32");
        assert_eq!(launched.iter().filter(takes_f32).count(), 0, "{launched:?}");
        [wide, narrow]
    });
}

#[test]
fn a_cpu_that_emulates_nothing_refuses_bf16_features() {
    let root = tempfile::tempdir().unwrap();
    let loaded = loaded(root.path(), &[]);
    let labeled = sources(&loaded).labeled.unwrap();
    let recipe = evaluation_recipe(&loaded.plan).unwrap();
    let mut encoder = encoder(&loaded);
    let stages = loaded.plan.view_stages(placement_of(encoder.as_ref(), DType::BF16));
    let fail = OnBadSample::Fail;
    let encoded = encode(encoder.as_mut(), &labeled.test, &recipe, &stages, fail, &mut |_| ());
    let error = encoded.unwrap_err();
    assert_eq!(
        error.to_string(),
        "normalize_images: `dtype` is BF16, expected f32 or f64 (on a GPU f32 or bf16), \
         the same for all arguments"
    );
}

/// With images, encoder and features in the memory of the first CUDA device.
#[cfg(feature = "device-tests")]
#[test]
fn a_device_stores_activations_as_it_is_told() {
    check_features(&ON_DEVICE, |encoder, loaded, labeled| {
        let device =
            moco_ops::open_cuda(0, moco_ops::Precision::F32, moco_ops::ConvBackend::Auto).unwrap();
        encoder.params_mut().to_device(&device).unwrap();
        [DType::F32, DType::BF16].map(|dtype| features(encoder, loaded, labeled, dtype))
    });
}
