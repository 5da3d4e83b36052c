//! Batch norm. A pass over the activations leaves sums of chunks, a second kernel adds them up for each
//! channel, and a last pass applies what follows from them.

use candle_core::{DType, Tensor};

use super::types::{After, BatchNorm, BatchNormGradients, OP, Running};
use crate::dense::{Dense, dims4, expect_shape, shape};
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Gpu, Grid, Kernel, channels_last, expect_dtype, narrow, rows, u32_of};

/// Threads of a block; `BN_THREADS` of the kernels.
const THREADS: u32 = 256;
/// Threads of a block that adds up the sums of chunks; `BN_SUM_THREADS` of the kernels.
const SUM_THREADS: u32 = 1024;
/// Columns of threads, each with one access of 16 bytes: the channels of a tile.
const MOST_COLUMNS: usize = 32;
/// Blocks that the activations are cut into if they are large: what a current device holds at a time.
const BLOCKS: usize = 1024;
/// Rows that each thread of a smaller chunk has; fewer would cost more to add up than they save.
const LEAST_ROWS: usize = 8;

/// Statistics on the device.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    /// Mean, 1/σ and the biased variance `[3, groups, C]`, f32.
    numbers: Tensor,
    groups: usize,
    /// Values of a channel in a group.
    rows: usize,
}

/// How activations are cut into blocks; see `kernels/batch_norm.cuh`.
#[derive(Debug, Clone, Copy)]
struct Rows {
    rows: usize,
    chunk: usize,
    c: usize,
    columns: usize,
    groups: usize,
    tiles: usize,
}

impl Statistics {
    pub(crate) fn channels(&self) -> usize {
        self.numbers.dims()[2]
    }
}

impl Rows {
    /// For `[N, H, W, C]`.
    fn new(x: &Tensor, groups: usize) -> Result<Self, OpError> {
        let [n, h, w, c] = dims4(OP, "x", x)?;
        let rows = n / groups * h * w;
        let vector = 16 / x.dtype().size_in_bytes();
        let packs = if c.is_multiple_of(vector) { c / vector } else { c };
        let tiles = packs.div_ceil(MOST_COLUMNS);
        let columns = packs.div_ceil(tiles);
        let lanes = THREADS as usize / columns;
        let chunks = (BLOCKS / (groups * tiles)).max(1);
        let chunk = rows.div_ceil(chunks).max(LEAST_ROWS * lanes);
        Ok(Self { rows, chunk, c, columns, groups, tiles })
    }

    fn chunks(self) -> usize {
        self.rows.div_ceil(self.chunk)
    }

    fn grid(self) -> Result<Grid, OpError> {
        let blocks = [narrow(OP, self.chunks())?, narrow(OP, self.groups * self.tiles)?];
        Ok(Grid { blocks, threads: THREADS, shared_bytes: 0 })
    }

    /// The last parameters of each pass.
    fn args(self) -> Result<[Arg<'static>; 4], OpError> {
        let [rows, chunk, c, columns] =
            [self.rows, self.chunk, self.c, self.columns].map(|size| u32_of(OP, size));
        Ok([rows?, chunk?, c?, columns?])
    }

    /// Memory for two sums of each chunk and channel.
    fn partial(self, gpu: &dyn Gpu) -> Result<Tensor, OpError> {
        gpu.alloc(OP, &[self.groups, self.chunks(), 2, self.c], DType::F32)
    }

    /// Blocks that add up sums of chunks, each for the 32 channels of a warp.
    fn sum_grid(self, groups: usize) -> Result<Grid, OpError> {
        let blocks = [narrow(OP, self.c.div_ceil(32))?, narrow(OP, groups)?];
        Ok(Grid { blocks, threads: SUM_THREADS, shared_bytes: 0 })
    }
}

/// γ and β.
struct Affine([Dense; 2]);

impl Affine {
    fn new(bn: BatchNorm<'_>) -> Result<Self, OpError> {
        expect_dtype(OP, "gamma", bn.gamma, DType::F32)?;
        expect_dtype(OP, "beta", bn.beta, DType::F32)?;
        Ok(Self([rows(OP, "gamma", bn.gamma)?, rows(OP, "beta", bn.beta)?]))
    }

