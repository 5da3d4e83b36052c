//! The end-to-end mechanism (MoCo v1 §3.2 and Figure 2a): the negatives of a query are the other keys of its
//! batch, and the gradient reaches both encoders. There is no queue and no momentum encoder.

use candle_core::{DType, Device, Tensor};
use moco_encoders::{Encoder, HeadKind};
use moco_ops::{InfoNceStatistics, PendingStatistics};
use moco_optim::{Optimizer, OptimizerConfig, learning_rate};
use moco_params::Gradients;
use moco_rng::Seed;

use crate::batch::{Batch, Direction};
use crate::config::MocoConfig;
use crate::encoder_with_head::{EncoderWithHead, add_to};
use crate::error::{During, MocoError};
use crate::inspect::{Leak, top1_under};
use crate::mechanism::Mechanism;
use crate::queue::Queue;
use crate::shuffle::Shuffle;
use crate::state::{MocoState, StateReader, insert_encoder, insert_optimizer};
use crate::statistics::PendingStep;

/// Two encoders with weights of their own, equal at the start, trained by one loss. Of the configuration it
/// uses the temperature, the width of the features, the symmetric loss and Shuffling BN. On the CPU only.
#[derive(Debug)]
pub struct EndToEnd {
    config: MocoConfig,
    seed: Seed,
    encoder_q: EncoderWithHead,
    encoder_k: EncoderWithHead,
    optimizer_q: Box<dyn Optimizer>,
    optimizer_k: Box<dyn Optimizer>,
    global_step: u64,
}

impl EndToEnd {
    /// f_q with a new head, and f_k as its copy.
    ///
    /// # Errors
    /// If the encoder is on a GPU, or memory runs out.
    pub fn new(
        encoder: Box<dyn Encoder>,
        head: HeadKind,
        config: MocoConfig,
        optimizer: impl Into<OptimizerConfig>,
        seed: Seed,
    ) -> Result<Self, MocoError> {
        let encoder_q = EncoderWithHead::new(encoder, head, config.dim, seed)?;
        if !encoder_q.device().is_cpu() {
            return Err(MocoError::NeedsCpu { what: "the end-to-end mechanism" });
        }
        let encoder_k = encoder_q.fork()?;
        let optimizer = optimizer.into();
        let optimizer_q = optimizer.build(&encoder_q.stores())?;
        let optimizer_k = optimizer.build(&encoder_k.stores())?;
        Ok(Self { config, seed, encoder_q, encoder_k, optimizer_q, optimizer_k, global_step: 0 })
    }

    /// What the tensors of the two optimizers are called in the state.
    fn optimizer_prefixes(&self) -> [String; 2] {
        let name = self.optimizer_q.name();
        [name.to_owned(), format!("{name}_k")]
    }
}

impl Mechanism for EndToEnd {
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<PendingStep, MocoError> {
        let (n, n_directions) = (batch.im_q.dims()[0], self.config.n_directions());
        let shuffles = Shuffle::of_directions(self.seed, self.global_step, n_directions, n)?;
        let (mut gradients_q, mut gradients_k) = (Gradients::new(), Gradients::new());
        let mut directions = Vec::new();
        for Direction { im_q, im_k, shuffle } in batch.directions(&shuffles) {
            let shuffle = self.config.shuffle_bn.then_some(shuffle);
            let shuffled = |x: &Tensor| match shuffle {
                Some(shuffle) => shuffle.apply(x),
                None => Ok(x.clone()),
            };
            let (q, saved_q) = self.encoder_q.forward(im_q)?; // [N, C]
            let (k, saved_k) = self.encoder_k.forward(&shuffled(im_k)?)?; // [N, C]
            let k = match shuffle {
                Some(shuffle) => shuffle.undo(&k)?,
                None => k,
            };

            let InBatch { dq, dk, statistics } =
                in_batch_info_nce(&q, &k, self.config.temperature)?;
            directions.push(PendingStatistics::ready(statistics));

            // The gradient of the inverse permutation is the permutation.
            self.encoder_q.backward(saved_q, &dq, &mut add_to(&mut gradients_q))?;
            self.encoder_k.backward(saved_k, &shuffled(&dk)?, &mut add_to(&mut gradients_k))?;
        }
        let statistics = PendingStep { global_step: self.global_step, directions };
        statistics.expect_finite_loss(batch)?;
        let lr = learning_rate(lr, self.encoder_q.dtype(), &Device::Cpu)?;
        self.optimizer_q.step(&self.encoder_q.stores(), &gradients_q, &lr)?;
        self.optimizer_k.step(&self.encoder_k.stores(), &gradients_k, &lr)?;
        self.global_step += 1;
        Ok(statistics)
    }

