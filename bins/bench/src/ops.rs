//! Single operations.

use anyhow::bail;
use candle_core::{Device, Tensor};
use moco_ops::{
    After, BatchNorm, Conv2dSpec, EmaUpdate, SgdUpdate, batch_norm_backward, batch_norm_train,
    conv2d, conv2d_input_gradient, conv2d_weight_gradient, ema_, info_nce, l2_normalize, max_pool,
    max_pool_backward, sgd_,
};

use crate::case::{Case, Words, activations, normal};

const C_KEYS: usize = 128;

pub(crate) fn conv(words: &mut Words<'_>) -> anyhow::Result<Case> {
    let (n, c, size) = (words.number("N")?, words.number("C")?, words.number("SIZE")?);
    let (c_out, k, stride) = (words.number("C_OUT")?, words.number("K")?, words.number("STRIDE")?);
    let spec = Conv2dSpec::new(stride, k / 2);
    let x = activations([n, c, size, size], 0)?;
    let weight = normal(&[c_out, c, k, k], 1)?;
    let dy = conv2d(&x, &weight, spec)?;
    Ok(match words.word("PASS")? {
        "forward" => Case::from(move || {
            conv2d(&x, &weight, spec)?;
            Ok(())
        }),
        "dx" => Case::from(move || {
            conv2d_input_gradient(x.dims(), &weight, &dy, spec)?;
            Ok(())
        }),
        "dw" => Case::from(move || {
            conv2d_weight_gradient(&x, weight.dims(), &dy, spec)?;
            Ok(())
        }),
        other => bail!("PASS is {other:?}, expected `forward`, `dx` or `dw`"),
    })
}

/// Whether a shortcut is added before the ReLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    No,
    Yes,
}

impl Added {
    fn shortcut(self, shortcut: &Tensor) -> After<'_> {
        match self {
            Self::No => After::Relu,
            Self::Yes => After::AddRelu(shortcut),
        }
    }
}

fn bn<'a>(gamma: &'a Tensor, beta: &'a Tensor) -> BatchNorm<'a> {
    BatchNorm { gamma, beta, eps: 1e-5, groups: 1 }
}

pub(crate) fn batch_norm(words: &mut Words<'_>, added: Added) -> anyhow::Result<Case> {
    let (n, c, size) = (words.number("N")?, words.number("C")?, words.number("SIZE")?);
    let [x, shortcut, dy] = [0, 1, 2].map(|i| activations([n, c, size, size], i));
    let (x, shortcut, dy) = (x?, shortcut?, dy?);
    let (gamma, beta) = (normal(&[c], 3)?, normal(&[c], 4)?);
    let pass = words.word("PASS")?;
    let is_forward = match pass {
        "forward" => true,
        "backward" => false,
        other => bail!("PASS is {other:?}, expected `forward` or `backward`"),
    };
    let (y, saved) = batch_norm_train(&x, bn(&gamma, &beta), added.shortcut(&shortcut))?;
    Ok(Case::from(move || {
        let (bn, after) = (bn(&gamma, &beta), added.shortcut(&shortcut));
        if is_forward {
            batch_norm_train(&x, bn, after)?;
        } else {
            batch_norm_backward(&x, &y, &dy, bn, &saved, after)?;
        }
        Ok(())
    }))
}

pub(crate) fn max_pool_3x3(words: &mut Words<'_>) -> anyhow::Result<Case> {
    let (n, c, size) = (words.number("N")?, words.number("C")?, words.number("SIZE")?);
    let x = activations([n, c, size, size], 0)?;
    let pooled = max_pool(&x)?;
    Ok(match words.word("PASS")? {
        "forward" => Case::from(move || {
            max_pool(&x)?;
            Ok(())
        }),
        "backward" => Case::from(move || {
            max_pool_backward(&pooled, x.dims(), &pooled.y)?;
            Ok(())
        }),
        other => bail!("PASS is {other:?}, expected `forward` or `backward`"),
    })
}

pub(crate) fn info_nce_128(words: &mut Words<'_>) -> anyhow::Result<Case> {
    let (n, n_negatives) = (words.number("N")?, words.number("K")?);
    let q = l2_normalize(&normal(&[n, C_KEYS], 0)?)?;
    let k = l2_normalize(&normal(&[n, C_KEYS], 1)?)?;
    let queue = l2_normalize(&normal(&[n_negatives, C_KEYS], 2)?)?.t()?.contiguous()?;
    Ok(Case::from(move || {
        info_nce(&q, &k, &queue, 0.2)?;
        Ok(())
    }))
}

pub(crate) fn sgd(words: &mut Words<'_>) -> anyhow::Result<Case> {
    let n: usize = words.number("N")?;
    let [parameter, gradient, buffer] = [0, 1, 2].map(|i| normal(&[n], i));
    let (parameter, gradient, buffer) = (parameter?, gradient?, buffer?);
    let lr = Tensor::new(&[1e-3_f32], &Device::Cpu)?;
    Ok(Case::from(move || {
        Ok(sgd_(&[SgdUpdate::new(&parameter, &gradient, &buffer)?], &lr, [0.9, 1e-4])?)
    }))
}

pub(crate) fn ema(words: &mut Words<'_>) -> anyhow::Result<Case> {
    let n: usize = words.number("N")?;
    let (key, query) = (normal(&[n], 0)?, normal(&[n], 1)?);
    Ok(Case::from(move || Ok(ema_(&[EmaUpdate::new(&key, &query)?], 0.999)?)))
}
