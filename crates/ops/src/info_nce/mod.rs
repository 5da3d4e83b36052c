//! InfoNCE over a queue in closed form, block by block: the N×K logits never exist as a whole.

mod gpu;
mod kernel;
mod statistics;

use candle_core::Tensor;
use rayon::prelude::*;

use self::kernel::{BLOCK, Panel, Partial, pass};
pub use self::statistics::{InfoNceStatistics, PendingStatistics};
use self::statistics::{OP, count};
use crate::backend;
use crate::dense::{Dense, by_dtype, dims2, expect_shape, lend, tensor};
use crate::error::OpError;
use crate::simd::{Float, vectorize};

/// Queries that share a pass over the queue.
const QUERIES: usize = 256;
/// Fewest negatives of a task: fewer do not pay for a thread.
const MIN_NEGATIVES: usize = 256;
/// Parts of the queue at most: more would only take memory.
const MOST_PARTS: usize = 128;
/// Bytes that the gradients of a group of queries may take until they are added up.
const PARTIAL_BYTES: usize = 4 << 20;

/// Gradient and statistics of a batch.
#[derive(Debug)]
pub struct InfoNce {
    /// Gradient of the loss to the queries, `[N, C]`.
    pub dq: Tensor,
    /// The loss and how it came about.
    pub statistics: PendingStatistics,
}

/// `−log( exp(q·k⁺/τ) / (exp(q·k⁺/τ) + Σ_queue exp(q·k⁻/τ)) )`, averaged over the batch, and its
/// gradient to `q`; keys and queue get none (MoCo v1 §3.1 Eq. (1); official `builder.py:154-168`).
/// `q`, `k`: L2-normalized `[N, C]`; `queue`: `[C, K]` with unit columns. On a GPU `q` and `k` are f32, and
/// the queue is f32 or bf16; negatives of bf16 are ranked against the positive rounded as they are, so that
/// equal keys tie (deviation D10).
///
/// # Errors
/// If the shapes do not fit or the temperature is not positive.
pub fn info_nce(
    q: &Tensor,
    k: &Tensor,
    queue: &Tensor,
    temperature: f64,
) -> Result<InfoNce, OpError> {
    let [_, c] = dims2(OP, "q", q)?;
    let [_, n_negatives] = dims2(OP, "queue", queue)?;
    expect_shape(OP, "k", k, q.dims())?;
    expect_shape(OP, "queue", queue, &[c, n_negatives])?;
    if temperature <= 0.0 || !temperature.is_finite() {
        let (argument, expected) = ("temperature", "a positive number");
        return Err(OpError::Argument { op: OP, argument, expected, got: temperature });
    }
    if let Some(gpu) = backend::of(OP, q)? {
        let (dq, queries) = gpu::loss_and_gradient(&*gpu, q, k, queue, temperature)?;
        return Ok(InfoNce { dq, statistics: PendingStatistics::on_device(queries) });
    }
    for (tensor, x) in [("k", k), ("queue", queue)] {
        if x.dtype() != q.dtype() {
            return Err(OpError::DType { op: OP, tensor, got: x.dtype() });
        }
    }
    by_dtype!(OP, q, closed_form(q, k, queue, temperature))
}

fn closed_form<T: Float>(
    q: &Tensor,
    k: &Tensor,
    queue: &Tensor,
    temperature: f64,
) -> Result<InfoNce, OpError> {
    let [n, c] = dims2(OP, "q", q)?;
    let [_, n_negatives] = dims2(OP, "queue", queue)?;
    let (q, k) = (Dense::rows(OP, q)?, Dense::rows(OP, k)?);
    let scale = 1.0 / (temperature * count(n));
    let merged: Vec<(Vec<Query>, Vec<T>)> = lend!(OP, T, [q, k] => {
        let panels = Panel::of_batch(q, k, c);
        let partials = all_parts(&panels, queue, temperature)?;
        let both = panels.par_iter().zip(&partials);
        both.map(|(panel, partials)| {
            let rows = panel.first * c..(panel.first + panel.n) * c;
            merge(partials, [&q[rows.clone()], &k[rows]], panel.n, temperature, scale)
        }).collect()
    });
    let queries = || merged.iter().flat_map(|(queries, _)| queries);
    let mean = |f: &dyn Fn(&Query) -> f64| queries().map(f).sum::<f64>() / count(n);
    let statistics = PendingStatistics::ready(InfoNceStatistics {
        loss: mean(&|query| query.loss),
        positive_rank: queries().map(|query| query.positive_rank).collect(),
        positive_cosine: mean(&|query| query.positive),
        negative_cosine: mean(&|query| query.negatives / count(n_negatives)),
    });
    let dq = merged.iter().flat_map(|(_, dq)| dq).copied().collect::<Vec<T>>();
    Ok(InfoNce { dq: tensor(OP, dq, (n, c))?, statistics })
}

