//! Features of each stage of a ResNet.

use candle_core::{D, DType, Device, Tensor};
use moco_encoders::{
    Arch, BnConfig, Encoder, EncoderConfig, Mode, ResNetConfig, RunningStats, Stem, VitConfig,
    VitShape,
};
use moco_rng::{At, Purpose, Seed};

fn random(dims: &[usize]) -> Tensor {
    let mut stream = Seed(3).stream(Purpose::Augment, At::index(1));
    let numbers: Vec<f64> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
}

fn resnet(arch: Arch, stem: Stem, width: f64) -> Box<dyn Encoder> {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let config = EncoderConfig::ResNet(ResNetConfig { arch, stem, width, bn });
    config.build(Seed(5), DType::F64, &Device::Cpu).unwrap()
}

#[test]
fn stages_have_the_documented_shapes_and_end_in_the_features() {
    for (arch, stem, width, side, expected) in [
        (Arch::ResNet18, Stem::ImageNet, 0.125, 64, [(8, 32), (8, 16), (16, 8), (32, 4), (64, 2)]),
        (
            Arch::ResNet50,
            Stem::ImageNet,
            0.0625,
            64,
            [(4, 32), (16, 16), (32, 8), (64, 4), (128, 2)],
        ),
        (Arch::ResNet34, Stem::Cifar, 0.0625, 16, [(4, 16), (4, 16), (8, 8), (16, 4), (32, 2)]),
        // Rounded up: 33 → 17 → 9 → 5 → 3 → 2.
        (Arch::ResNet10, Stem::ImageNet, 0.125, 33, [(8, 17), (8, 9), (16, 5), (32, 3), (64, 2)]),
    ] {
        let mut encoder = resnet(arch, stem, width);
        let images = random(&[2, 3, side, side]);
        let stages = encoder.stage_features(&images).unwrap();
        let shapes: Vec<Vec<usize>> = stages.iter().map(|stage| stage.dims().to_vec()).collect();
        let expected = expected.map(|(channels, side)| vec![2, channels, side, side]);
        assert_eq!(shapes, expected, "{arch:?}");
        let pooled = stages[4].mean(D::Minus1).unwrap().mean(D::Minus1).unwrap();
        let features = encoder.features(&images, Mode::Eval).unwrap();
        let difference = (&pooled - &features).unwrap().abs().unwrap().max_all().unwrap();
        let largest = features.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(largest > 1e-3 && difference.to_scalar::<f64>().unwrap() < 1e-12 * largest);
    }
}

/// conv1 in candle's own operations: at the start the running mean is 0 and the variance 1.
#[test]
fn the_first_stage_is_conv1_behind_its_relu() {
    let mut encoder = resnet(Arch::ResNet10, Stem::ImageNet, 0.125);
    let images = random(&[2, 3, 16, 16]);
    let stage = encoder.stage_features(&images).unwrap().remove(0);
    let weight = encoder.params().get("conv1.weight").unwrap();
    let expected = images.conv2d(weight, 3, 2, 1, 1).unwrap();
    let expected = (expected / (1.0_f64 + 1e-5).sqrt()).unwrap().relu().unwrap();
    let difference = (stage - expected).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f64>().unwrap() < 1e-12);
}

#[test]
fn other_networks_have_no_stages() {
    let shape = VitShape { embed_dim: 8, depth: 1, n_heads: 2 };
    let config = EncoderConfig::Vit(VitConfig { image_size: 8, patch_size: 4, shape });
    let mut vit = config.build(Seed(1), DType::F64, &Device::Cpu).unwrap();
    let error = vit.stage_features(&random(&[1, 3, 8, 8])).unwrap_err().to_string();
    assert_eq!(error, "this encoder has no stages; those of a ResNet have features of their own");
}
