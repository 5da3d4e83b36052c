//! The backward passes written by hand against candle's automatic ones, in f64.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{Linear, Module as _};
use moco_encoders::{
    Arch, BnConfig, Encoder, EncoderConfig, Head, HeadKind, Mode, ResNet, ResNetConfig,
    RunningStats, Stem, VitConfig, VitShape,
};
use moco_ops::OpError;
use moco_params::Gradients;
use moco_rng::Seed;

use crate::common::{check_differences, distance, random};

const TOLERANCE: f64 = 1e-10;

/// A ResNet in candle's own differentiable operations, sharing nothing with the explicit one but the
/// names of its parameters.
struct Reference {
    vars: BTreeMap<String, Var>,
    groups: usize,
    conv_groups: usize,
}

impl Reference {
    fn of(encoder: &dyn Encoder, groups: usize, conv_groups: usize) -> Self {
        let var = |(name, t): (&str, &Tensor)| {
            (name.to_owned(), Var::from_tensor(&t.copy().unwrap()).unwrap())
        };
        Self { vars: encoder.params().parameters().map(var).collect(), groups, conv_groups }
    }

    fn var(&self, name: &str) -> &Tensor {
        self.vars[name].as_tensor()
    }

    fn conv(&self, name: &str, x: &Tensor, stride: usize, groups: usize) -> Tensor {
        let w = self.var(&format!("{name}.weight"));
        let padding = w.dims()[2] / 2;
        x.conv2d(w, padding, stride, 1, groups).unwrap()
    }

    fn bn(&self, name: &str, x: &Tensor) -> Tensor {
        let per_channel =
            |suffix: &str| self.var(&format!("{name}.{suffix}")).reshape((1, (), 1, 1)).unwrap();
        let mean = |x: &Tensor| {
            let of_pixels = x.mean_keepdim(3).unwrap().mean_keepdim(2).unwrap();
            of_pixels.mean_keepdim(0).unwrap()
        };
        let part = x.dims()[0] / self.groups;
        let normalized: Vec<Tensor> = (0..self.groups)
            .map(|g| {
                let x = x.narrow(0, g * part, part).unwrap();
                let centered = x.broadcast_sub(&mean(&x)).unwrap();
                let var = (mean(&centered.sqr().unwrap()) + 1e-5).unwrap();
                centered.broadcast_div(&var.sqrt().unwrap()).unwrap()
            })
            .collect();
        let x = Tensor::cat(&normalized, 0).unwrap();
        let scaled = x.broadcast_mul(&per_channel("weight")).unwrap();
        scaled.broadcast_add(&per_channel("bias")).unwrap()
    }

    fn forward(&self, images: &Tensor) -> Tensor {
        let mut y = self.bn("bn1", &self.conv("conv1", images, 1, 1)).relu().unwrap();
        for stage in 1..=4 {
            for block in 0.. {
                let name = format!("layer{stage}.{block}");
                if !self.vars.contains_key(&format!("{name}.conv1.weight")) {
                    break;
                }
                let stride = if stage > 1 && block == 0 { 2 } else { 1 };
                y = self.block(&name, &y, stride);
            }
        }
        y.mean(D::Minus1).unwrap().mean(D::Minus1).unwrap()
    }

    fn block(&self, name: &str, x: &Tensor, stride: usize) -> Tensor {
        let is_bottleneck = self.vars.contains_key(&format!("{name}.conv3.weight"));
        let layers: &[(usize, usize)] = if is_bottleneck {
            &[(1, 1), (stride, self.conv_groups), (1, 1)]
        } else {
            &[(stride, 1), (1, 1)]
        };
        let mut y = x.clone();
        for (i, (stride, groups)) in layers.iter().enumerate() {
            let i = i + 1;
            y = self.conv(&format!("{name}.conv{i}"), &y, *stride, *groups);
            y = self.bn(&format!("{name}.bn{i}"), &y);
            if i < layers.len() {
                y = y.relu().unwrap();
            }
        }
        let downsample = format!("{name}.downsample");
        let shortcut = if self.vars.contains_key(&format!("{downsample}.0.weight")) {
            let x = self.conv(&format!("{downsample}.0"), x, stride, 1);
            self.bn(&format!("{downsample}.1"), &x)
        } else {
            x.clone()
        };
        (y + shortcut).unwrap().relu().unwrap()
    }

