//! Vision transformers as a candle module (Dosovitskiy et al. 2021; official `moco-v3/vits.py`), with the
//! parameter names of timm.
//!
//! Every operation here has a derivative in candle, which candle-nn's `LayerNorm::forward` and
//! `softmax_last_dim` do not have. Dropout, stochastic depth and MoCo v3's frozen patch projection are left
//! out.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder};
use moco_rng::Seed;

use crate::autograd::AutogradEncoder;
use crate::config::{VitConfig, VitShape};
use crate::encoder::EncoderError;
use crate::init::count;

/// Hidden width of an MLP over that of a token.
const MLP_RATIO: usize = 4;
/// ε of layer norm (official `vits.py`).
const EPS: f32 = 1e-6;

/// A vision transformer behind the trait `Encoder`.
pub(crate) fn build(
    config: VitConfig,
    seed: Seed,
    dtype: DType,
    device: &Device,
) -> std::result::Result<AutogradEncoder<Vit>, EncoderError> {
    config.check()?;
    let build = move |vb: VarBuilder<'_>| Vit::new(config, &vb);
    AutogradEncoder::new(build, config.shape.embed_dim, seed, dtype, device)
}

/// Images `[N, 3, S, S]` to the class token `[N, D]` after the last layer norm.
#[derive(Debug)]
pub(crate) struct Vit {
    image_size: usize,
    patch_size: usize,
    /// `[1, 1, D]`.
    cls_token: Tensor,
    /// Weight `[D, 3, P, P]` and bias `[D]` of the convolution that makes a token of each patch.
    patch_embed: (Tensor, Tensor),
    /// `[1, 1 + T, D]`; a constant.
    pos_embed: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
}

impl Vit {
    fn new(config: VitConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let VitConfig { image_size, patch_size, shape } = config;
        let VitShape { embed_dim: d, depth, n_heads: _ } = shape;
        // Official: normal with deviation 1e-6; uniform of Xavier over 3·P² inputs; zero.
        let cls = Init::Randn { mean: 0.0, stdev: 1e-6 };
        let cls_token = vb.get_with_hints((1, 1, d), "cls_token", cls)?;
        let dims = (d, 3, patch_size, patch_size);
        let patch = vb.pp("patch_embed.proj");
        let weight = patch.get_with_hints(dims, "weight", xavier(3 * patch_size.pow(2), d))?;
        let patch_embed = (weight, patch.get_with_hints(d, "bias", Init::Const(0.0))?);
        let blocks = (0..depth).map(|i| Block::new(shape, &vb.pp(format!("blocks.{i}"))));
        Ok(Self {
            image_size,
            patch_size,
            cls_token,
            patch_embed,
            pos_embed: pos_embed(image_size / patch_size, d, vb.dtype(), vb.device())?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: Norm::new(d, &vb.pp("norm"))?,
        })
    }

    /// `[N, 3, S, S]` → `[N, T, D]`, patches row by row: a convolution with stride P, as one product.
    fn tokens(&self, images: &Tensor) -> Result<Tensor> {
        let (s, p) = (self.image_size, self.patch_size);
        let n = match *images.dims() {
            [n, 3, height, width] if (height, width) == (s, s) => n,
            _ => candle_core::bail!(
                "images are {:?}, but this vision transformer takes [N, 3, {s}, {s}]",
                images.dims()
            ),
        };
        let patches = images.reshape((n, 3, s / p, p, s / p, p))?.permute((0, 2, 4, 1, 3, 5))?;
        let patches = patches.contiguous()?.reshape((n, (s / p).pow(2), 3 * p * p))?;
        let (weight, bias) = &self.patch_embed;
        Linear::new(weight.flatten_from(1)?, Some(bias.clone())).forward(&patches)
    }
}

impl Module for Vit {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let tokens = self.tokens(images)?;
        let (n, _, d) = tokens.dims3()?;
        let cls = self.cls_token.broadcast_as((n, 1, d))?;
        let mut x = Tensor::cat(&[&cls, &tokens], 1)?.broadcast_add(&self.pos_embed)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        // Layer norm sees each token for itself, so that of the other tokens is left out.
        self.norm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}

/// `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.
#[derive(Debug)]
struct Block {
    n_heads: usize,
    norm1: Norm,
    /// Queries, keys and values, one after the other.
    qkv: Linear,
    proj: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(shape: VitShape, vb: &VarBuilder<'_>) -> Result<Self> {
        let VitShape { embed_dim: d, depth: _, n_heads } = shape;
        let hidden = MLP_RATIO * d;
        Ok(Self {
            n_heads,
            norm1: Norm::new(d, &vb.pp("norm1"))?,
            // Official: each of the three matrices as if it stood for itself.
            qkv: linear([d, 3 * d], xavier(d, d), &vb.pp("attn.qkv"))?,
            proj: linear([d, d], xavier(d, d), &vb.pp("attn.proj"))?,
            norm2: Norm::new(d, &vb.pp("norm2"))?,
            fc1: linear([d, hidden], xavier(d, hidden), &vb.pp("mlp.fc1"))?,
            fc2: linear([hidden, d], xavier(hidden, d), &vb.pp("mlp.fc2"))?,
        })
    }

