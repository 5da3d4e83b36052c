//! The items: small, on sizes that fill no block, through the operations that a step calls.

use candle_core::{DType, Tensor};
use moco_ops::{
    After, BatchNorm, Conv2dSpec, EmaUpdate, ImageStep, Running, SgdUpdate, add, augment_images,
    batch_norm_backward, batch_norm_eval, batch_norm_eval_backward, batch_norm_train,
    blend_running_, conv2d, conv2d_input_gradient, conv2d_weight_gradient, copy_, ema_, enqueue_,
    global_average_pool, global_average_pool_backward, info_nce, l2_normalize,
    l2_normalize_backward, linear, linear_backward, max_pool, max_pool_backward, normalize_images,
    relu, relu_backward, select_rows, sgd_,
};

use super::side::Side;

/// The results of an item, by name.
pub(super) type Results = anyhow::Result<Vec<(&'static str, Tensor)>>;

/// An item for one way to store activations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) dtype: DType,
    pub(super) types: &'static [DType],
    pub(super) work: fn(&Side) -> Results,
}

impl Item {
    pub(super) fn name(self) -> String {
        format!("{}/{}", self.name, self.dtype.as_str())
    }

    pub(super) fn of_each_type(self) -> Vec<Self> {
        self.types.iter().map(|dtype| Self { dtype: *dtype, ..self }).collect()
    }

    /// Whether a CPU does not have it: bf16, and changes of images, which `augment` makes there.
    pub(super) fn needs_gpu(self) -> bool {
        self.dtype == DType::BF16 || self.name == "augment_images"
    }

    /// Sums are taken in another order, and bf16 has 8 bits.
    pub(super) fn tolerance(self) -> f64 {
        if self.dtype == DType::BF16 { 2e-2 } else { 2e-5 }
    }
}

const BOTH: &[DType] = &[DType::F32, DType::BF16];
const F32: &[DType] = &[DType::F32];

const fn item(name: &'static str, types: &'static [DType], work: fn(&Side) -> Results) -> Item {
    Item { name, dtype: DType::F32, types, work }
}

/// In the order in which a step meets them, kernels before libraries.
pub(super) const ITEMS: [Item; 24] = [
    item("normalize_images", BOTH, normalized_images),
    item("augment_images", F32, augmented_images),
    item("select_rows", BOTH, selected_rows),
    item("batch_norm", BOTH, |side| batch_norm(side, |_| After::Nothing)),
    item("batch_norm_relu", BOTH, |side| batch_norm(side, |_| After::Relu)),
    item("batch_norm_add_relu", BOTH, |side| batch_norm(side, |other| After::AddRelu(other))),
    item("batch_norm_eval", BOTH, batch_norm_evaluated),
    item("max_pool", BOTH, max_pooled),
    item("average_pool", BOTH, averaged),
    item("add", BOTH, added),
    item("relu", BOTH, rectified),
    item("l2_normalize", BOTH, normalized_rows),
    item("linear", F32, linear_layer),
    item("info_nce", BOTH, contrasted),
    item("enqueue", BOTH, enqueued),
    item("ema", F32, followed),
    item("sgd", F32, descended),
    item("copy", F32, copied),
    item("convolution_3x3", BOTH, |side| convolution(side, [2, 16, 9, 9], [32, 16, 3, 3], 1)),
    item("convolution_3x3_stride_2", BOTH, |side| {
        convolution(side, [2, 8, 10, 8], [16, 8, 3, 3], 2)
    }),
    item("convolution_1x1", BOTH, |side| convolution(side, [3, 64, 5, 7], [16, 64, 1, 1], 1)),
    item("convolution_1x1_stride_2", BOTH, |side| {
        convolution(side, [2, 16, 8, 8], [24, 16, 1, 1], 2)
    }),
    item("convolution_7x7_of_images", BOTH, |side| {
        convolution(side, [2, 3, 32, 32], [16, 3, 7, 7], 2)
    }),
    item("convolution_in_groups", BOTH, grouped_convolution),
];

fn normalized_images(side: &Side) -> Results {
    let pixels = side.samples(&[2, 9, 7, 3])?;
    let [mean, std] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
    Ok(vec![("y", normalize_images(&pixels, mean, std, side.dtype)?)])
}