    fn gradients(&self, features: &Tensor, dy: &Tensor) -> Gradients {
        let store = (features * dy).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient =
            |(name, var): (&String, &Var)| (name.clone(), store.get(var).unwrap().clone());
        self.vars.iter().map(gradient).collect()
    }
}

#[track_caller]
fn assert_same(explicit: &Gradients, reference: &Gradients) {
    let names = |g: &Gradients| g.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(explicit), names(reference));
    for (name, gradient) in explicit {
        let error = distance(gradient, &reference[name]);
        assert!(error < TOLERANCE, "{name}: relative difference {error}");
    }
}

#[test]
fn resnet_gradients_are_those_of_automatic_differentiation() {
    for (arch, width, groups, conv_groups) in [
        (Arch::ResNet10, 0.125, 2, 1),
        (Arch::ResNet18, 0.0625, 1, 1),
        (Arch::ResNet50, 0.0625, 2, 1),
        (Arch::ResNext50, 0.25, 1, 32),
    ] {
        let bn = BnConfig { groups, running: RunningStats::First };
        let config = ResNetConfig { arch, stem: Stem::Cifar, width, bn };
        let mut encoder = ResNet::new(config, Seed(5), DType::F64).unwrap();
        // Square, since candle's gradient of a strided convolution fails on other shapes.
        let images = random(1, &[4, 3, 9, 9]);
        let reference = Reference::of(&encoder, groups, conv_groups);
        let (features, saved) = encoder.forward(&images).unwrap();
        let expected = reference.forward(&images);
        assert!(distance(&features, &expected) < TOLERANCE, "{arch:?}");
        let dy = random(2, features.dims());
        let gradients = encoder.gradients(saved, &dy).unwrap();
        assert_same(&gradients, &reference.gradients(&expected, &dy));
    }
}

/// So that an all-reduce of the last layers could begin while the first ones are computed.
#[test]
fn gradients_are_handed_out_once_from_the_last_layer_to_the_first() {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let config = ResNetConfig { arch: Arch::ResNet18, stem: Stem::Cifar, width: 0.0625, bn };
    let mut encoder = ResNet::new(config, Seed(5), DType::F64).unwrap();
    let images = random(1, &[2, 3, 9, 9]);
    let mut names = Vec::new();
    let (features, saved) = encoder.forward(&images).unwrap();
    encoder
        .backward(saved, &features, &mut |name, _| {
            names.push(name);
            Ok(())
        })
        .unwrap();
    // "layer4.1.conv2.weight" is of block (4, 1), the stem of block (0, 0).
    let block_of = |name: &String| {
        let of_layer = name.strip_prefix("layer").map(|rest| rest.split('.'));
        let mut numbers = of_layer.into_iter().flatten().map_while(|part| part.parse().ok());
        (numbers.next().unwrap_or(0_u32), numbers.next().unwrap_or(0_u32))
    };
    assert!(names.iter().map(block_of).is_sorted_by(|a, b| a >= b), "{names:?}");
    assert_eq!((block_of(&names[0]), block_of(&names[names.len() - 1])), ((4, 1), (0, 0)));
    names.sort_unstable();
    let parameters: Vec<&str> = encoder.params().parameters().map(|(name, _)| name).collect();
    assert_eq!(names, parameters, "each once");

    let (features, saved) = encoder.forward(&images).unwrap();
    let refused = || OpError::Strided { op: "all_reduce", tensor: "gradient" };
    let mut n_taken = 0;
    let error = encoder.backward(saved, &features, &mut |_, _| {
        n_taken += 1;
        if n_taken == 3 { Err(refused()) } else { Ok(()) }
    });
    let expected = "layer `layer4.1.conv2`: all_reduce: `gradient` is a strided view, which cannot be changed in place";
    assert_eq!(error.unwrap_err().to_string(), expected);
    assert_eq!(n_taken, 3, "nothing more is handed out");
}

