//! The distributions of initial values against those of torchvision and PyTorch, in closed form.

use candle_core::DType;
use moco_encoders::{
    Arch, BnConfig, Encoder as _, Head, HeadKind, ResNet, ResNetConfig, RunningStats, Stem,
};
use moco_params::ParamStore;
use moco_rng::Seed;

/// A sample's moments lie within this many of their own standard deviations; seeds are fixed.
const N_DEVIATIONS: f64 = 5.0;

/// A distribution around zero.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Normal { variance: f64 },
    Uniform { bound: f64 },
}

fn resnet(arch: Arch, stem: Stem, width: f64) -> ResNet {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    ResNet::new(ResNetConfig { arch, stem, width, bn }, Seed(5), DType::F64).unwrap()
}

#[track_caller]
fn check(params: &ParamStore, name: &str, expected: Expected) {
    let tensor = params.get(name).unwrap();
    let values: Vec<f64> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    let n = values.len() as f64;
    let moment = |power: i32| values.iter().map(|value| value.powi(power)).sum::<f64>() / n;
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    // The kurtosis distinguishes a normal from a uniform distribution of the same variance.
    let (variance, kurtosis) = match expected {
        Expected::Normal { variance } => (variance, 3.0),
        Expected::Uniform { bound } => (bound * bound / 3.0, 9.0 / 5.0),
    };
    let what = format!("{name}: {expected:?}, n = {n}");
    let mean = moment(1);
    assert!(mean.abs() < N_DEVIATIONS * (variance / n).sqrt(), "{what}: mean {mean}");
    let of_variance = moment(2) / variance;
    let scatter = ((kurtosis - 1.0) / n).sqrt();
    assert!((of_variance - 1.0).abs() < N_DEVIATIONS * scatter, "{what}: variance {of_variance}");
    match expected {
        // The largest of n uniform numbers is below the bound by about a part in n of it.
        Expected::Uniform { bound } => {
            assert!(largest <= bound, "{what}: {largest}");
            assert!(largest > bound * (1.0 - 10.0 / n), "{what}: {largest}");
        }
        // P(no number of n beyond two deviations) = 0.954^n: nothing for 400.
        Expected::Normal { variance } => {
            assert!(n >= 400.0 && largest > 2.0 * variance.sqrt(), "{what}: {largest}");
        }
    }
}

/// torchvision's `conv2d` with weights `[c_out, ·, k, k]`.
fn fan_out(c_out: f64, k: f64) -> Expected {
    Expected::Normal { variance: 2.0 / (c_out * k * k) }
}

/// PyTorch's `nn.Conv2d` and `nn.Linear`, weight and bias.
fn fan_in(fan_in: f64) -> Expected {
    Expected::Uniform { bound: 1.0 / fan_in.sqrt() }
}

/// main_moco.py takes torchvision's ResNet as it is.
#[test]
fn convolutions_are_torchvisions() {
    let encoder = resnet(Arch::ResNet18, Stem::ImageNet, 1.0);
    for (name, expected) in [
        ("conv1.weight", fan_out(64.0, 7.0)),
        ("layer1.0.conv1.weight", fan_out(64.0, 3.0)),
        ("layer2.0.conv2.weight", fan_out(128.0, 3.0)),
        ("layer2.0.downsample.0.weight", fan_out(128.0, 1.0)),
    ] {
        check(encoder.params(), name, expected);
    }
    let bottlenecks = resnet(Arch::ResNet50, Stem::ImageNet, 0.25);
    for (name, expected) in [
        ("layer2.0.conv1.weight", fan_out(32.0, 1.0)),
        ("layer2.0.conv3.weight", fan_out(128.0, 1.0)),
    ] {
        check(bottlenecks.params(), name, expected);
    }
    // Groups narrow the input, not the output.
    let grouped = resnet(Arch::ResNext50, Stem::ImageNet, 1.0);
    check(grouped.params(), "layer1.0.conv2.weight", fan_out(128.0, 3.0));
}

/// The notebook's `ModelBase` replaces `conv1`, leaves the pooling out, and keeps the other layers.
#[test]
fn conv1_of_the_cifar_stem_is_a_fresh_layer_and_the_others_are_torchvisions() {
    // Its input always has three channels, so the width does not count.
    for width in [0.25, 1.0, 2.0] {
        let encoder = resnet(Arch::ResNet18, Stem::Cifar, width);
        check(encoder.params(), "conv1.weight", fan_in(27.0));
        check(encoder.params(), "layer1.0.conv1.weight", fan_out(64.0 * width, 3.0));
        check(encoder.params(), "layer3.0.downsample.0.weight", fan_out(256.0 * width, 1.0));
    }
}

/// `nn.Linear` three times: the official `fc`, and in v2 the layer before it.
#[test]
fn heads_are_pytorchs_linear_layers() {
    let head = |kind| Head::new(kind, 512, 128, Seed(5), DType::F64).unwrap();
    let (fc, mlp) = (head(HeadKind::Fc), head(HeadKind::Mlp));
    for (params, layer) in [(fc.params(), "fc"), (mlp.params(), "fc.0"), (mlp.params(), "fc.2")] {
        for part in ["weight", "bias"] {
            check(params, &format!("{layer}.{part}"), fan_in(512.0));
        }
    }
}

#[test]
fn batch_norm_starts_as_the_identity() {
    let encoder = resnet(Arch::ResNet18, Stem::Cifar, 1.0);
    for (parts, expected) in [(["weight", "running_var"], 1.0), (["bias", "running_mean"], 0.0)] {
        for (layer, part) in ["bn1", "layer2.0.bn2", "layer2.0.downsample.1"]
            .iter()
            .flat_map(|layer| parts.map(|part| (layer, part)))
        {
            let tensor = encoder.params().get(&format!("{layer}.{part}")).unwrap();
            let values: Vec<f64> = tensor.to_vec1().unwrap();
            assert!(values.iter().all(|value| *value == expected), "{layer}.{part}: {values:?}");
        }
    }
}