/// A CPU does not have this operation: flat images and gray ones have a closed form.
fn augmented_images(side: &Side) -> Results {
    const FLAT: u8 = 100;
    let steps = [
        vec![ImageStep::Brightness(0.5)],
        vec![ImageStep::Contrast(0.0)],
        vec![ImageStep::Blur { sigma: 1.3 }],
        vec![
            ImageStep::Saturation(0.0),
            ImageStep::Flip,
            ImageStep::Grayscale,
            ImageStep::Hue(0.3),
        ],
    ];
    let flat = side.samples(&[4, 33, 33, 3])?.to_device(&candle_core::Device::Cpu)?;
    let flat = (flat.zeros_like()?.to_dtype(DType::F32)? + f64::from(FLAT))?.to_dtype(DType::U8)?;
    let is_reference = side.is_reference();
    let y = if is_reference {
        let halved = flat.narrow(0, 0, 1)?.to_dtype(DType::F32)?;
        let halved = (halved * 0.5)?.to_dtype(DType::U8)?;
        Tensor::cat(&[&halved, &flat.narrow(0, 1, 3)?], 0)?
    } else {
        augment_images(&flat.to_device(&side.device)?, &steps)?
    };
    Ok(vec![("y", y)])
}

fn selected_rows(side: &Side) -> Results {
    let order = side.integers(&[2, 0, 4, 1, 3])?;
    let images = select_rows(&side.activations(1, [5, 3, 6, 6])?, &order)?;
    Ok(vec![("images", images), ("keys", select_rows(&side.numbers(2, &[5, 33])?, &order)?)])
}

fn batch_norm(side: &Side, after: fn(&Tensor) -> After<'_>) -> Results {
    let mut results = Vec::new();
    for (dims, groups) in [([4, 40, 5, 3], 2), ([2, 33, 4, 7], 1)] {
        let c = dims[1];
        let (gamma, beta) = (side.positive(1, &[c])?, side.numbers(2, &[c])?);
        let [x, dy, other] = [3, 4, 5].map(|salt| side.activations(salt, dims));
        let (x, dy, other) = (x?, dy?, other?);
        let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups };
        let (y, saved) = batch_norm_train(&x, bn, after(&other))?;
        let gradients = batch_norm_backward(&x, &y, &dy, bn, &saved, after(&other))?;
        let [mean, var] = [side.numbers(6, &[c])?, side.positive(7, &[c])?];
        let count = Tensor::new(3_i64, &candle_core::Device::Cpu)?.to_device(&side.device)?;
        blend_running_(
            &saved,
            Running { mean: &mean, var: &var, num_batches_tracked: &count },
            1,
            0.1,
        )?;
        results.extend([("y", y), ("gamma", gradients.gamma), ("beta", gradients.beta)]);
        results.extend([
            ("running_mean", mean),
            ("running_var", var),
            ("num_batches_tracked", count),
        ]);
        // Where y is within a rounding of 0, the two sides may let another gradient through.
        if matches!(after(&other), After::Nothing) {
            results.push(("dx", gradients.x));
        }
    }
    Ok(results)
}

fn batch_norm_evaluated(side: &Side) -> Results {
    let (gamma, beta) = (side.positive(1, &[40])?, side.numbers(2, &[40])?);
    let (mean, var) = (side.numbers(3, &[40])?, side.positive(4, &[40])?);
    let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups: 1 };
    let x = side.activations(5, [2, 40, 3, 5])?;
    let y = batch_norm_eval(&x, bn, &mean, &var, After::Relu)?;
    let (dy, running) = (side.activations(6, [2, 40, 3, 5])?, [&mean, &var]);
    let of_relu = batch_norm_eval_backward([&x, &y, &dy], bn, running, After::Relu)?;
    // Where y is within a rounding of 0, the two sides may let another gradient through to x.
    let plain = batch_norm_eval_backward([&x, &y, &dy], bn, running, After::Nothing)?;
    Ok(vec![("y", y), ("gamma", of_relu.gamma), ("beta", of_relu.beta), ("dx", plain.x)])
}

fn max_pooled(side: &Side) -> Results {
    let dims = [2, 24, 9, 7];
    let pooled = max_pool(&side.activations(1, dims)?)?;
    let dy = side.activations(2, pooled.y.dims4().map(|(n, c, h, w)| [n, c, h, w])?)?;
    let dx = max_pool_backward(&pooled, &dims, &dy)?;
    Ok(vec![("y", pooled.y), ("dx", dx)])
}

fn averaged(side: &Side) -> Results {
    let dims = [3, 33, 5, 4];
    let dx = global_average_pool_backward(&dims, &side.numbers(2, &dims[..2])?, side.dtype)?;
    Ok(vec![("y", global_average_pool(&side.activations(1, dims)?)?), ("dx", dx)])
}

fn added(side: &Side) -> Results {
    let dims = [2, 5, 3, 7];
    Ok(vec![("sum", add(&side.activations(1, dims)?, &side.activations(2, dims)?)?)])
}

