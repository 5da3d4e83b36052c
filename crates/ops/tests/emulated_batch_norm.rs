//! Batch norm on the emulated GPU against the same on the CPU, on sizes that fill no block.

use candle_core::{DType, Device, Tensor};
use moco_ops::{
    After, BatchNorm, BatchNormGradients, BatchNormSaved, OpError, Running, batch_norm_backward,
    batch_norm_eval, batch_norm_eval_backward, batch_norm_train, blend_running_, emulate,
};

use crate::common::{assert_close, scattered};

/// How far results may differ: sums are taken in another order, and bf16 has 8 bits.
const TYPES: [(DType, f64); 2] = [(DType::F32, 4e-6), (DType::BF16, 8e-3)];
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;

/// As [`After`], with the tensor to be added still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    Nothing,
    Relu,
    AddRelu,
}

impl Followed {
    fn after(self, added: &Tensor) -> After<'_> {
        match self {
            Self::Nothing => After::Nothing,
            Self::Relu => After::Relu,
            Self::AddRelu => After::AddRelu(added),
        }
    }

    fn suffix(self) -> &'static str {
        ["", "_relu", "_add_relu"][self as usize]
    }
}

/// Channels last in memory, as activations are.
fn activations(salt: u64, [n, c, h, w]: [usize; 4]) -> Tensor {
    scattered(salt, &[n, h, w, c]).permute((0, 3, 1, 2)).unwrap()
}

fn zeros(c: usize) -> Tensor {
    Tensor::zeros(c, DType::F32, &Device::Cpu).unwrap()
}

struct Results {
    y: Tensor,
    gradients: BatchNormGradients,
    running: [Tensor; 2],
}

/// Blends into running statistics that saw 40 batches; how many those are then.
fn blend(saved: &BatchNormSaved, [mean, var]: &[Tensor; 2], groups: usize, momentum: f64) -> i64 {
    let num_batches_tracked = &Tensor::new(40_i64, &Device::Cpu).unwrap();
    let running = Running { mean, var, num_batches_tracked };
    blend_running_(saved, running, groups, momentum).unwrap();
    num_batches_tracked.to_scalar().unwrap()
}

/// Forward, backward and the running statistics; the gradient is that of `y_of_cpu`, if given.
fn train(
    [x, added, dy]: [&Tensor; 3],
    [gamma, beta]: [&Tensor; 2],
    (groups, followed): (usize, Followed),
    y_of_cpu: Option<&Tensor>,
) -> Results {
    let bn = BatchNorm { gamma, beta, eps: EPS, groups };
    let after = followed.after(added);
    let (y, saved) = batch_norm_train(x, bn, after).unwrap();
    let gradients = batch_norm_backward(x, y_of_cpu.unwrap_or(&y), dy, bn, &saved, after).unwrap();
    let c = x.dims()[1];
    let running = [zeros(c), zeros(c)];
    assert_eq!(blend(&saved, &running, groups.div_ceil(2), MOMENTUM), 41);
    Results { y, gradients, running }
}

