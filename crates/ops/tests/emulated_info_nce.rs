//! InfoNCE on the emulated GPU against the CPU, where blocks of queries and keys, parts of the queue and
//! slabs of channels begin and end, with ties and with NaN; over f32 queues, and over bf16 queues against the
//! CPU over the same rounded keys.

use candle_core::{DType, Device, Tensor};
use moco_ops::{InfoNce, InfoNceStatistics, emulate, info_nce, l2_normalize};

use crate::common::{assert_close, scattered};

fn unit(salt: u64, rows: usize, c: usize) -> Tensor {
    l2_normalize(&scattered(salt, &[rows, c])).unwrap()
}

/// `[C, K]` in memory, from a key a row.
fn as_queue(keys: &Tensor) -> Tensor {
    keys.t().and_then(|keys| keys.contiguous()).unwrap()
}

/// How a GPU's queue may be stored.
const STORED: [DType; 2] = [DType::F32, DType::BF16];

/// Rounded to a type and back.
fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    x.to_dtype(dtype).and_then(|x| x.to_dtype(DType::F32)).unwrap()
}

/// The gradient, and the statistics, which are computed only when they are read.
fn emulated(
    q: &Tensor,
    k: &Tensor,
    queue: &Tensor,
    temperature: f64,
) -> (Tensor, InfoNceStatistics) {
    let (result, kernels) = emulate(|| info_nce(q, k, queue, temperature).unwrap());
    let part = format!("info_nce_part_{}", queue.dtype().as_str());
    assert_eq!(kernels, [part.as_str(), "info_nce_merge"]);
    assert!(!result.statistics.is_ready());
    (result.dq, result.statistics.read().unwrap())
}

/// The same on the CPU over the keys of the queue as they are stored; negatives are ranked against
/// positives that are stored as they are.
fn on_cpu(q: &Tensor, k: &Tensor, queue: &Tensor, temperature: f64) -> (Tensor, InfoNceStatistics) {
    let (stored, wide) = (queue.dtype(), queue.to_dtype(DType::F32).unwrap());
    let InfoNce { dq, statistics } = info_nce(q, k, &wide, temperature).unwrap();
    assert!(statistics.is_ready());
    let ranked = info_nce(q, &rounded(k, stored), &wide, temperature).unwrap();
    let positive_rank = ranked.statistics.read().unwrap().positive_rank;
    (dq, InfoNceStatistics { positive_rank, ..statistics.read().unwrap() })
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).and_then(|x| x.flatten_all()?.to_vec1()).unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// N, C, K, temperature: around the borders of blocks of queries and keys (32), of slabs (128) and of
/// parts (256), with and without keys that can be read four or eight at a time.
const CASES: [(usize, usize, usize, f64); 14] = [
    (1, 3, 1, 0.2),
    (1, 3, 31, 0.07),
    (2, 1, 32, 0.2),
    (3, 16, 33, 0.01),
    (31, 5, 64, 0.07),
    (32, 127, 65, 0.2),
    (33, 128, 256, 0.07),
    (5, 128, 260, 0.01),
    (9, 129, 257, 0.2),
    (4, 257, 700, 0.07),
    (65, 24, 511, 10.0),
    (3, 8, 1000, 0.01),
    (40, 33, 2000, 0.07),
    (2, 300, 30, 0.2),
];

/// Each case with each way to store the queue.
fn each_stored<C: Copy>(cases: &[C]) -> impl Iterator<Item = (C, DType)> {
    cases.iter().flat_map(|case| STORED.map(|stored| (*case, stored)))
}