    /// `[N, 1 + T, D]` to the same shape: softmax(q·kᵀ/√(D/heads))·v for each head.
    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (n, t, d) = x.dims3()?;
        let of_head = d / self.n_heads;
        let qkv = self.qkv.forward(x)?.reshape((n, t, 3, self.n_heads, of_head))?;
        let qkv = qkv.permute((2, 0, 3, 1, 4))?; // [3, N, heads, 1 + T, D / heads]
        let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / count(of_head).sqrt())?;
        let mixed = softmax(&scores)?.matmul(&v)?;
        self.proj.forward(&mixed.transpose(1, 2)?.contiguous()?.reshape((n, t, d))?)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention(&self.norm1.forward(x)?)?)?;
        let hidden = gelu(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
        x + self.fc2.forward(&hidden)?
    }
}

/// x·Φ(x). candle's own `gelu_erf` takes six digits of 1/√(2π) in its derivative, which is wrong in the seventh.
fn gelu(x: &Tensor) -> Result<Tensor> {
    let twice_cdf = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?;
    (x * 0.5)? * twice_cdf
}

/// Softmax over the last dimension; the maximum, which cancels, is a constant to the gradient.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.detach().max_keepdim(candle_core::D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(candle_core::D::Minus1)?)
}

/// Layer norm over the last dimension, from differentiable operations.
#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(d: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get_with_hints(d, "weight", Init::Const(1.0))?;
        Ok(Self { weight, bias: vb.get_with_hints(d, "bias", Init::Const(0.0))? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm_slow(x, &self.weight, &self.bias, EPS)
    }
}

fn linear([c_in, c_out]: [usize; 2], weight: Init, vb: &VarBuilder<'_>) -> Result<Linear> {
    let weight = vb.get_with_hints((c_out, c_in), "weight", weight)?;
    Ok(Linear::new(weight, Some(vb.get_with_hints(c_out, "bias", Init::Const(0.0))?)))
}

/// Uniform in ±√(6/(inputs + outputs)).
fn xavier(c_in: usize, c_out: usize) -> Init {
    let bound = (6.0 / count(c_in + c_out)).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// `[1, 1 + g², D]` for patches in g rows of g: zero for the class token; for the patch in row r and column c
/// `sin(r·ω), cos(r·ω), sin(c·ω), cos(c·ω)` with D/4 frequencies `ω_i = 10000^(−4i/D)`
/// (official `vits.py`, `build_2d_sincos_position_embedding`).
fn pos_embed(g: usize, d: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let quarter = d / 4;
    let omega = |i: usize| 10_000_f64.powf(-count(i) / count(quarter));
    let mut rows = vec![0.0; d];
    for patch in 0..g * g {
        for at in [patch / g, patch % g] {
            rows.extend((0..quarter).map(|i| (count(at) * omega(i)).sin()));
            rows.extend((0..quarter).map(|i| (count(at) * omega(i)).cos()));
        }
    }
    Tensor::from_vec(rows, (1, 1 + g * g, d), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_sines_and_cosines_of_row_and_column() {
        let embedding = pos_embed(3, 8, DType::F64, &Device::Cpu).unwrap();
        assert_eq!(embedding.dims(), [1, 10, 8]);
        let rows = embedding.squeeze(0).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(rows[0], [0.0; 8], "the class token has no place");
        // Row 1, column 2; ω is 1 and 10000^(-1/2) = 1/100.
        let expected = [
            1_f64.sin(),
            0.01_f64.sin(),
            1_f64.cos(),
            0.01_f64.cos(),
            2_f64.sin(),
            0.02_f64.sin(),
            2_f64.cos(),
            0.02_f64.cos(),
        ];
        let got = &rows[1 + 3 + 2];
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{got:?}");
    }

    /// The product over patches against candle's convolution with the same weight.
    #[test]
    fn tokens_are_a_strided_convolution() {
        let shape = VitShape { embed_dim: 8, depth: 1, n_heads: 2 };
        let config = VitConfig { image_size: 6, patch_size: 2, shape };
        let images: Vec<f64> = (0..2 * 3 * 36).map(|i| f64::from(i).sin()).collect();
        let images = Tensor::from_vec(images, (2, 3, 6, 6), &Device::Cpu).unwrap();
        let vars = candle_nn::VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
        let vit = Vit::new(config, &vb).unwrap();
        let convolved = images.conv2d(&vit.patch_embed.0, 0, 2, 1, 1).unwrap();
        let expected = convolved.flatten_from(2).unwrap().transpose(1, 2).unwrap();
        let difference = (vit.tokens(&images).unwrap() - expected).unwrap().abs().unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-14);
        let message = vit.tokens(&images.narrow(3, 0, 4).unwrap()).unwrap_err().to_string();
        let expected = "images are [2, 3, 6, 4], but this vision transformer takes [N, 3, 6, 6]";
        assert!(message.starts_with(expected), "{message}");
    }
}