fn check(dims: [usize; 4], groups: usize, followed: Followed) {
    let c = dims[1];
    let numbers = [1, 2, 3].map(|salt| activations(salt, dims));
    let (gamma, beta) = (scattered(4, &[c]), scattered(5, &[c]));
    for (dtype, tolerance) in TYPES {
        let rounded = numbers.each_ref().map(|x| x.to_dtype(dtype).unwrap());
        let exact = rounded.each_ref().map(|x| x.to_dtype(DType::F32).unwrap());
        let how = (groups, followed);
        let expected = train(exact.each_ref(), [&gamma, &beta], how, None);
        let y = expected.y.to_dtype(dtype).unwrap();
        let (got, kernels) = emulate(|| train(rounded.each_ref(), [&gamma, &beta], how, Some(&y)));
        let what = format!("{dtype:?} {dims:?} {groups} {followed:?}");
        assert_eq!(got.y.dtype(), dtype);
        let [a, b] = [&got, &expected].map(|results| &results.gradients);
        assert_eq!(a.added.is_some(), b.added.is_some(), "{what}");
        // As many numbers are added up as a channel has values.
        let values = f64::from(u32::try_from(dims[0] * dims[2] * dims[3]).unwrap());
        let of_sums = 1e-6 * values.sqrt().max(4.0);
        for (name, got, expected, tolerance) in [
            ("y", &got.y, &expected.y, tolerance),
            // With two values and little variance, almost all of it cancels.
            ("dx", &a.x, &b.x, 8.0 * tolerance),
            ("gamma", &a.gamma, &b.gamma, of_sums),
            ("beta", &a.beta, &b.beta, of_sums),
            ("mean", &got.running[0], &expected.running[0], 1e-7),
            ("variance", &got.running[1], &expected.running[1], 1e-6),
        ] {
            assert_close(&format!("{what} {name}"), got, expected, tolerance);
        }
        if let (Some(got), Some(expected)) = (&a.added, &b.added) {
            assert_close(&format!("{what} added"), got, expected, 0.0);
        }
        let (suffix, dtype) = (followed.suffix(), dtype.as_str());
        let masked = if followed == Followed::Relu { "_relu" } else { "" };
        let names = [
            format!("bn_moments_{dtype}"),
            "bn_statistics".into(),
            format!("bn_normalize{suffix}_{dtype}"),
            format!("bn_gradient_sums{suffix}_{dtype}"),
            "bn_gradients".into(),
            format!("bn_input_gradient{masked}_{dtype}"),
            "bn_blend".into(),
        ];
        assert_eq!(kernels, names);
    }
}

#[test]
fn training_is_that_of_the_cpu() {
    for (dims, groups) in [
        // Two values; a chunk that ends within a lane's rows; several chunks, tiles and groups.
        ([2, 1, 1, 1], 1),
        ([2, 31, 1, 1], 1),
        ([4, 33, 3, 5], 2),
        ([6, 16, 7, 5], 3),
        ([2, 8, 41, 53], 1),
        ([4, 3, 33, 31], 2),
        ([3, 264, 5, 5], 1),
        ([8, 64, 9, 8], 1),
    ] {
        for followed in [Followed::Nothing, Followed::Relu, Followed::AddRelu] {
            check(dims, groups, followed);
        }
    }
}

#[test]
fn evaluation_is_that_of_the_cpu() {
    for dims in [[1, 1, 1, 1], [2, 3, 7, 5], [3, 40, 5, 3], [1, 264, 3, 3]] {
        let c = dims[1];
        let [x, added] = [1, 2].map(|salt| activations(salt, dims));
        let [gamma, beta, mean, var] = [3, 4, 5, 6].map(|salt| scattered(salt, &[c]));
        let var = (var.sqr().unwrap() + 0.1).unwrap();
        let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: EPS, groups: 7 };
        for (dtype, tolerance) in TYPES {
            let rounded = [&x, &added].map(|x| x.to_dtype(dtype).unwrap());
            let [x, added] = rounded.each_ref().map(|x| x.to_dtype(DType::F32).unwrap());
            for followed in [Followed::Nothing, Followed::Relu, Followed::AddRelu] {
                let expected =
                    batch_norm_eval(&x, bn, &mean, &var, followed.after(&added)).unwrap();
                let (got, _) = emulate(|| {
                    let after = followed.after(&rounded[1]);
                    batch_norm_eval(&rounded[0], bn, &mean, &var, after).unwrap()
                });
                let what = format!("{dtype:?} {dims:?} {followed:?}");
                assert_close(&what, &got, &expected, tolerance);
            }
        }
    }
}

/// In f32, far from zero and after numbers unlike the rest, against f64.
#[test]
fn evaluation_takes_running_statistics_in_f32() {
    let (x, one) =
        (activations(1, [2, 3, 2, 2]), Tensor::ones(3, DType::F32, &Device::Cpu).unwrap());
    let double = one.to_dtype(DType::F64).unwrap();
    let bn = BatchNorm { gamma: &one, beta: &one, eps: EPS, groups: 1 };
    for (mean, var, expected) in
        [(&double, &one, "`running_mean`"), (&one, &double, "`running_var`")]
    {
        let (result, kernels) =
            emulate(|| batch_norm_eval(&x, bn, mean, var, After::Nothing).map(drop));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("F64"), "{message}");
        assert!(kernels.is_empty());
    }
}

