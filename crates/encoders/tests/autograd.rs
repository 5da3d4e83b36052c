//! Encoders that are candle modules: vision transformers, and the adapter that they go through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{BatchNorm, LayerNorm, Linear, Module, ModuleT, VarBuilder};
use moco_encoders::{
    AutogradEncoder, BnConfig, Encoder, EncoderConfig, EncoderError, Mode, ResNetConfig,
    RunningStats, Stem, VitConfig, VitShape,
};
use moco_rng::Seed;

use crate::common::{check_differences, distance, random};

/// Sums of the same numbers in another order, in f64.
const TOLERANCE: f64 = 1e-12;

const SHAPE: VitShape = VitShape { embed_dim: 8, depth: 2, n_heads: 2 };
const TINY: VitConfig = VitConfig { image_size: 8, patch_size: 4, shape: SHAPE };

fn vit(config: VitConfig, seed: u64) -> Box<dyn Encoder> {
    EncoderConfig::Vit(config).build(Seed(seed), DType::F64, &Device::Cpu).unwrap()
}

/// A transformer whose every parameter counts: at the start its biases are zero, and its class token nearly.
fn scattered(config: VitConfig) -> Box<dyn Encoder> {
    let mut encoder = vit(config, 1);
    let names: Vec<String> =
        encoder.params().parameters().map(|(name, _)| name.to_owned()).collect();
    for (i, name) in names.iter().enumerate() {
        let value = encoder.params().get(name).unwrap();
        let moved = (value + (random(100 + i as u64, value.dims()) * 0.3).unwrap()).unwrap();
        encoder.params_mut().set(name, &moved).unwrap();
    }
    encoder
}

#[test]
fn gradients_of_every_parameter_of_a_vit_are_central_differences() {
    let mut encoder = scattered(TINY);
    let images = random(1, &[3, 3, 8, 8]);
    let (features, saved) = encoder.forward(&images).unwrap();
    let dy = random(2, features.dims());
    let gradients = encoder.gradients(saved, &dy).unwrap();
    let names: Vec<&str> = encoder.params().parameters().map(|(name, _)| name).collect();
    assert_eq!(gradients.keys().collect::<Vec<_>>(), names);
    // cls_token, two of patches, twelve a block, two of the last norm.
    assert_eq!(gradients.len(), 3 + 2 * 12 + 2);
    for (name, gradient) in &gradients {
        check_differences(encoder.as_mut(), (&images, &dy), (name, gradient), (1e-5, 1e-7));
    }
}

/// Rows of numbers, and the network in loops over them.
type Rows = Vec<Vec<f64>>;

/// The forward pass of one image in plain loops, with the formulas of the papers.
struct Loops<'a>(&'a dyn Encoder);