/// The ImageNet stem's max pooling has no reference in candle (its gradient is missing): central
/// differences instead.
#[test]
fn imagenet_stem_gradients_are_central_differences() {
    let bn = BnConfig { groups: 2, running: RunningStats::Mean };
    let config = ResNetConfig { arch: Arch::ResNet10, stem: Stem::ImageNet, width: 0.0625, bn };
    let mut encoder = ResNet::new(config, Seed(5), DType::F64).unwrap();
    let images = random(1, &[4, 3, 35, 33]);
    let (features, saved) = encoder.forward(&images).unwrap();
    let dy = random(2, features.dims());
    let gradients = encoder.gradients(saved, &dy).unwrap();
    for name in ["conv1.weight", "bn1.weight", "bn1.bias", "layer4.0.downsample.0.weight"] {
        let parameter = (name, &gradients[name]);
        check_differences(&mut encoder, (&images, &dy), parameter, (1e-6, 1e-5));
    }
}

#[test]
fn head_gradients_are_those_of_automatic_differentiation() {
    for kind in [HeadKind::Fc, HeadKind::Mlp] {
        let head = Head::new(kind, 10, 4, Seed(1), DType::F64).unwrap();
        let features = Var::from_tensor(&random(1, &[6, 10])).unwrap();
        let vars: BTreeMap<String, Var> = head
            .params()
            .parameters()
            .map(|(name, t)| (name.to_owned(), Var::from_tensor(&t.copy().unwrap()).unwrap()))
            .collect();
        let layer = |name: &str, x: &Tensor| {
            let w = vars[&format!("{name}.weight")].as_tensor();
            Linear::new(w.clone(), Some(vars[&format!("{name}.bias")].as_tensor().clone()))
                .forward(x)
                .unwrap()
        };
        let expected = match kind {
            HeadKind::Fc => layer("fc", &features),
            HeadKind::Mlp => layer("fc.2", &layer("fc.0", &features).relu().unwrap()),
        };
        let (out, saved) = head.forward(&features.as_detached_tensor()).unwrap();
        assert!(distance(&out, &expected) < TOLERANCE);
        let dy = random(2, &[6, 4]);
        let mut gradients = Gradients::new();
        let mut collect = |name, gradient| {
            gradients.insert(name, gradient);
            Ok(())
        };
        let dx = head.backward(&saved, &dy, &mut collect).unwrap();
        let store = (expected * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(distance(&dx, store.get(&features).unwrap()) < TOLERANCE);
        let reference =
            vars.iter().map(|(n, v)| (n.clone(), store.get(v).unwrap().clone())).collect();
        assert_same(&gradients, &reference);
    }
}

#[test]
fn a_fork_is_independent() {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let config = ResNetConfig { arch: Arch::ResNet10, stem: Stem::Cifar, width: 0.125, bn };
    let resnet = ResNet::new(config, Seed(5), DType::F64).unwrap();
    let shape = VitShape { embed_dim: 12, depth: 1, n_heads: 2 };
    let vit = EncoderConfig::Vit(VitConfig { image_size: 8, patch_size: 4, shape });
    let vit = vit.build(Seed(1), DType::F64, &Device::Cpu).unwrap();
    let images = random(1, &[2, 3, 8, 8]);
    let mut encoders: [(Box<dyn Encoder>, &str); 2] =
        [(Box::new(resnet), "conv1.weight"), (vit, "patch_embed.proj.weight")];
    for (encoder, name) in &mut encoders {
        let mut fork = encoder.fork().unwrap();
        let before = encoder.features(&images, Mode::Eval).unwrap();
        assert!(distance(&fork.features(&images, Mode::Eval).unwrap(), &before) == 0.0);
        let changed = (fork.params().get(name).unwrap() * 2.0).unwrap();
        fork.params_mut().set(name, &changed).unwrap();
        assert!(distance(&encoder.features(&images, Mode::Eval).unwrap(), &before) == 0.0);
        assert!(distance(&fork.features(&images, Mode::Eval).unwrap(), &before) > 1e-3);
    }
}

#[test]
fn running_statistics_follow_the_first_group_or_the_mean() {
    let running = |running: RunningStats| {
        let bn = BnConfig { groups: 2, running };
        let config = ResNetConfig { arch: Arch::ResNet10, stem: Stem::Cifar, width: 0.125, bn };
        let mut encoder = ResNet::new(config, Seed(5), DType::F64).unwrap();
        encoder.features(&random(1, &[4, 3, 8, 8]), Mode::Train).unwrap();
        let get = |name: &str| encoder.params().get(name).unwrap().to_vec1::<f64>().unwrap();
        let batches = encoder.params().get("bn1.num_batches_tracked").unwrap();
        assert_eq!(batches.to_scalar::<i64>().unwrap(), 1);
        (get("bn1.running_mean"), get("bn1.running_var"))
    };
    // The same from first principles: the stem's convolution, per group.
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let config = ResNetConfig { arch: Arch::ResNet10, stem: Stem::Cifar, width: 0.125, bn };
    let encoder = ResNet::new(config, Seed(5), DType::F64).unwrap();
    let w = encoder.params().get("conv1.weight").unwrap();
    let y = random(1, &[4, 3, 8, 8]).conv2d(w, 1, 1, 1, 1).unwrap();
    let moments = |group: usize, channel: usize| {
        let part = y.narrow(0, group * 2, 2).unwrap().narrow(1, channel, 1).unwrap();
        let values = part.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0))
    };
    let (first, mean) = (running(RunningStats::First), running(RunningStats::Mean));
    for c in 0..8 {
        let (a, b) = (moments(0, c), moments(1, c));
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12);
        close(first.0[c], 0.1 * a.0);
        close(first.1[c], 0.9 + 0.1 * a.1);
        close(mean.0[c], 0.1 * f64::midpoint(a.0, b.0));
        close(mean.1[c], 0.9 + 0.1 * f64::midpoint(a.1, b.1));
    }
}

