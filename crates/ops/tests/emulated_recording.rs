//! Work that the emulator records and repeats, against the same work done at once.
#![cfg(all(feature = "emulator", not(feature = "device-tests")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor};
use moco_ops::{
    Conv2dSpec, EmaUpdate, OpError, Recording, conv2d, copy_, ema_, emulate, linear, relu, upload,
};

fn matrix(first: f32) -> Tensor {
    let numbers: Vec<f32> = (0..12).map(|i| first + i as f32 * 0.25 - 1.5).collect();
    Tensor::from_vec(numbers, (3, 4), &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// A table, a kernel, a product and a change in place.
fn work(x: &Tensor, weight: &Tensor, key: &Tensor, out: &Tensor) -> Result<(), OpError> {
    let bias = upload(&Tensor::new(&[0.5_f32, -0.5, 0.0], &Device::Cpu).unwrap(), x.device())?;
    let y = relu(&linear(x, weight, &bias)?)?;
    ema_(&[EmaUpdate::new(key, &y)?], 0.5)?;
    copy_(out, &y)
}

#[test]
fn repetitions_do_the_work_with_what_is_in_memory_by_then() {
    let zeros = || Tensor::zeros((3, 3), DType::F32, &Device::Cpu).unwrap();
    let (weight, inputs) = (matrix(0.3), [matrix(0.0), matrix(1.0), matrix(-2.0)]);
    let ((), launched) = emulate(|| {
        let (x, key, out) = (matrix(7.0), zeros(), zeros());
        let recording = Recording::new(&Device::Cpu, || work(&x, &weight, &key, &out)).unwrap();
        assert_eq!([numbers(&key), numbers(&out)], [vec![0.0; 9], vec![0.0; 9]]);
        let (expected_key, expected_out) = (zeros(), zeros());
        for input in &inputs {
            copy_(&x, input).unwrap();
            recording.repeat().unwrap();
            work(input, &weight, &expected_key, &expected_out).unwrap();
            assert_eq!(numbers(&out), numbers(&expected_out));
            assert_eq!(numbers(&key), numbers(&expected_key));
            assert!(numbers(&out).iter().any(|x| *x > 0.0));
        }
    });
    let count = |name: &str| launched.iter().filter(|launched| *launched == name).count();
    assert_eq!([count("ema"), count("relu_f32"), count("Product")], [6; 3]);
}

#[test]
fn after_a_failure_work_is_done_at_once_again() {
    emulate(|| {
        let x = matrix(0.0);
        let failed = Recording::new(&Device::Cpu, || {
            relu(&x)?;
            linear(&x, &x, &x).map(drop)
        });
        assert!(failed.unwrap_err().to_string().contains("`bias` has shape"));
        assert!(numbers(&relu(&x).unwrap()).iter().all(|x| !x.is_nan()));
    });
}

#[test]
fn convolutions_are_recorded() {
    let image = |first: f32| matrix(first).reshape((1, 3, 4, 1)).unwrap();
    let image = |first: f32| image(first).permute((0, 3, 1, 2)).unwrap();
    let weight = Tensor::ones((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let convolve = |x: &Tensor| conv2d(x, &weight, Conv2dSpec::new(1, 0)).unwrap();
    let expected = numbers(&convolve(&image(2.0)));
    emulate(|| {
        let (x, out) = (image(0.0), convolve(&image(0.0)));
        let recording = Recording::new(&Device::Cpu, || copy_(&out, &convolve(&x))).unwrap();
        copy_(&x, &image(2.0)).unwrap();
        recording.repeat().unwrap();
        assert_eq!(numbers(&out), expected);
    });
}

#[test]
fn a_cpu_records_nothing() {
    let error = Recording::new(&Device::Cpu, || Ok::<_, OpError>(())).unwrap_err().to_string();
    assert!(error.starts_with("recording: no kernels for tensors on"), "{error}");
}