impl Loops<'_> {
    fn numbers(&self, name: &str) -> Vec<f64> {
        self.0.params().get(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let (w, b) =
            (self.numbers(&format!("{name}.weight")), self.numbers(&format!("{name}.bias")));
        let n_in = w.len() / b.len();
        let out = |x: &Vec<f64>, o: usize| -> f64 {
            b[o] + (0..n_in).map(|i| w[o * n_in + i] * x[i]).sum::<f64>()
        };
        rows.iter().map(|x| (0..b.len()).map(|o| out(x, o)).collect()).collect()
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let (w, b) =
            (self.numbers(&format!("{name}.weight")), self.numbers(&format!("{name}.bias")));
        let of_row = |x: &Vec<f64>| {
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + f64::from(1e-6_f32)).sqrt();
            (0..x.len()).map(|i| (x[i] - mean) * scale * w[i] + b[i]).collect()
        };
        rows.iter().map(of_row).collect()
    }

    fn attention(
        &self,
        block: &str,
        rows: &Rows,
        VitShape { embed_dim: d, n_heads, .. }: VitShape,
    ) -> Rows {
        let qkv = self.linear(&format!("{block}.attn.qkv"), rows);
        let of_head = d / n_heads;
        let mut mixed = vec![vec![0.0; d]; rows.len()];
        for head in 0..n_heads {
            let at = |row: usize, part: usize, i: usize| qkv[row][part * d + head * of_head + i];
            for (query, mixed) in mixed.iter_mut().enumerate() {
                let score = |key: usize| {
                    let product: f64 = (0..of_head).map(|i| at(query, 0, i) * at(key, 1, i)).sum();
                    (product / (of_head as f64).sqrt()).exp()
                };
                let all: f64 = (0..rows.len()).map(score).sum();
                for key in 0..rows.len() {
                    for i in 0..of_head {
                        mixed[head * of_head + i] += score(key) / all * at(key, 2, i);
                    }
                }
            }
        }
        self.linear(&format!("{block}.attn.proj"), &mixed)
    }

    fn features(&self, image: &[f64], config: VitConfig) -> Vec<f64> {
        let VitConfig { image_size: s, patch_size: p, shape } = config;
        let (d, g) = (shape.embed_dim, s / p);
        let mut tokens = vec![self.numbers("cls_token")];
        for patch in 0..g * g {
            let pixel = |c: usize, y: usize, x: usize| {
                image[(c * s + patch / g * p + y) * s + patch % g * p + x]
            };
            let all = (0..3 * p * p).map(|i| pixel(i / (p * p), i / p % p, i % p)).collect();
            let mut token = self.linear("patch_embed.proj", &vec![all]).remove(0);
            for (i, token) in token.iter_mut().enumerate() {
                let at = if i < d / 2 { patch / g } else { patch % g } as f64;
                let omega = 10_000_f64.powf(-((i % (d / 4)) as f64) / (d / 4) as f64);
                let is_sine = i / (d / 4) % 2 == 0;
                *token += if is_sine { (at * omega).sin() } else { (at * omega).cos() };
            }
            tokens.push(token);
        }
        for block in (0..shape.depth).map(|i| format!("blocks.{i}")) {
            let mixed =
                self.attention(&block, &self.norm(&format!("{block}.norm1"), &tokens), shape);
            tokens = sum(&tokens, &mixed);
            let normed = self.norm(&format!("{block}.norm2"), &tokens);
            let mut hidden = self.linear(&format!("{block}.mlp.fc1"), &normed);
            hidden.iter_mut().flatten().for_each(|x| *x *= normal_cdf(*x));
            tokens = sum(&tokens, &self.linear(&format!("{block}.mlp.fc2"), &hidden));
        }
        self.norm("norm", &tokens).remove(0)
    }
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