#[track_caller]
fn check_counts(cases: &[(Arch, usize, usize)]) {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    for (arch, parameters, feature_dim) in cases {
        let config = ResNetConfig { arch: *arch, stem: Stem::ImageNet, width: 1.0, bn };
        let encoder = ResNet::new(config, Seed(0), DType::F32).unwrap();
        let count: usize = encoder.params().parameters().map(|(_, t)| t.elem_count()).sum();
        // torchvision's documented counts include the last layer of 1000 classes.
        let expected = parameters - 1000 * (feature_dim + 1);
        assert_eq!((count, encoder.feature_dim()), (expected, *feature_dim), "{arch:?}");
        let w = encoder.params().get("layer3.0.conv2.weight").unwrap();
        let square = w.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let expected = (2.0 / (w.dims()[0] * 9) as f64).sqrt();
        let got = f64::from(square).sqrt();
        assert!((got / expected - 1.0).abs() < 0.01, "{arch:?}: {got} {expected}");
    }
}

#[test]
fn parameter_counts_are_torchvisions() {
    check_counts(&[
        (Arch::ResNet18, 11_689_512, 512),
        (Arch::ResNet34, 21_797_672, 512),
        (Arch::ResNet50, 25_557_032, 2048),
        (Arch::ResNext50, 25_028_904, 2048),
        (Arch::WideResNet50x2, 68_883_240, 2048),
    ]);
}

#[test]
fn parameter_counts_of_deep_resnets_are_torchvisions() {
    check_counts(&[(Arch::ResNet101, 44_549_160, 2048), (Arch::ResNet152, 60_192_808, 2048)]);
}

#[test]
fn a_wide_resnet_has_the_papers_size() {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let wide = ResNetConfig { arch: Arch::ResNet50, stem: Stem::ImageNet, width: 2.0, bn };
    let encoder = ResNet::new(wide, Seed(0), DType::F32).unwrap();
    let count: usize = encoder.params().parameters().map(|(_, t)| t.elem_count()).sum();
    // R50w2x: 94M parameters (MoCo v1, Table 1).
    assert!((93_000_000..95_000_000).contains(&count), "{count}");
}
