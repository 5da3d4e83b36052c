//! Pooling, sums and images on the emulated GPU against the same on the CPU.

use candle_core::{DType, Device, Tensor};
use moco_ops::{
    OpError, add, emulate, global_average_pool, global_average_pool_backward, max_pool,
    max_pool_backward, normalize_images,
};

use crate::common::{assert_close, scattered};

/// How far results may differ where something was computed: bf16 has 8 bits.
const TYPES: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::BF16, 4e-3)];

/// Channels last in memory, with equal numbers among them.
fn activations(salt: u64, [n, c, h, w]: [usize; 4]) -> Tensor {
    let fine = scattered(salt, &[n, h, w, c]).permute((0, 3, 1, 2)).unwrap();
    ((fine * 16.0).unwrap().round().unwrap() / 16.0).unwrap()
}

fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

const SHAPES: [[usize; 4]; 6] =
    [[1, 1, 1, 1], [2, 3, 7, 6], [1, 8, 2, 3], [3, 33, 5, 9], [2, 16, 8, 8], [1, 40, 3, 1]];

#[test]
fn pooling_is_that_of_the_cpu() {
    for dims in SHAPES {
        for (dtype, tolerance) in TYPES {
            let x = activations(1, dims).to_dtype(dtype).unwrap();
            let pooled = max_pool(&wide(&x)).unwrap();
            let dy = activations(2, pooled.y.dims().try_into().unwrap()).to_dtype(dtype).unwrap();
            let of_mean = scattered(3, &dims[..2]);
            let expected = [
                pooled.y.clone(),
                max_pool_backward(&pooled, &dims, &wide(&dy)).unwrap(),
                global_average_pool(&wide(&x)).unwrap(),
                global_average_pool_backward(&dims, &of_mean, DType::F32).unwrap(),
            ];
            let (got, kernels) = emulate(|| {
                let pooled = max_pool(&x).unwrap();
                [
                    pooled.y.clone(),
                    max_pool_backward(&pooled, &dims, &dy).unwrap(),
                    global_average_pool(&x).unwrap(),
                    global_average_pool_backward(&dims, &of_mean, dtype).unwrap(),
                ]
            });
            let what = format!("{dtype:?} {dims:?}");
            let tolerances = [0.0, tolerance, 1e-6, tolerance];
            let dtypes = [dtype, dtype, DType::F32, dtype];
            for i in 0..4 {
                assert_close(&format!("{what} {i}"), &got[i], &expected[i], tolerances[i]);
                assert_eq!(got[i].dtype(), dtypes[i]);
            }
            let names = [
                "max_pool",
                "max_pool_backward",
                "global_average_pool",
                "global_average_pool_backward",
            ];
            assert_eq!(kernels, names.map(|name| format!("{name}_{}", dtype.as_str())));
        }
    }
}

/// The windows of 2×2 pixels, for one channel and for whole accesses: where the maximum's gradient goes.
#[test]
fn nan_and_infinity_win_as_on_the_cpu() {
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    for window in [
        [1.0, NAN, 5.0, 0.0],
        [NAN, 1.0, NAN, 2.0],
        [-INF; 4],
        [-INF, -INF, -3.0, -INF],
        [0.0, INF, INF, NAN],
        [2.0, 2.0, 1.0, 2.0],
    ] {
        for c in [1, 16] {
            let numbers: Vec<f32> =
                window.iter().flat_map(|number| std::iter::repeat_n(*number, c)).collect();
            let x = Tensor::from_vec(numbers, (1, 2, 2, c), &Device::Cpu).unwrap();
            let x = x.permute((0, 3, 1, 2)).unwrap();
            let run = || {
                let pooled = max_pool(&x).unwrap();
                let dy = Tensor::ones((1, c, 1, 1), DType::F32, &Device::Cpu).unwrap();
                let dx = max_pool_backward(&pooled, x.dims(), &dy).unwrap();
                let bits = |x: &Tensor| -> Vec<u32> {
                    let numbers = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    numbers.iter().map(|v| if v.is_nan() { 1 } else { v.to_bits() }).collect()
                };
                [bits(&pooled.y), bits(&dx)]
            };
            assert_eq!(emulate(run).0, run(), "{window:?}");
        }
    }
}

#[test]
fn sums_are_those_of_the_cpu() {
    for dims in SHAPES.into_iter().chain([[0, 3, 2, 2], [1, 31, 11, 13]]) {
        for (dtype, tolerance) in TYPES {
            let [a, b] = [1, 2].map(|salt| activations(salt, dims).to_dtype(dtype).unwrap());
            let expected = add(&wide(&a), &wide(&b)).unwrap();
            let (got, _) = emulate(|| add(&a, &b).unwrap());
            assert_close(&format!("{dtype:?} {dims:?}"), &got, &expected, tolerance);
            assert_eq!(got.dtype(), dtype);
        }
    }
}

/// Every value of every channel, bit for bit in f32.
#[test]
fn images_are_those_of_the_cpu() {
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    for [n, h, w] in [[1, 1, 1], [1, 1, 3], [2, 5, 7], [1, 16, 16], [3, 16, 48], [0, 2, 2]] {
        let samples: Vec<u8> = (0..3 * n * h * w).map(|i| (i / 3 % 256) as u8).collect();
        let pixels = Tensor::from_vec(samples, (n, h, w, 3), &Device::Cpu).unwrap();
        let expected = normalize_images(&pixels, mean, std, DType::F32).unwrap();
        for (dtype, tolerance) in [(DType::F32, 0.0), TYPES[1]] {
            let (got, _) = emulate(|| normalize_images(&pixels, mean, std, dtype).unwrap());
            assert_eq!((got.dims(), got.dtype()), (&[n, 3, h, w][..], dtype));
            assert_close(&format!("{dtype:?} {n} {h} {w}"), &got, &expected, tolerance);
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let x = activations(1, [1, 2, 3, 3]);
    let narrow = x.to_dtype(DType::BF16).unwrap();
    let pixels = Tensor::zeros((1, 2, 2, 3), DType::U8, &Device::Cpu).unwrap();
    let (messages, _) = emulate(|| -> [OpError; 4] {
        let dy = scattered(1, &[1, 2]);
        [
            add(&x, &narrow).unwrap_err(),
            global_average_pool_backward(&[1, 2, 3, 3], &dy, DType::F64).unwrap_err(),
            normalize_images(&pixels, [0.0; 3], [1.0; 3], DType::F64).unwrap_err(),
            max_pool(&x.to_dtype(DType::F64).unwrap()).unwrap_err(),
        ]
    });
    for (message, expected) in messages.iter().zip([
        "add: `b` is BF16",
        "global_average_pool: `dtype` is F64",
        "normalize_images: `dtype` is F64",
        "max_pool: `x` is F64",
    ]) {
        assert!(message.to_string().contains(expected), "{message}");
    }
}