/// Φ(x) = 1/2 + φ(x)·(x + x³/3 + x⁵/15 + …), the series that converges for every x.
fn normal_cdf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for i in 1..200 {
        term *= x * x / f64::from(2 * i + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

#[test]
fn features_of_a_vit_are_those_of_the_formulas() {
    let mut encoder = scattered(TINY);
    let images = random(1, &[2, 3, 8, 8]);
    let features = encoder.features(&images, Mode::Eval).unwrap().to_vec2::<f64>().unwrap();
    for (i, features) in features.iter().enumerate() {
        let image: Vec<f64> = images.get(i).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = Loops(encoder.as_ref()).features(&image, TINY);
        assert_eq!(features.len(), expected.len());
        let close = features.iter().zip(&expected).all(|(a, b)| (a - b).abs() < TOLERANCE);
        assert!(close, "{features:?} {expected:?}");
    }
}

/// timm's counts of the same networks with 1000 classes and a learned position embedding.
#[test]
fn parameter_counts_of_vits_are_deits() {
    for ((name, shape), with_classes) in VitShape::NAMES.into_iter().zip([5_717_416, 22_050_664]) {
        let config = EncoderConfig::Vit(VitConfig { image_size: 224, patch_size: 16, shape });
        let encoder = config.build(Seed(0), DType::F32, &Device::Cpu).unwrap();
        let got: usize = encoder.params().parameters().map(|(_, t)| t.elem_count()).sum();
        let d = shape.embed_dim;
        assert_eq!(got, with_classes - 1000 * (d + 1) - 197 * d, "{name}");
        assert_eq!(encoder.feature_dim(), d);
        // Xavier: variance 2/(inputs + outputs), each of the three matrices for itself.
        let qkv = encoder.params().get("blocks.0.attn.qkv.weight").unwrap();
        let square = qkv.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let ratio = f64::from(square) * d as f64;
        assert!((ratio - 1.0).abs() < 0.02, "{name}: {ratio}");
    }
}

#[test]
fn initial_values_depend_on_the_seed_only() {
    let first = |seed| {
        let encoder = vit(TINY, seed);
        let weight = encoder.params().get("blocks.1.mlp.fc1.weight").unwrap();
        weight.to_vec2::<f64>().unwrap()
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}

#[test]
fn impossible_transformers_are_named() {
    let of = |change: fn(&mut VitConfig)| {
        let mut config = TINY;
        change(&mut config);
        let built = EncoderConfig::Vit(config).build(Seed(0), DType::F64, &Device::Cpu);
        built.err().unwrap().to_string()
    };
    for (message, expected) in [
        (of(|c| c.patch_size = 3), "patch_size must be a divisor of the image size 8, got 3"),
        (of(|c| c.patch_size = 0), "patch_size must be a divisor of the image size 8, got 0"),
        (of(|c| c.shape.embed_dim = 6), "embed_dim must be a multiple of 4, got 6"),
        (of(|c| c.shape.embed_dim = 0), "embed_dim must be a multiple of 4, got 0"),
        (of(|c| c.shape.depth = 0), "depth must be at least 1, got 0"),
        (of(|c| c.shape.n_heads = 3), "n_heads must be a divisor of the width 8, got 3"),
    ] {
        assert_eq!(message, expected);
    }
}

/// A linear layer over pixels, then candle-nn's batch norm.
struct Normed {
    linear: Linear,
    norm: BatchNorm,
}

impl Normed {
    #[expect(clippy::needless_pass_by_value, reason = "candle's constructors take it so")]
    fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let linear = candle_nn::linear(12, 3, vb.pp("linear"))?;
        Ok(Self { linear, norm: candle_nn::batch_norm(3, 1e-5, vb.pp("norm"))? })
    }
}

impl ModuleT for Normed {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward_t(&self.linear.forward(&images.flatten_from(1)?)?, train)
    }
}

#[test]
fn buffers_change_in_training_only_and_have_no_gradients() {
    let mut encoder =
        AutogradEncoder::new(Normed::new, 3, Seed(1), DType::F64, &Device::Cpu).unwrap();
    let images = random(1, &[5, 3, 2, 2]);
    let running = |encoder: &dyn Encoder| {
        ["mean", "var"].map(|of| {
            let tensor = encoder.params().get(&format!("norm.running_{of}")).unwrap();
            tensor.to_vec1::<f64>().unwrap()
        })
    };
    let names: Vec<&str> = encoder.params().buffers().map(|(name, _)| name).collect();
    assert_eq!(names, ["norm.running_mean", "norm.running_var"]);
    let start = [vec![0.0; 3], vec![1.0; 3]];
    encoder.features(&images, Mode::Eval).unwrap();
    assert_eq!(running(&encoder), start);
    // x̂ = x in evaluation mode at first; its columns are what training mode takes statistics of.
    let x = encoder.features(&images, Mode::Eval).unwrap();
    let x = (x * (1.0_f64 + 1e-5).sqrt()).unwrap().to_vec2::<f64>().unwrap();
    let (features, saved) = encoder.forward(&images).unwrap();
    let [mean, var] = running(&encoder);
    for channel in 0..3 {
        let column: Vec<f64> = x.iter().map(|row| row[channel]).collect();
        let center = column.iter().sum::<f64>() / 5.0;
        let square = column.iter().map(|x| (x - center).powi(2)).sum::<f64>() / 4.0;
        assert!((mean[channel] - 0.1 * center).abs() < TOLERANCE, "{mean:?}");
        assert!((var[channel] - 0.9 - 0.1 * square).abs() < TOLERANCE, "{var:?}");
    }
    let gradients = encoder.gradients(saved, &random(2, features.dims())).unwrap();
    let names: Vec<&String> = gradients.keys().collect();
    assert_eq!(names, ["linear.bias", "linear.weight", "norm.bias", "norm.weight"]);
    // Of a fork, too; and evaluation uses them.
    let mut fork = encoder.fork().unwrap();
    let [of_fork, of_encoder] = [fork.as_mut(), &mut encoder as &mut dyn Encoder]
        .map(|encoder| encoder.features(&images, Mode::Eval).unwrap());
    assert!(distance(&of_fork, &of_encoder) == 0.0);
    assert!(distance(&of_encoder, &features) > 0.1);
    fork.features(&images, Mode::Train).unwrap();
    assert_eq!(running(&encoder), [mean, var], "a fork has buffers of its own");
    assert_ne!(running(fork.as_ref()), running(&encoder));
}

/// Notes whether candle would keep its operations.
struct Watched {
    linear: Linear,
    is_tracked: Arc<AtomicBool>,
}

impl Module for Watched {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let features = self.linear.forward(&images.flatten_from(1)?)?;
        self.is_tracked.store(features.track_op(), Ordering::Relaxed);
        Ok(features)
    }
}