    fn state(&self) -> Result<MocoState, MocoError> {
        let mut state = MocoState::new();
        insert_encoder(&mut state, "encoder_q", &self.encoder_q);
        insert_encoder(&mut state, "encoder_k", &self.encoder_k);
        let [of_q, of_k] = self.optimizer_prefixes();
        insert_optimizer(&mut state, &of_q, self.optimizer_q.as_ref());
        insert_optimizer(&mut state, &of_k, self.optimizer_k.as_ref());
        Ok(state)
    }

    fn load_state(&mut self, state: &MocoState, global_step: u64) -> Result<(), MocoError> {
        let reader = StateReader::new(state, &self.state()?)?;
        reader.load_encoder("encoder_q", &mut self.encoder_q)?;
        reader.load_encoder("encoder_k", &mut self.encoder_k)?;
        let [of_q, of_k] = self.optimizer_prefixes();
        self.optimizer_q.load(&|name| state.get(&format!("{of_q}.{name}")))?;
        self.optimizer_k.load(&|name| state.get(&format!("{of_k}.{name}")))?;
        self.global_step = global_step;
        Ok(())
    }

    fn global_step(&self) -> u64 {
        self.global_step
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn encoder_q_mut(&mut self) -> &mut EncoderWithHead {
        &mut self.encoder_q
    }

    fn encoders(&self) -> [&EncoderWithHead; 2] {
        [&self.encoder_q, &self.encoder_k]
    }

    fn queue(&self) -> Option<&Queue> {
        None
    }

    fn leak(&self, seed: Seed, batch: &Batch) -> Result<Leak, MocoError> {
        let n = batch.im_q.dims()[0];
        let shuffle = Shuffle::of_step(self.seed, self.global_step, 0, n)?;
        let as_trained = self.config.shuffle_bn.then_some(&shuffle);
        let encoders = [&self.encoder_q, &self.encoder_k];
        top1_under(encoders, seed, self.global_step, batch, as_trained, &|q, k| {
            Ok(in_batch_info_nce(q, k, self.config.temperature)?.statistics)
        })
    }
}

/// The loss over a batch, and its gradients.
struct InBatch {
    /// `[N, C]`.
    dq: Tensor,
    /// `[N, C]`.
    dk: Tensor,
    statistics: InfoNceStatistics,
}

/// Eq. (1) with the other keys of the batch as negatives, averaged over the queries:
/// `−1/N · Σ_i log( exp(q_i·k_i/τ) / Σ_j exp(q_i·k_j/τ) )`, for L2-normalized `q` and `k` `[N, C]`. All sums
/// are in f64 and in one order.
fn in_batch_info_nce(q: &Tensor, k: &Tensor, temperature: f64) -> Result<InBatch, MocoError> {
    let numbers = |x: &Tensor| {
        x.to_dtype(DType::F64).and_then(|x| x.to_vec2::<f64>()).during("the loss over the batch")
    };
    let (rows_q, rows_k) = (numbers(q)?, numbers(k)?);
    let (n, c) = (rows_q.len(), q.dims()[1]);
    let mut dq = vec![0.0; n * c];
    let mut dk = vec![0.0; n * c];
    let (mut loss, mut positive, mut negative) = (0.0, 0.0, 0.0);
    let mut positive_rank = Vec::with_capacity(n);
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
    let size = n as f64;
    for (i, q_i) in rows_q.iter().enumerate() {
        let cosine = |k_j: &Vec<f64>| q_i.iter().zip(k_j).map(|(a, b)| a * b).sum::<f64>();
        let cosines: Vec<f64> = rows_k.iter().map(cosine).collect();
        let largest = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exp: Vec<f64> = cosines.iter().map(|x| ((x - largest) / temperature).exp()).collect();
        let sum: f64 = exp.iter().sum();
        loss -= (cosines[i] - largest) / temperature - sum.ln();
        positive += cosines[i];
        negative += (cosines.iter().sum::<f64>() - cosines[i]) / (size - 1.0);
        // As for the queue, a tie counts against the positive, and so does NaN.
        let below = cosines.iter().filter(|x| **x < cosines[i]).count();
        positive_rank.push(u32::try_from(n - 1 - below).unwrap_or(u32::MAX));
        for (j, k_j) in rows_k.iter().enumerate() {
            let of_softmax = exp[j] / sum - if i == j { 1.0 } else { 0.0 };
            let of_logit = of_softmax / (temperature * size);
            for d in 0..c {
                dq[i * c + d] += of_logit * k_j[d];
                dk[j * c + d] += of_logit * q_i[d];
            }
        }
    }
    let tensor = |numbers: Vec<f64>| {
        let x = Tensor::from_vec(numbers, (n, c), &Device::Cpu);
        x.and_then(|x| x.to_dtype(q.dtype())).during("the loss over the batch")
    };
    let statistics = InfoNceStatistics {
        loss: loss / size,
        positive_rank,
        positive_cosine: positive / size,
        negative_cosine: negative / size,
    };
    Ok(InBatch { dq: tensor(dq)?, dk: tensor(dk)?, statistics })
}

#[cfg(test)]
mod tests {
    use moco_ops::l2_normalize;
    use moco_rng::{At, Purpose};