    fn args(&self) -> [Arg<'_>; 2] {
        let Self([gamma, beta]) = self;
        [Arg::In(gamma.tensor()), Arg::In(beta.tensor())]
    }
}

/// The variant of a pass for what follows the normalization.
fn variant(names: [&'static str; 3], after: After<'_>, x: &Tensor) -> Kernel {
    let [nothing, relu, add_relu] = names;
    let name = match after {
        After::Nothing => nothing,
        After::Relu => relu,
        After::AddRelu(_) => add_relu,
    };
    Kernel::typed(name, x)
}

/// See [`crate::batch_norm_train`].
pub(crate) fn train(
    gpu: &dyn Gpu,
    x: &Tensor,
    bn: BatchNorm<'_>,
    after: After<'_>,
) -> Result<(Tensor, Statistics), OpError> {
    let x = channels_last(OP, "x", x)?;
    let x = x.tensor();
    let cut = Rows::new(x, bn.groups)?;
    let partial = cut.partial(gpu)?;
    let mut args = vec![Arg::In(x), Arg::Out(&partial)];
    args.extend(cut.args()?);
    gpu.launch(OP, Kernel::typed("bn_moments", x), cut.grid()?, &args)?;
    let numbers = gpu.alloc(OP, &[3, bn.groups, cut.c], DType::F32)?;
    let [rows, chunk, c, _] = cut.args()?;
    let args = [
        Arg::In(&partial),
        Arg::Out(&numbers),
        u32_of(OP, bn.groups)?,
        u32_of(OP, cut.chunks())?,
        rows,
        chunk,
        c,
        epsilon(bn),
    ];
    gpu.launch(OP, Kernel::new("bn_statistics"), cut.sum_grid(bn.groups)?, &args)?;
    let y = normalize(gpu, x, bn, after, &numbers, cut)?;
    Ok((y, Statistics { numbers, groups: bn.groups, rows: cut.rows }))
}

/// See [`crate::batch_norm_eval`].
pub(crate) fn eval(
    gpu: &dyn Gpu,
    x: &Tensor,
    bn: BatchNorm<'_>,
    running: [&Tensor; 2],
    after: After<'_>,
) -> Result<Tensor, OpError> {
    let numbers = of_running(gpu, bn, running)?;
    let x = channels_last(OP, "x", x)?;
    normalize(gpu, x.tensor(), bn, after, &numbers, Rows::new(x.tensor(), 1)?)
}

/// Mean and 1/σ of running statistics, `[2, 1, C]`.
fn of_running(gpu: &dyn Gpu, bn: BatchNorm<'_>, running: [&Tensor; 2]) -> Result<Tensor, OpError> {
    let [mean, var] = running;
    expect_dtype(OP, "running_mean", mean, DType::F32)?;
    expect_dtype(OP, "running_var", var, DType::F32)?;
    let [mean, var] = [rows(OP, "running_mean", mean)?, rows(OP, "running_var", var)?];
    let c = mean.tensor().elem_count();
    let numbers = gpu.alloc(OP, &[2, 1, c], DType::F32)?;
    let args = [
        Arg::In(mean.tensor()),
        Arg::In(var.tensor()),
        Arg::Out(&numbers),
        u32_of(OP, c)?,
        epsilon(bn),
    ];
    gpu.launch(OP, Kernel::new("bn_running"), Grid::of_elements(gpu, c), &args)?;
    Ok(numbers)
}

#[expect(clippy::cast_possible_truncation, reason = "kernels take f32")]
fn epsilon(bn: BatchNorm<'_>) -> Arg<'static> {
    Arg::F32(bn.eps as f32)
}

/// `[N, C, H, W]` from `x` `[N, H, W, C]`.
fn normalize(
    gpu: &dyn Gpu,
    x: &Tensor,
    bn: BatchNorm<'_>,
    after: After<'_>,
    statistics: &Tensor,
    cut: Rows,
) -> Result<Tensor, OpError> {
    let y = gpu.alloc(OP, x.dims(), x.dtype())?;
    if x.elem_count() > 0 {
        let affine = Affine::new(bn)?;
        let added = added(after, x.dtype())?;
        let mut args = vec![Arg::In(x)];
        args.extend(added.iter().map(|added| Arg::In(added.tensor())));
        args.extend([Arg::Out(&y), Arg::In(statistics)]);
        args.extend(affine.args());
        args.extend(cut.args()?);
        let names = ["bn_normalize", "bn_normalize_relu", "bn_normalize_add_relu"];
        gpu.launch(OP, variant(names, after, x), cut.grid()?, &args)?;
    }
    y.permute((0, 3, 1, 2)).in_op(OP)
}

fn added(after: After<'_>, dtype: DType) -> Result<Option<Dense>, OpError> {
    let After::AddRelu(added) = after else { return Ok(None) };
    expect_dtype(OP, "added", added, dtype)?;
    channels_last(OP, "added", added).map(Some)
}

/// See [`crate::batch_norm_backward`].
pub(crate) fn backward(
    gpu: &dyn Gpu,
    [x, y, dy]: [&Tensor; 3],
    bn: BatchNorm<'_>,
    statistics: &Statistics,
    after: After<'_>,
) -> Result<BatchNormGradients, OpError> {
    let flow = BackwardFlow::new([x, y, dy], after)?;
    let x = flow.x.tensor();
    let cut = Rows::new(x, statistics.groups)?;
    expect_shape(OP, "saved", &statistics.numbers, &[3, cut.groups, cut.c])?;
    if cut.rows != statistics.rows {
        return Err(shape(OP, "x", "the shape of the forward pass", x.dims()));
    }
    let affine = Affine::new(bn)?;
    let sums = flow.sums(gpu, &affine, &statistics.numbers, after, cut)?;
    let dx = gpu.alloc(OP, x.dims(), x.dtype())?;
    let mut args = vec![Arg::In(x), Arg::In(flow.g(&sums)), Arg::Out(&dx)];
    args.extend([Arg::In(&statistics.numbers), Arg::In(&sums.means)]);
    args.extend(affine.args());
    args.extend(cut.args()?);
    let names = ["bn_input_gradient", "bn_input_gradient_relu", "bn_input_gradient"];
    gpu.launch(OP, variant(names, after, x), cut.grid()?, &args)?;
    sums.with(&dx)
}

/// See [`crate::batch_norm_eval_backward`].
pub(crate) fn eval_backward(
    gpu: &dyn Gpu,
    tensors: [&Tensor; 3],
    bn: BatchNorm<'_>,
    running: [&Tensor; 2],
    after: After<'_>,
) -> Result<BatchNormGradients, OpError> {
    let flow = BackwardFlow::new(tensors, after)?;
    let x = flow.x.tensor();
    let cut = Rows::new(x, 1)?;
    let affine = Affine::new(bn)?;
    let numbers = of_running(gpu, bn, running)?;
    let sums = flow.sums(gpu, &affine, &numbers, after, cut)?;
    let dx = gpu.alloc(OP, x.dims(), x.dtype())?;
    let mut args = vec![Arg::In(x), Arg::In(flow.g(&sums)), Arg::Out(&dx), Arg::In(&numbers)];
    args.extend(affine.args());
    args.extend(cut.args()?);
    let names = ["bn_eval_gradient", "bn_eval_gradient_relu", "bn_eval_gradient"];
    gpu.launch(OP, variant(names, after, x), cut.grid()?, &args)?;
    sums.with(&dx)
}

/// The tensors that a backward pass reads, with channels last.
struct BackwardFlow {
    x: Dense,
    /// The output, where ReLU follows an addition.
    y: Option<Dense>,
    dy: Dense,
}

/// What the sums over a batch give.
struct Sums {
    /// The gradient behind ReLU, where it follows an addition: that of the added tensor too.
    masked: Option<Tensor>,
    /// Means of g and g·x̂ `[groups, 2, C]`.
    means: Tensor,
    gamma: Tensor,
    beta: Tensor,
}

impl BackwardFlow {
    fn new([x, y, dy]: [&Tensor; 3], after: After<'_>) -> Result<Self, OpError> {
        expect_dtype(OP, "dy", dy, x.dtype())?;
        let y = match after {
            After::AddRelu(_) => {
                expect_dtype(OP, "y", y, x.dtype())?;
                Some(channels_last(OP, "y", y)?)
            }
            After::Nothing | After::Relu => None,
        };
        Ok(Self { x: channels_last(OP, "x", x)?, y, dy: channels_last(OP, "dy", dy)? })
    }

    /// Adds up what γ, β and the means need; `statistics` begin with means and 1/σ.
    fn sums(
        &self,
        gpu: &dyn Gpu,
        affine: &Affine,
        statistics: &Tensor,
        after: After<'_>,
        cut: Rows,
    ) -> Result<Sums, OpError> {
        let x = self.x.tensor();
        let masked = self.y.as_ref().map(|_| gpu.alloc(OP, x.dims(), x.dtype())).transpose()?;
        let partial = cut.partial(gpu)?;
        let mut args = vec![Arg::In(x)];
        args.extend(self.y.iter().map(|y| Arg::In(y.tensor())));
        args.push(Arg::In(self.dy.tensor()));
        args.extend(masked.iter().map(Arg::Out));
        args.push(Arg::In(statistics));
        args.extend(affine.args());
        args.push(Arg::Out(&partial));
        args.extend(cut.args()?);
        let names = ["bn_gradient_sums", "bn_gradient_sums_relu", "bn_gradient_sums_add_relu"];
        gpu.launch(OP, variant(names, after, x), cut.grid()?, &args)?;
        let (means, [gamma, beta]) = gradients(gpu, &partial, cut)?;
        Ok(Sums { masked, means, gamma, beta })
    }

    /// The gradient that the input's is computed from.
    fn g<'a>(&'a self, sums: &'a Sums) -> &'a Tensor {
        sums.masked.as_ref().unwrap_or(self.dy.tensor())
    }
}

impl Sums {
    /// All gradients, with `dx` `[N, H, W, C]`.
    fn with(self, dx: &Tensor) -> Result<BatchNormGradients, OpError> {
        let channels_first = |x: &Tensor| x.permute((0, 3, 1, 2)).in_op(OP);
        let Self { masked, gamma, beta, means: _ } = self;
        let added = masked.as_ref().map(channels_first).transpose()?;
        Ok(BatchNormGradients { x: channels_first(dx)?, added, gamma, beta })
    }
}

/// Means of each group for the input's gradient, and the gradients of γ and β.
fn gradients(gpu: &dyn Gpu, partial: &Tensor, cut: Rows) -> Result<(Tensor, [Tensor; 2]), OpError> {
    let means = gpu.alloc(OP, &[cut.groups, 2, cut.c], DType::F32)?;
    let gamma = gpu.alloc(OP, &[cut.c], DType::F32)?;
    let beta = gpu.alloc(OP, &[cut.c], DType::F32)?;
    let args = [
        Arg::In(partial),
        Arg::Out(&means),
        Arg::Out(&gamma),
        Arg::Out(&beta),
        u32_of(OP, cut.groups)?,
        u32_of(OP, cut.chunks())?,
        u32_of(OP, cut.rows)?,
        u32_of(OP, cut.c)?,
    ];
    gpu.launch(OP, Kernel::new("bn_gradients"), cut.sum_grid(1)?, &args)?;
    Ok((means, [gamma, beta]))
}

/// See [`crate::blend_running_`].
pub(crate) fn blend(
    gpu: &dyn Gpu,
    statistics: &Statistics,
    Running { mean, var, num_batches_tracked }: Running<'_>,
    groups: usize,
    bn_momentum: f64,
) -> Result<(), OpError> {
    expect_dtype(OP, "running_mean", mean, DType::F32)?;
    expect_dtype(OP, "running_var", var, DType::F32)?;
    let c = mean.elem_count();
    let args = [
        Arg::In(&statistics.numbers),
        Arg::Out(mean),
        Arg::Out(var),
        Arg::Out(num_batches_tracked),
        u32_of(OP, statistics.groups)?,
        u32_of(OP, groups)?,
        u32_of(OP, statistics.rows)?,
        u32_of(OP, c)?,
        #[expect(clippy::cast_possible_truncation, reason = "kernels take f32")]
        Arg::F32(bn_momentum as f32),
    ];
    gpu.launch(OP, Kernel::new("bn_blend"), Grid::of_elements(gpu, c), &args)
}