fn rectified(side: &Side) -> Results {
    let (x, dy) = (side.rows(1, &[7, 37])?, side.rows(2, &[7, 37])?);
    let y = relu(&x)?;
    let dx = relu_backward(&y, &dy)?;
    Ok(vec![("y", y), ("dx", dx)])
}

fn normalized_rows(side: &Side) -> Results {
    let (x, dy) = (side.rows(1, &[9, 131])?, side.rows(2, &[9, 131])?);
    Ok(vec![("y", l2_normalize(&x)?), ("dx", l2_normalize_backward(&x, &dy)?)])
}

fn linear_layer(side: &Side) -> Results {
    let (x, weight) = (side.numbers(1, &[6, 40])?, side.numbers(2, &[17, 40])?);
    let gradients = linear_backward(&x, &weight, &side.numbers(4, &[6, 17])?)?;
    Ok(vec![
        ("y", linear(&x, &weight, &side.numbers(3, &[17])?)?),
        ("dx", gradients.x),
        ("dweight", gradients.weight),
        ("dbias", gradients.bias),
    ])
}

/// With the queue stored as activations are elsewhere.
fn contrasted(side: &Side) -> Results {
    let unit = |salt, n| anyhow::Ok(l2_normalize(&side.numbers(salt, &[n, 128])?)?);
    let queue = side.rows(3, &[128, 300])?;
    let got = info_nce(&unit(1, 33)?, &unit(2, 33)?, &queue, 2.0)?;
    let statistics = got.statistics.read()?;
    #[expect(clippy::cast_possible_truncation, reason = "compared in f32")]
    let loss = Tensor::new(&[statistics.loss as f32], &candle_core::Device::Cpu)?;
    Ok(vec![("dq", got.dq), ("loss", loss)])
}

fn enqueued(side: &Side) -> Results {
    let queue = side.rows(1, &[33, 50])?;
    let keys = side.numbers(2, &[21, 33])?;
    enqueue_(&queue, &[&keys], &side.integers(&[40])?)?;
    Ok(vec![("queue", queue)])
}

fn followed(side: &Side) -> Results {
    let (keys, queries) = (side.numbers(1, &[257])?, side.numbers(2, &[257])?);
    ema_(&[EmaUpdate::new(&keys, &queries)?], 0.9)?;
    Ok(vec![("key", keys)])
}

fn descended(side: &Side) -> Results {
    let [parameter, gradient, buffer] = [1, 2, 3].map(|salt| side.numbers(salt, &[300]));
    let (parameter, buffer) = (parameter?, buffer?);
    sgd_(&[SgdUpdate::new(&parameter, &gradient?, &buffer)?], &side.f32s(&[0.1])?, [0.9, 1e-4])?;
    Ok(vec![("parameter", parameter), ("buffer", buffer)])
}

fn copied(side: &Side) -> Results {
    let to = side.numbers(1, &[1000])?;
    copy_(&to, &side.numbers(2, &[1000])?)?;
    // From the host's memory.
    let table = side.numbers(3, &[77])?;
    copy_(&table, &side.numbers(4, &[77])?.to_device(&candle_core::Device::Cpu)?)?;
    Ok(vec![("copy", to), ("table", table)])
}

fn convolution(side: &Side, x: [usize; 4], weight: [usize; 4], stride: usize) -> Results {
    directions(side, x, weight, Conv2dSpec::new(stride, weight[2] / 2))
}

fn grouped_convolution(side: &Side) -> Results {
    let spec = Conv2dSpec { groups: 2, ..Conv2dSpec::new(1, 1) };
    directions(side, [2, 16, 6, 6], [32, 8, 3, 3], spec)
}

/// All three; weights are small enough for results around 1.
fn directions(side: &Side, dims: [usize; 4], weight: [usize; 4], spec: Conv2dSpec) -> Results {
    let x = side.activations(1, dims)?;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let scale = 1.0 / ((weight[1] * weight[2] * weight[3]) as f64).sqrt();
    // Rounded on both sides, as the device rounds it.
    let w = (side.rows(2, &weight)?.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F32)?
        * scale)?;
    let w = w.to_dtype(side.rounded_to())?.to_dtype(DType::F32)?.to_device(&side.device)?;
    let y = conv2d(&x, &w, spec)?;
    let dy = side.activations(3, y.dims4().map(|(n, c, h, w)| [n, c, h, w])?)?;
    let dx = conv2d_input_gradient(&dims, &w, &dy, spec)?;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let pixels = (dims[0] * y.dims()[2] * y.dims()[3]) as f64;
    let dw = (conv2d_weight_gradient(&x, &weight, &dy, spec)?
        .to_device(&candle_core::Device::Cpu)?
        / pixels.sqrt())?;
    Ok(vec![("y", y), ("dx", dx), ("dw", dw)])
}
