//! InfoNCE over a queue in closed form, block by block: the N×K logits never exist as a whole.

use candle_core::Tensor;

use crate::dense::{Dense, by_dtype, dims2, expect_shape, lend, tensor};
use crate::error::{InOp, OpError};
use crate::simd::Float;

const OP: &str = "info_nce";
/// Negatives whose logits exist at a time.
const BLOCK: usize = 4096;

/// Loss, gradient and statistics of a batch.
#[derive(Debug)]
pub struct InfoNce {
    /// Mean cross entropy of the positive among the 1 + K logits.
    pub loss: f64,
    /// Gradient of the loss to the queries, `[N, C]`.
    pub dq: Tensor,
    /// For each query the number of negatives whose logit is at least the positive's. 0 = top-1
    /// correct, below 5 = top-5 correct; a tie counts against the positive, so that a collapsed encoder
    /// does not look perfect.
    pub ahead: Vec<u32>,
    /// Mean cosine of query and positive.
    pub positive_cosine: f64,
    /// Mean cosine of query and negatives.
    pub negative_cosine: f64,
}

/// `−log( exp(q·k⁺/τ) / (exp(q·k⁺/τ) + Σ_queue exp(q·k⁻/τ)) )`, averaged over the batch, and its
/// gradient to `q`; keys and queue get none (MoCo v1 §3.1 Eq. (1); official `builder.py:154-168`).
/// `q`, `k`: L2-normalized `[N, C]`; `queue`: `[C, K]` with unit columns.
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
    by_dtype!(OP, q, closed_form(q, k, queue, temperature))
}

/// What is known of a query's softmax so far.
struct Running {
    positive: f64,
    max: f64,
    sum: f64,
    ahead: u32,
    logits: f64,
}

fn closed_form<T: Float>(
    q: &Tensor,
    k: &Tensor,
    queue: &Tensor,
    temperature: f64,
) -> Result<InfoNce, OpError> {
    let [n, c] = dims2(OP, "q", q)?;
    let [_, n_negatives] = dims2(OP, "queue", queue)?;
    let (q_rows, k_rows) = (Dense::rows(OP, q)?, Dense::rows(OP, k)?);
    let mut rows: Vec<Running> = lend!(OP, T, [q_rows, k_rows] => {
        let pairs = q_rows.chunks_exact(c).zip(k_rows.chunks_exact(c));
        pairs.map(|(q, k)| {
            let cosine = q.iter().zip(k).map(|(q, k)| q.f64() * k.f64()).sum::<f64>();
            let positive = cosine / temperature;
            Running { positive, max: positive, sum: 1.0, ahead: 0, logits: 0.0 }
        }).collect()
    });
    let blocks =
        || (0..n_negatives).step_by(BLOCK).map(|start| (start, BLOCK.min(n_negatives - start)));
    let block_of = |start, len| queue.narrow(1, start, len).in_op(OP);
    for (start, len) in blocks() {
        let logits = q.matmul(&block_of(start, len)?).in_op(OP)?;
        let logits = Dense::rows(OP, &logits)?;
        lend!(OP, T, [logits] => for (row, logits) in rows.iter_mut().zip(logits.chunks_exact(len)) {
            row.absorb(logits, temperature);
        });
    }
    // Second pass: dL/dq = (Σ_j p_j·k_j − k⁺)/(τ·N) with p the softmax over positive and negatives.
    let scale = 1.0 / (temperature * count(n));
    let mut dq = vec![0.0_f64; n * c];
    for (start, len) in blocks() {
        let block = block_of(start, len)?;
        let logits = Dense::rows(OP, &q.matmul(&block).in_op(OP)?)?;
        let weights: Vec<T> = lend!(OP, T, [logits] => {
            let of_row = |(row, logits): (&Running, &[T])| -> Vec<T> {
                let normalizer = row.max + row.sum.ln();
                let weight = |l: &T| T::of((l.f64() / temperature - normalizer).exp());
                logits.iter().map(weight).collect()
            };
            rows.iter().zip(logits.chunks_exact(len)).flat_map(of_row).collect()
        });
        let weights = tensor(OP, weights, (n, len))?;
        let sums = Dense::rows(OP, &block.t().and_then(|b| weights.matmul(&b)).in_op(OP)?)?;
        lend!(OP, T, [sums] => for (dq, sum) in dq.iter_mut().zip(sums) {
            *dq += sum.f64() * scale;
        });
    }
    lend!(OP, T, [k_rows] => for (i, (dq, k)) in dq.iter_mut().zip(k_rows).enumerate() {
        let row = &rows[i / c];
        let p_positive = (row.positive - row.max).exp() / row.sum;
        *dq += (p_positive - 1.0) * k.f64() * scale;
    });
    let mean = |f: &dyn Fn(&Running) -> f64| rows.iter().map(f).sum::<f64>() / count(n);
    Ok(InfoNce {
        loss: mean(&|row| row.max + row.sum.ln() - row.positive),
        dq: tensor(OP, dq.into_iter().map(T::of).collect(), (n, c))?,
        ahead: rows.iter().map(|row| row.ahead).collect(),
        positive_cosine: mean(&|row| row.positive * temperature),
        negative_cosine: mean(&|row| row.logits * temperature / count(n_negatives)),
    })
}

impl Running {
    fn absorb<T: Float>(&mut self, cosines: &[T], temperature: f64) {
        let largest = cosines.iter().fold(f64::NEG_INFINITY, |max, l| max.max(l.f64()));
        let max = self.max.max(largest / temperature);
        self.sum *= (self.max - max).exp();
        self.max = max;
        for cosine in cosines {
            let logit = cosine.f64() / temperature;
            self.sum += (logit - max).exp();
            self.logits += logit;
            self.ahead += u32::from(logit >= self.positive);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}