#[test]
fn result_is_that_of_the_cpu() {
    for ((n, c, n_negatives, temperature), stored) in each_stored(&CASES) {
        let case = format!("N = {n}, C = {c}, K = {n_negatives}, τ = {temperature}, {stored:?}");
        let (q, k) = (unit(1, n, c), unit(2, n, c));
        let queue = as_queue(&unit(3, n_negatives, c)).to_dtype(stored).unwrap();
        let (expected_dq, expected) = on_cpu(&q, &k, &queue, temperature);
        let (got_dq, got) = emulated(&q, &k, &queue, temperature);
        // Cosines in f32 are off by about 1e-7, and exponents by as much over the temperature.
        let tolerance = 1e-6_f64.max(1e-7 / temperature);
        let error = (got.loss - expected.loss).abs() / expected.loss;
        assert!(error < tolerance, "{case}: loss {} for {}", got.loss, expected.loss);
        for (got, expected) in [
            (got.positive_cosine, expected.positive_cosine),
            (got.negative_cosine, expected.negative_cosine),
        ] {
            assert!((got - expected).abs() < 2e-7, "{case}: cosine {got} for {expected}");
        }
        assert_eq!(got_dq.dims(), [n, c], "{case}");
        let (got_dq, expected_dq) = (numbers(&got_dq), numbers(&expected_dq));
        let errors: Vec<f64> = got_dq.iter().zip(&expected_dq).map(|(a, b)| a - b).collect();
        // The terms of a gradient are of this size; of one channel they cancel.
        let (error, term) = (norm(&errors), 1.0 / (temperature * n as f64));
        let norm = norm(&expected_dq).max(term);
        assert!(error <= tolerance * norm, "{case}: gradient off by {error:e} of {norm:e}");
        // Two cosines of one channel are equal or opposite, up to roundings that differ.
        if c > 1 {
            assert_eq!(got.positive_rank, expected.positive_rank, "{case}");
        }
    }
}

/// Numbers are read one at a time where the queue's memory begins at no multiple of 16 bytes.
#[test]
fn bits_do_not_depend_on_where_the_queue_begins() {
    let (q, k) = (unit(1, 5, 40), unit(2, 5, 40));
    for stored in STORED {
        let queue = as_queue(&unit(3, 96, 40)).to_dtype(stored).unwrap();
        let numbers = queue.flatten_all().unwrap();
        let longer = Tensor::cat(&[&numbers.narrow(0, 0, 1).unwrap(), &numbers], 0).unwrap();
        let moved = longer.narrow(0, 1, 96 * 40).and_then(|x| x.reshape((40, 96))).unwrap();
        assert_eq!(moved.layout().start_offset(), 1);
        let [(dq, got), (expected_dq, expected)] =
            [&moved, &queue].map(|queue| emulated(&q, &k, queue, 0.07));
        assert_eq!(got, expected);
        assert_close(&format!("{stored:?}"), &dq, &expected_dq, 0.0);
    }
}

#[test]
fn a_queue_without_keys_is_refused() {
    let (q, k) = (unit(1, 3, 8), unit(2, 3, 8));
    let queue = Tensor::zeros((8, 0), DType::F32, &Device::Cpu).unwrap();
    let (result, kernels) = emulate(|| info_nce(&q, &k, &queue, 0.2));
    let message = result.unwrap_err().to_string();
    assert!(message.contains("queue") && message.contains("at least one key"), "{message}");
    assert!(kernels.is_empty());
}

/// Whatever its place in a block and a part, a negative that equals the positive ties with it.
#[test]
fn equal_keys_tie() {
    let cases = [(3, 31), (128, 300), (200, 257), (100, 64)];
    for ((c, n_negatives), stored) in each_stored(&cases) {
        let (n, most) = (35, n_negatives - 1);
        let (q, k, others) = (unit(1, n, c), unit(2, n, c), unit(3, n_negatives, c));
        let row = |x: &Tensor, i: usize| x.narrow(0, i, 1).unwrap();
        let queue_of = |keys: &Tensor| as_queue(keys).to_dtype(stored).unwrap();
        let (_, before) = emulated(&q, &k, &queue_of(&others), 0.2);
        for (query, place) in [(0, 0), (1, most), (33, most / 2), (34, 17), (31, 30)] {
            let keys = [
                others.narrow(0, 0, place).unwrap(),
                row(&k, query),
                others.narrow(0, place + 1, most - place).unwrap(),
            ];
            let with_tie = queue_of(&Tensor::cat(&keys, 0).unwrap());
            let (_, got) = emulated(&q, &k, &with_tie, 0.2);
            let dot = |key: &Tensor| {
                (row(&q, query) * rounded(key, stored))
                    .and_then(|x| x.sum_all()?.to_scalar::<f32>())
                    .unwrap()
            };
            let was_ahead = u32::from(dot(&row(&others, place)) >= dot(&row(&k, query)));
            let case =
                format!("C = {c}, K = {n_negatives}, query {query}, place {place}, {stored:?}");
            assert_eq!(
                got.positive_rank[query],
                before.positive_rank[query] - was_ahead + 1,
                "{case}"
            );
        }
    }
}