#[test]
fn statistics_do_not_cancel() {
    let dims = [2, 8, 41, 53];
    let spread = activations(1, dims);
    let far = (spread.narrow(2, 0, 1).unwrap() - 1000.0).unwrap();
    let rest = spread.narrow(2, 1, 40).unwrap();
    let start_unlike_the_rest = Tensor::cat(&[&far, &rest], 2).unwrap();
    let one = Tensor::ones(8, DType::F32, &Device::Cpu).unwrap();
    let bn = BatchNorm { gamma: &one, beta: &one, eps: EPS, groups: 1 };
    for x in [(&spread + 1000.0).unwrap(), start_unlike_the_rest] {
        let (running, _) = emulate(|| {
            let (_, saved) = batch_norm_train(&x, bn, After::Nothing).unwrap();
            let running = [zeros(8), zeros(8)];
            blend(&saved, &running, 1, 1.0);
            running
        });
        let wide =
            x.to_dtype(DType::F64).unwrap().transpose(0, 1).unwrap().flatten_from(1).unwrap();
        let mean = wide.mean_keepdim(1).unwrap();
        let squares = wide.broadcast_sub(&mean).unwrap().sqr().unwrap().sum(1).unwrap();
        let n = f64::from(2 * 41 * 53);
        assert_close("mean", &running[0], &mean.squeeze(1).unwrap(), 1e-7);
        assert_close("variance", &running[1], &(squares / (n - 1.0)).unwrap(), 2e-6);
    }
}

#[test]
fn what_is_not_a_number_spoils_its_channel_alone() {
    let mut numbers = vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 7.0];
    numbers[2] = f32::NAN;
    let x = Tensor::from_vec(numbers, (3, 2, 1, 1), &Device::Cpu).unwrap();
    let one = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
    let bn = BatchNorm { gamma: &one, beta: &one, eps: EPS, groups: 1 };
    let (y, _) = emulate(|| batch_norm_train(&x, bn, After::Relu).unwrap().0);
    let y = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (i, y) in y.iter().enumerate() {
        assert_eq!(y.is_nan(), i % 2 == 0, "{i}: {y}");
    }
}

/// Why these cannot be running statistics; no batch was counted.
fn unblended(saved: &BatchNormSaved, [mean, var]: [&Tensor; 2]) -> OpError {
    let num_batches_tracked = &Tensor::new(40_i64, &Device::Cpu).unwrap();
    let running = Running { mean, var, num_batches_tracked };
    let error = blend_running_(saved, running, 1, MOMENTUM).unwrap_err();
    assert_eq!(num_batches_tracked.to_scalar::<i64>().unwrap(), 40);
    error
}

#[test]
fn what_does_not_fit_is_named() {
    let x = activations(1, [2, 3, 2, 2]);
    let (gamma, double) = (scattered(2, &[3]), scattered(2, &[3]).to_dtype(DType::F64).unwrap());
    let bn = BatchNorm { gamma: &gamma, beta: &gamma, eps: EPS, groups: 1 };
    let (messages, _) = emulate(|| {
        let (y, saved) = batch_norm_train(&x, bn, After::Nothing).unwrap();
        let larger = activations(1, [4, 3, 2, 2]);
        let wide = BatchNorm { gamma: &double, ..bn };
        [
            batch_norm_train(&x, wide, After::Nothing).unwrap_err(),
            batch_norm_backward(&larger, &larger, &larger, bn, &saved, After::Nothing).unwrap_err(),
            batch_norm_backward(&x, &y, &y.to_dtype(DType::BF16).unwrap(), bn, &saved, After::Relu)
                .unwrap_err(),
            unblended(&saved, [&double, &gamma]),
            unblended(&saved, [&gamma, &double]),
        ]
    });
    for (message, expected) in messages.iter().zip([
        "batch_norm: `gamma` is F64",
        "batch_norm: `x` has shape [4, 2, 2, 3], expected the shape of the forward pass",
        "batch_norm: `dy` is BF16",
        "batch_norm: `running_mean` is F64",
        "batch_norm: `running_var` is F64",
    ]) {
        assert!(message.to_string().contains(expected), "{message}");
    }
}

