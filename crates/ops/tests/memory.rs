//! How much memory `info_nce` takes, counted by the allocator of only this test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use moco_ops::{InfoNce, info_nce, l2_normalize};
use moco_rng::{At, Purpose, Seed};

/// Counts the bytes that are allocated, and the most that ever were.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rows of unit length.
fn unit(index: u64, rows: usize, c: usize) -> Tensor {
    let mut stream = Seed(3).stream(Purpose::Init, At::index(index));
    let numbers: Vec<f32> = (0..rows * c).map(|_| stream.normal() as f32).collect();
    l2_normalize(&Tensor::from_vec(numbers, (rows, c), &Device::Cpu).unwrap()).unwrap()
}

/// Peak of the bytes allocated during a call, less those before it. Only one test, since the tests of a
/// file run side by side.
#[test]
fn info_nce_never_holds_the_logits() {
    const MIB: usize = 1 << 20;
    // Just the logits would take 64 MiB, 32 MiB (and its transposed queue 32 MiB more) and 8 MiB.
    for (n, c, n_negatives, is_strided, most) in [
        (256, 128, 65_536, false, 16 * MIB),
        (128, 128, 65_536, true, 16 * MIB),
        (2, 8, 1 << 20, false, 2 * MIB),
    ] {
        let (q, k) = (unit(0, n, c), unit(1, n, c));
        let queue = unit(2, n_negatives, c).t().unwrap();
        let queue = if is_strided { queue } else { queue.contiguous().unwrap() };
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let InfoNce { dq, statistics } = info_nce(&q, &k, &queue, 0.2).unwrap();
        let extra = PEAK.load(Ordering::Relaxed) - before;
        assert!(extra < most, "N = {n}, K = {n_negatives}: {extra} bytes");
        // The smallest that holds the result shows that something was counted.
        assert!(extra >= n * c * 4, "N = {n}, K = {n_negatives}: {extra} bytes");
        let result = statistics.read().unwrap();
        // Random negatives: each logit is normal with variance 1/(τ²·C), which gives the mean of e^logit.
        let log_mean = 0.5 / (0.04 * c as f64);
        let expected = (n_negatives as f64).ln() + log_mean - result.positive_cosine / 0.2;
        let tolerance = if c == 128 { 0.02 } else { 1.0 };
        assert!((result.loss - expected).abs() < tolerance, "{} and {expected}", result.loss);
        assert_eq!(dq.dtype(), DType::F32);
    }
}