/// For each panel what each part of the queue gives, in order. The parts depend only on the shapes, so
/// that the bits of the result do not depend on the number of threads.
fn all_parts<T: Float>(
    panels: &[Panel<T>],
    queue: &Tensor,
    temperature: f64,
) -> Result<Vec<Vec<Partial<T>>>, OpError> {
    let [c, n_negatives] = dims2(OP, "queue", queue)?;
    let width: usize = panels.iter().map(Panel::width).sum();
    let by_memory = PARTIAL_BYTES / (width * c * size_of::<f64>()).max(1);
    let n_parts = (n_negatives / MIN_NEGATIVES).min(by_memory).clamp(1, MOST_PARTS);
    let part = n_negatives.div_ceil(n_parts).max(1).next_multiple_of(BLOCK);
    let per_group = panels.first().map_or(1, |panel| (QUERIES / panel.width()).max(1));
    let groups: Vec<&[Panel<T>]> = panels.chunks(per_group).collect();
    let starts: Vec<usize> = (0..n_negatives).step_by(part).collect();
    let tasks = groups.iter().flat_map(|group| starts.iter().map(move |start| (*group, *start)));
    let tasks: Vec<(&[Panel<T>], usize)> = tasks.collect();
    let done: Vec<Vec<Partial<T>>> = tasks
        .into_par_iter()
        .map(|(group, start)| {
            pass(group, queue, start..(start + part).min(n_negatives), temperature)
        })
        .collect::<Result<_, _>>()?;
    let mut of_panels: Vec<Vec<Partial<T>>> = panels.iter().map(|_| Vec::new()).collect();
    for (task, partials) in done.into_iter().enumerate() {
        let first_panel = task / starts.len() * per_group;
        for (of_panel, partial) in of_panels[first_panel..].iter_mut().zip(partials) {
            of_panel.push(partial);
        }
    }
    Ok(of_panels)
}

/// The results for one query.
struct Query {
    loss: f64,
    positive_rank: u32,
    /// Cosine to the positive.
    positive: f64,
    /// Σ cosine to the negatives.
    negatives: f64,
}

/// The losses of a panel's queries from all parts of the queue, and the gradient `[n, C]` to them:
/// `dL/dq = (Σ_j p_j·k_j − k⁺)/(τ·N)` with p the softmax over positive and negatives.
fn merge<T: Float>(
    partials: &[Partial<T>],
    [q, k]: [&[T]; 2],
    n: usize,
    temperature: f64,
    scale: f64,
) -> (Vec<Query>, Vec<T>) {
    let c = k.len() / n;
    let mut factors: Vec<Vec<f64>> = partials.iter().map(|p| vec![0.0; p.sum.len()]).collect();
    let mut queries = Vec::with_capacity(n);
    // 1 − p of the positive.
    let mut rest = Vec::with_capacity(n);
    for (i, (q, k)) in q.chunks_exact(c).zip(k.chunks_exact(c)).enumerate() {
        let positive: f64 = q.iter().zip(k).map(|(q, k)| q.f64() * k.f64()).sum();
        let reference = partials.iter().map(|p| p.reference[i].f64()).fold(positive, f64::max);
        let weight = |cosine: f64| ((cosine - reference) / temperature).exp();
        let mut sum = 0.0;
        for (partial, factors) in partials.iter().zip(&mut factors) {
            factors[i] = weight(partial.reference[i].f64());
            sum += factors[i] * partial.sum[i];
        }
        let total = sum + weight(positive);
        factors.iter_mut().for_each(|factors| factors[i] /= total);
        rest.push(sum / total);
        queries.push(Query {
            #[expect(clippy::float_cmp, reason = "a copy; small losses keep their digits")]
            loss: if reference == positive {
                sum.ln_1p()
            } else {
                total.ln() + (reference - positive) / temperature
            },
            positive_rank: partials.iter().map(|p| p.positive_rank[i]).sum(),
            positive,
            negatives: partials.iter().map(|p| p.cosines[i]).sum(),
        });
    }
    let width = factors.first().map_or(n, Vec::len);
    let mut sums = vec![0.0; c * width];
    vectorize(|| {
        for (partial, factors) in partials.iter().zip(&factors) {
            let rows = sums.chunks_exact_mut(width).zip(partial.gradient.chunks_exact(width));
            for (sums, gradient) in rows {
                for ((sum, gradient), factor) in sums.iter_mut().zip(gradient).zip(factors) {
                    *sum += factor * gradient;
                }
            }
        }
    });
    let mut dq = Vec::with_capacity(n * c);
    for (i, (k, rest)) in k.chunks_exact(c).zip(rest).enumerate() {
        let of_query = sums.iter().skip(i).step_by(width);
        dq.extend(of_query.zip(k).map(|(sum, k)| T::of((sum - rest * k.f64()) * scale)));
    }
    (queries, dq)
}