#[test]
fn the_backward_pass_of_evaluation_mode_is_that_of_the_cpu() {
    for dims in [[1, 1, 1, 1], [2, 3, 7, 5], [3, 40, 5, 3], [1, 264, 3, 3], [2, 8, 41, 53]] {
        let c = dims[1];
        let numbers = [1, 2, 3].map(|salt| activations(salt, dims));
        let [gamma, beta, mean, var] = [4, 5, 6, 7].map(|salt| scattered(salt, &[c]));
        let var = (var.sqr().unwrap() + 0.1).unwrap();
        let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: EPS, groups: 7 };
        let values = f64::from(u32::try_from(dims[0] * dims[2] * dims[3]).unwrap());
        for (dtype, tolerance) in TYPES {
            let rounded = numbers.each_ref().map(|x| x.to_dtype(dtype).unwrap());
            let exact = rounded.each_ref().map(|x| x.to_dtype(DType::F32).unwrap());
            for followed in [Followed::Nothing, Followed::Relu, Followed::AddRelu] {
                let [x, added, dy] = exact.each_ref();
                let after = followed.after(added);
                // Both see the same output, so that ReLU passes the same numbers.
                let y = batch_norm_eval(x, bn, &mean, &var, after).unwrap();
                let running = [&mean, &var];
                let expected = batch_norm_eval_backward([x, &y, dy], bn, running, after).unwrap();
                let y = y.to_dtype(dtype).unwrap();
                let (got, kernels) = emulate(|| {
                    let [x, added, dy] = rounded.each_ref();
                    let after = followed.after(added);
                    batch_norm_eval_backward([x, &y, dy], bn, running, after).unwrap()
                });
                let what = format!("{dtype:?} {dims:?} {followed:?}");
                let of_sums = 1e-6 * values.sqrt().max(4.0);
                for (name, got, expected, tolerance) in [
                    ("dx", &got.x, &expected.x, tolerance),
                    ("gamma", &got.gamma, &expected.gamma, of_sums),
                    ("beta", &got.beta, &expected.beta, of_sums),
                ] {
                    assert_close(&format!("{what} {name}"), got, expected, tolerance);
                }
                assert_eq!(got.added.is_some(), followed == Followed::AddRelu, "{what}");
                if let (Some(got), Some(expected)) = (&got.added, &expected.added) {
                    assert_close(&format!("{what} added"), got, expected, 0.0);
                }
                let (suffix, dtype) = (followed.suffix(), dtype.as_str());
                let masked = if followed == Followed::Relu { "_relu" } else { "" };
                let names = [
                    "bn_running".to_owned(),
                    format!("bn_gradient_sums{suffix}_{dtype}"),
                    "bn_gradients".into(),
                    format!("bn_eval_gradient{masked}_{dtype}"),
                ];
                assert_eq!(kernels, names, "{what}");
            }
        }
    }
}

/// Central differences of the emulated forward pass, in which each number has a gradient of its own.
#[test]
fn the_backward_pass_of_evaluation_mode_is_the_slope_of_the_forward_pass() {
    const STEP: f32 = 0.5;
    let dims = [2, 3, 2, 2];
    let [x, dy] = [1, 2].map(|salt| activations(salt, dims));
    let [gamma, beta, mean, var] = [3, 4, 5, 6].map(|salt| scattered(salt, &[3]));
    let var = (var.sqr().unwrap() + 0.1).unwrap();
    let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: EPS, groups: 1 };
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let loss = |x: &[f32]| -> f64 {
        let x = Tensor::from_slice(x, &dims, &Device::Cpu).unwrap();
        let (y, _) = emulate(|| batch_norm_eval(&x, bn, &mean, &var, After::Nothing).unwrap());
        flat(&y).iter().zip(flat(&dy)).map(|(y, dy)| f64::from(*y) * f64::from(dy)).sum()
    };
    let running = [&mean, &var];
    let (got, _) =
        emulate(|| batch_norm_eval_backward([&x, &x, &dy], bn, running, After::Nothing).unwrap());
    let (x, dx) = (flat(&x), flat(&got.x));
    for (i, dx) in dx.iter().enumerate() {
        let moved = |by: f32| {
            let mut x = x.clone();
            x[i] += by;
            loss(&x)
        };
        // It is a linear function, so a long step costs nothing.
        let slope = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
        assert!((slope - f64::from(*dx)).abs() < 2e-5 * slope.abs().max(1.0), "{i}: {slope} {dx}");
    }
}
