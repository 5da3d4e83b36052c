//! InfoNCE in f32 against the dense form in f64, where blocks, parts of the queue and panels of queries
//! begin and end, for any temperature, and with NaN.

use candle_core::{DType, Device, Tensor};
use moco_ops::{InfoNce, InfoNceStatistics, info_nce, l2_normalize};
use moco_rng::{At, Purpose, Seed};

fn unit(index: u64, rows: usize, c: usize) -> Tensor {
    let mut stream = Seed(5).stream(Purpose::Init, At::index(index));
    let numbers: Vec<f64> = (0..rows * c).map(|_| stream.normal()).collect();
    l2_normalize(&Tensor::from_vec(numbers, (rows, c), &Device::Cpu).unwrap()).unwrap()
}

fn rows(x: &Tensor) -> Vec<Vec<f64>> {
    x.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Loss and gradient from all logits at once; `queue` holds a key a row.
fn dense(q: &Tensor, k: &Tensor, queue: &Tensor, temperature: f64) -> (f64, Vec<Vec<f64>>) {
    let (q, k, queue) = (rows(q), rows(k), rows(queue));
    let n = q.len() as f64;
    let (mut loss, mut dq) = (0.0, Vec::new());
    for (q, k) in q.iter().zip(&k) {
        let positive = dot(q, k) / temperature;
        let logits: Vec<f64> = queue.iter().map(|key| dot(q, key) / temperature).collect();
        let max = logits.iter().copied().fold(positive, f64::max);
        let own = (positive - max).exp();
        let negatives: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
        // Written so that a small loss keeps its digits.
        loss += (negatives / own).ln_1p() / n;
        let mut gradient: Vec<f64> = k.iter().map(|k| -k * negatives).collect();
        for (key, logit) in queue.iter().zip(&logits) {
            gradient.iter_mut().zip(key).for_each(|(g, key)| *g += (logit - max).exp() * key);
        }
        let scale = 1.0 / ((own + negatives) * temperature * n);
        dq.push(gradient.iter().map(|g| g * scale).collect());
    }
    (loss, dq)
}

/// N, C, K, temperature: around the borders of blocks (128), of parts (256 and more), of panels (16 to 64)
/// and of the group of queries (256).
const CASES: [(usize, usize, usize, f64); 12] = [
    (1, 1, 1, 0.2),
    (3, 5, 127, 0.07),
    (16, 16, 128, 0.2),
    (17, 16, 129, 1.0),
    (64, 24, 255, 0.2),
    (65, 24, 257, 0.2),
    (100, 32, 1000, 0.07),
    (200, 16, 3000, 0.2),
    (300, 24, 700, 0.2),
    (2, 128, 9001, 0.07),
    (5, 8, 2000, 0.01),
    (4, 32, 5000, 10.0),
];

#[test]
fn f32_is_the_dense_form() {
    for (n, c, n_negatives, temperature) in CASES {
        let single = |index, rows| unit(index, rows, c).to_dtype(DType::F32).unwrap();
        let (q, k, queue) = (single(1, n), single(2, n), single(3, n_negatives));
        let case = format!("N = {n}, C = {c}, K = {n_negatives}, τ = {temperature}");
        let (loss, dq) = dense(&q, &k, &queue, temperature);
        let InfoNce { dq: got_dq, statistics } =
            info_nce(&q, &k, &queue.t().unwrap(), temperature).unwrap();
        let result = statistics.read().unwrap();
        // Cosines in f32 are off by about 1e-7, and exponents by as much over the temperature.
        let tolerance = 1e-6_f64.max(1e-7 / temperature);
        let error = ((result.loss - loss) / loss).abs();
        assert!(error < tolerance, "{case}: loss {} for {loss}, {error:e}", result.loss);
        let (mut error, mut norm) = (0.0, 0.0);
        for (got, expected) in rows(&got_dq).iter().flatten().zip(dq.iter().flatten()) {
            error += (got - expected).powi(2);
            norm += expected.powi(2);
        }
        let (error, norm) = (error.sqrt(), norm.sqrt());
        assert!(error <= tolerance * norm, "{case}: gradient off by {error:e} of {norm:e}");
    }
}

#[test]
fn f64_is_the_dense_form() {
    for (n, c, n_negatives, temperature) in CASES {
        let (q, k, queue) = (unit(1, n, c), unit(2, n, c), unit(3, n_negatives, c));
        let case = format!("N = {n}, C = {c}, K = {n_negatives}, τ = {temperature}");
        let (loss, dq) = dense(&q, &k, &queue, temperature);
        let InfoNce { dq: got_dq, statistics } =
            info_nce(&q, &k, &queue.t().unwrap(), temperature).unwrap();
        let result = statistics.read().unwrap();
        assert!(((result.loss - loss) / loss).abs() < 1e-12, "{case}: {}, {loss}", result.loss);
        let keys = rows(&queue);
        let mean: f64 =
            rows(&q).iter().map(|q| keys.iter().map(|key| dot(q, key)).sum::<f64>()).sum();
        let mean = mean / (n * n_negatives) as f64;
        assert!((result.negative_cosine - mean).abs() < 1e-12, "{case}");
        for (got, expected) in rows(&got_dq).iter().flatten().zip(dq.iter().flatten()) {
            assert!((got - expected).abs() < 1e-12, "{case}: {got} for {expected}");
        }
    }
}

/// All features equal, and no special numbers: the cosines of positive and negatives have the same bits,
/// so that every negative ties.
#[test]
fn a_collapsed_encoder_is_never_right() {
    for dtype in [DType::F32, DType::F64] {
        for (n, n_negatives) in [(1, 300), (20, 129), (70, 64)] {
            let one = unit(7, 1, 100).to_dtype(dtype).unwrap();
            let repeat = |rows: usize| one.repeat((rows, 1)).unwrap();
            let queue = repeat(n_negatives).t().unwrap();
            let result = info_nce(&repeat(n), &repeat(n), &queue, 0.2).unwrap();
            let result = result.statistics.read().unwrap();
            assert!(result.positive_rank.iter().all(|rank| *rank as usize == n_negatives));
        }
    }
}

/// A NaN anywhere reaches the loss, and the query that meets it is not counted as right.
#[test]
fn nan_does_not_look_perfect() {
    let poisoned = |x: &Tensor, is_poisoned: bool| {
        let mut numbers: Vec<f32> =
            x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        if is_poisoned {
            numbers[0] = f32::NAN;
        }
        Tensor::from_vec(numbers, x.dims(), &Device::Cpu).unwrap()
    };
    for place in 0..3 {
        let (q, k) = (poisoned(&unit(1, 3, 8), place == 0), poisoned(&unit(2, 3, 8), place == 1));
        let queue = poisoned(&unit(3, 300, 8), place == 2).t().unwrap();
        let InfoNce { dq, statistics } = info_nce(&q, &k, &queue, 0.2).unwrap();
        let InfoNceStatistics { loss, positive_rank, .. } = statistics.read().unwrap();
        assert!(loss.is_nan(), "place {place}: {loss}");
        let expected = if place == 2 { 1 } else { 300 };
        assert!(positive_rank[0] >= expected, "place {place}: {positive_rank:?}");
        assert!(rows(&dq)[0].iter().any(|x| x.is_nan()), "place {place}");
    }
}

/// A CPU's queue is stored as its queries are.
#[test]
fn types_that_differ_are_named() {
    let x = unit(1, 3, 8).to_dtype(DType::F32).unwrap();
    let queue = x.t().unwrap();
    let of = |x: &Tensor, dtype: DType| x.to_dtype(dtype).unwrap();
    for (q, k, queue, expected) in [
        (&x, &x, &of(&queue, DType::BF16), "info_nce: `queue` is BF16"),
        (&x, &x, &of(&queue, DType::F64), "info_nce: `queue` is F64"),
        (&x, &of(&x, DType::F64), &queue, "info_nce: `k` is F64"),
        (&of(&x, DType::BF16), &x, &queue, "info_nce: `k` is F32"),
    ] {
        let message = info_nce(q, k, queue, 0.2).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