    use super::*;

    const N: usize = 5;
    const C: usize = 4;
    const TEMPERATURE: f64 = 0.2;

    fn numbers(index: u64) -> Vec<f64> {
        let mut stream = Seed(3).stream(Purpose::Augment, At::index(index));
        (0..N * C).map(|_| stream.normal()).collect()
    }

    fn matrix(numbers: &[f64]) -> Tensor {
        Tensor::from_vec(numbers.to_vec(), (N, C), &Device::Cpu).unwrap()
    }

    /// Eq. (1) written out.
    fn loss(q: &[f64], k: &[f64]) -> f64 {
        let logit = |i: usize, j: usize| {
            (0..C).map(|d| q[i * C + d] * k[j * C + d]).sum::<f64>() / TEMPERATURE
        };
        let of_query = |i| (0..N).map(|j| logit(i, j).exp()).sum::<f64>().ln() - logit(i, i);
        (0..N).map(of_query).sum::<f64>() / N as f64
    }

    #[test]
    fn the_loss_is_eq_1_and_its_gradients_are_central_differences() {
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let unit = |index| flat(&l2_normalize(&matrix(&numbers(index))).unwrap());
        let (q, k) = (unit(0), unit(1));
        let InBatch { dq, dk, statistics } =
            in_batch_info_nce(&matrix(&q), &matrix(&k), TEMPERATURE).unwrap();
        assert!((statistics.loss - loss(&q, &k)).abs() < 1e-14);
        let (dq, dk, h) = (flat(&dq), flat(&dk), 1e-5);
        for i in 0..N * C {
            let moved = |x: &[f64], by: f64| {
                let mut x = x.to_vec();
                x[i] += by;
                x
            };
            let of_q = (loss(&moved(&q, h), &k) - loss(&moved(&q, -h), &k)) / (2.0 * h);
            let of_k = (loss(&q, &moved(&k, h)) - loss(&q, &moved(&k, -h))) / (2.0 * h);
            assert!((dq[i] - of_q).abs() < 1e-9, "dq[{i}]: {} {of_q}", dq[i]);
            assert!((dk[i] - of_k).abs() < 1e-9, "dk[{i}]: {} {of_k}", dk[i]);
        }
    }

    #[test]
    fn statistics_count_ranks_and_a_tie_counts_against_the_positive() {
        let unit = |ones: [usize; N]| {
            let mut x = vec![0.0; N * C];
            ones.iter().enumerate().for_each(|(row, column)| x[row * C + column] = 1.0);
            matrix(&x)
        };
        // The third query finds its own key and an equal one, the fifth another one before its own.
        let (q, k) = (unit([0, 1, 2, 3, 0]), unit([0, 1, 2, 2, 3]));
        let statistics = in_batch_info_nce(&q, &k, TEMPERATURE).unwrap().statistics;
        assert_eq!(statistics.positive_rank, [0, 0, 1, 4, 4]);
        assert!((statistics.positive_cosine - 0.6).abs() < 1e-15);
        // Of 20 pairs that do not belong together three agree: (3rd, 4th), (4th, 5th), (5th, 1st).
        assert!((statistics.negative_cosine - 3.0 / 20.0).abs() < 1e-15);
    }
}