#[test]
fn features_have_no_graph_and_follow_the_parameters() {
    let is_tracked = Arc::new(AtomicBool::new(false));
    let of_module = Arc::clone(&is_tracked);
    let build = move |vb: VarBuilder<'_>| {
        let linear = candle_nn::linear(12, 3, vb.pp("linear"))?;
        Ok(Watched { linear, is_tracked: Arc::clone(&of_module) })
    };
    let mut encoder = AutogradEncoder::new(build, 3, Seed(1), DType::F64, &Device::Cpu).unwrap();
    let images = random(1, &[4, 3, 2, 2]);
    for step in 0..2 {
        let (trained, _) = encoder.forward(&images).unwrap();
        assert!(is_tracked.load(Ordering::Relaxed), "a step has gradients");
        for mode in [Mode::Train, Mode::Eval] {
            let features = encoder.features(&images, mode).unwrap();
            assert!(!is_tracked.load(Ordering::Relaxed), "{mode:?}");
            assert!(distance(&features, &trained) == 0.0, "{mode:?} {step}");
        }
        let moved = (encoder.params().get("linear.weight").unwrap() + 0.5).unwrap();
        encoder.params_mut().set("linear.weight", &moved).unwrap();
    }
}

#[test]
fn a_module_that_is_built_in_two_ways_is_refused() {
    let n_built = AtomicUsize::new(0);
    let build = move |vb: VarBuilder<'_>| {
        let name = format!("linear{}", n_built.fetch_add(1, Ordering::Relaxed));
        candle_nn::linear(12, 3, vb.pp(name))
    };
    let error = AutogradEncoder::new(build, 3, Seed(1), DType::F64, &Device::Cpu).unwrap_err();
    let text = error.to_string();
    let expected = "the module could not be built: variable linear1.weight was not there when it was built first";
    assert_eq!(text.lines().next(), Some(expected));
}

/// candle-nn's fused layer norm and softmax, which cut the gradient without a word.
struct Fused {
    linear: Linear,
    norm: LayerNorm,
    is_softmax: bool,
}

impl Module for Fused {
    #[expect(clippy::disallowed_methods, reason = "the cut is what the adapter must find")]
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = images.flatten_from(1)?;
        if self.is_softmax {
            let weights = candle_nn::ops::softmax_last_dim(&self.linear.forward(&x)?)?;
            return self.norm.weight().broadcast_mul(&weights);
        }
        self.norm.forward(&self.linear.forward(&x)?)
    }
}

#[test]
fn a_parameter_without_a_gradient_is_an_error() {
    // The fused operations know no f64.
    let (f32, cpu) = (DType::F32, Device::Cpu);
    for is_softmax in [false, true] {
        let build = move |vb: VarBuilder<'_>| {
            let linear = candle_nn::linear(12, 3, vb.pp("linear"))?;
            let weight = vb.pp("norm").get_with_hints(3, "weight", candle_nn::Init::Const(1.0))?;
            let bias = Tensor::zeros(3, f32, vb.device())?;
            Ok(Fused { linear, norm: LayerNorm::new(weight, bias, 1e-5), is_softmax })
        };
        let mut encoder = AutogradEncoder::new(build, 3, Seed(1), f32, &cpu).unwrap();
        let images = random(1, &[4, 3, 2, 2]).to_dtype(f32).unwrap();
        let (features, saved) = encoder.forward(&images).unwrap();
        let error = encoder.gradients(saved, &features).unwrap_err();
        let expected = "parameter `linear.bias` got no gradient: the features do not depend on it, or an \
                        operation on the way has no derivative in candle (candle-nn's LayerNorm::forward, \
                        RmsNorm::forward and softmax_last_dim). hint: write it from differentiable \
                        operations, such as candle_nn::ops::layer_norm_slow and softmax";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let mut encoder = vit(TINY, 1);
    let images = random(1, &[2, 3, 8, 8]);
    let message =
        |result: std::result::Result<Tensor, EncoderError>| result.unwrap_err().to_string();
    assert_eq!(
        message(encoder.features(&images.to_dtype(DType::F32).unwrap(), Mode::Eval)),
        "images are F32, the encoder's parameters F64. \
         hint: encoders of candle modules compute in one type; set run.precision = \"f32\""
    );
    let mut wrong =
        AutogradEncoder::new(Normed::new, 4, Seed(1), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(
        message(wrong.features(&random(1, &[5, 3, 2, 2]), Mode::Eval)),
        "features are [5, 3], expected [5, 4]. hint: `feature_dim` is the last of them"
    );
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let resnet =
        ResNetConfig { arch: moco_encoders::Arch::ResNet10, stem: Stem::Cifar, width: 0.125, bn };
    let resnet = EncoderConfig::ResNet(resnet).build(Seed(1), DType::F64, &Device::Cpu).unwrap();
    let (features, saved) = encoder.forward(&images).unwrap();
    let message = resnet.gradients(saved, &features).unwrap_err().to_string();
    assert_eq!(message, "the activations were saved by another kind of encoder");
}