/// All features equal: every negative ties, also where rounding puts all of them on one side of the
/// positive.
#[test]
fn a_collapsed_encoder_is_never_right() {
    let mut moved = Vec::new();
    let cases = [(1, 100, 300, 7), (33, 129, 65, 7), (2, 16, 40, 10), (2, 16, 40, 11)];
    for ((n, c, n_negatives, salt), stored) in each_stored(&cases) {
        let repeat = |rows: usize| unit(salt, 1, c).repeat((rows, 1)).unwrap();
        let queue = as_queue(&repeat(n_negatives)).to_dtype(stored).unwrap();
        let (_, got) = emulated(&repeat(n), &repeat(n), &queue, 0.2);
        assert!(
            got.positive_rank.iter().all(|rank| *rank as usize == n_negatives),
            "{:?}",
            got.positive_rank
        );
        let (key, kept) = (numbers(&repeat(1)), numbers(&rounded(&repeat(1), stored)));
        let excess: f64 = key.iter().zip(&kept).map(|(key, kept)| key * (kept - key)).sum();
        let expected = (n_negatives as f64 * (excess / 0.2).exp()).ln_1p();
        assert!((got.loss - expected).abs() < 1e-5, "{} for {expected}", got.loss);
        moved.push(excess);
    }
    assert!(moved.iter().any(|excess| *excess < -1e-4), "{moved:?}");
}

/// The cosine that exponents are relative to is raised, in any part of the queue, where a negative is far
/// ahead of the positive.
#[test]
fn a_positive_far_behind_costs_no_digits() {
    for ((place, n_negatives), stored) in each_stored(&[(0, 20), (300, 301), (40, 600)]) {
        let q = unit(1, 3, 16);
        let mut keys: Vec<Tensor> = (0..n_negatives).map(|i| unit(10 + i, 1, 16)).collect();
        keys[place] = q.narrow(0, 1, 1).unwrap();
        let (k, queue) = (q.neg().unwrap(), as_queue(&Tensor::cat(&keys, 0).unwrap()));
        let queue = queue.to_dtype(stored).unwrap();
        let (expected_dq, expected) = on_cpu(&q, &k, &queue, 0.01);
        let (dq, got) = emulated(&q, &k, &queue, 0.01);
        assert!((got.loss / expected.loss - 1.0).abs() < 1e-6, "{} {}", got.loss, expected.loss);
        assert_eq!(got.positive_rank, expected.positive_rank);
        // Two at a distance of 2/(τN) = 67, whose weights hang on cosines that are off by 1e-7.
        assert_close(&format!("place {place}"), &dq, &expected_dq, 2e-5);
    }
}

/// A NaN anywhere reaches the loss and its query's gradient, and the query is not counted as right.
#[test]
fn nan_does_not_look_perfect() {
    let poisoned = |x: Tensor, is_poisoned: bool| {
        let mut numbers: Vec<f32> = x.flatten_all().and_then(|x| x.to_vec1()).unwrap();
        if is_poisoned {
            numbers[0] = f32::NAN;
        }
        Tensor::from_vec(numbers, x.dims(), &Device::Cpu).unwrap()
    };
    for (place, stored) in each_stored(&[0, 1, 2]) {
        let (q, k) = (poisoned(unit(1, 3, 8), place == 0), poisoned(unit(2, 3, 8), place == 1));
        let queue = as_queue(&poisoned(unit(3, 300, 8), place == 2)).to_dtype(stored).unwrap();
        let (dq, got) = emulated(&q, &k, &queue, 0.2);
        assert!(got.loss.is_nan(), "place {place}: {}", got.loss);
        assert!(
            got.positive_rank[0] >= if place == 2 { 1 } else { 300 },
            "place {place}: {:?}",
            got.positive_rank
        );
        assert!(numbers(&dq)[..8].iter().any(|x| x.is_nan()), "place {place}");
        assert_eq!(got.positive_rank, on_cpu(&q, &k, &queue, 0.2).1.positive_rank, "place {place}");
    }
}

#[test]
fn only_queues_may_be_bf16_and_nothing_f64() {
    let x = unit(1, 2, 8);
    let queue = as_queue(&x);
    let [short, wide] = [DType::BF16, DType::F64];
    let of = |x: &Tensor, dtype: DType| x.to_dtype(dtype).unwrap();
    for (q, k, queue, expected) in [
        (of(&x, short), x.clone(), queue.clone(), "`q` is BF16"),
        (x.clone(), of(&x, short), queue.clone(), "`k` is BF16"),
        (x.clone(), x.clone(), of(&queue, wide), "`queue` is F64"),
    ] {
        let (result, kernels) = emulate(|| info_nce(&q, &k, &queue, 0.2));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(kernels.is_empty());
    }
}
