//! Work that a GPU, or the emulator in its place, records and replays, against the same work done eagerly.

use candle_core::{DType, Device, Tensor};
use moco_ops::{
    After, BatchNorm, Conv2dSpec, EmaUpdate, OpError, Recording, Running, SgdUpdate, add,
    batch_norm_train, blend_running_, conv2d, copy_, ema_, linear, relu, select_rows, sgd_, upload,
};

/// Does `work` on the emulator; the names of the kernels that it launched.
#[cfg(not(feature = "device-tests"))]
fn on_gpu(work: impl FnOnce(&Device)) -> Vec<String> {
    moco_ops::emulate(|| work(&Device::Cpu)).1
}

/// Does `work` on the first CUDA device, which counts nothing.
#[cfg(feature = "device-tests")]
fn on_gpu(work: impl FnOnce(&Device)) -> Vec<String> {
    use moco_ops::{ConvBackend, Precision, open_cuda};
    work(&open_cuda(0, Precision::F32, ConvBackend::Auto).unwrap());
    Vec::new()
}

fn matrix(first: f32, device: &Device) -> Tensor {
    let numbers: Vec<f32> = (0..12).map(|i| first + i as f32 * 0.25 - 1.5).collect();
    Tensor::from_vec(numbers, (3, 4), device).unwrap()
}

fn zeros(device: &Device) -> Tensor {
    Tensor::zeros((3, 3), DType::F32, device).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The memory that the work reads and changes.
struct Memory {
    x: Tensor,
    order: Tensor,
    lr: Tensor,
    weight: Tensor,
    ones: Tensor,
    key: Tensor,
    buffer: Tensor,
    /// Mean and variance.
    running: [Tensor; 2],
    num_batches_tracked: Tensor,
}

impl Memory {
    fn new(device: &Device) -> Self {
        Self {
            x: matrix(7.0, device),
            order: Tensor::new(&[0_u32, 1, 2], device).unwrap(),
            lr: Tensor::new(&[0.5_f32], device).unwrap(),
            weight: matrix(0.3, device),
            ones: Tensor::ones(3, DType::F32, device).unwrap(),
            key: zeros(device),
            buffer: zeros(device),
            running: [0, 1].map(|_| Tensor::zeros(3, DType::F32, device).unwrap()),
            num_batches_tracked: Tensor::new(40_i64, device).unwrap(),
        }
    }

    /// Tables, kernels, products and changes in place.
    fn work(&self) -> Result<(), OpError> {
        let Self { x, order, lr, weight, ones, key, buffer, .. } = self;
        let bias = upload(&Tensor::new(&[0.5_f32, -0.5, 0.0], &Device::Cpu).unwrap(), x.device())?;
        let y = relu(&linear(&select_rows(x, order)?, weight, &bias)?)?;
        let sum = add(&y, &self.normalize(&y, ones)?)?;
        sgd_(&[SgdUpdate::new(key, &sum, buffer)?], lr, [0.9, 0.0])?;
        ema_(&[EmaUpdate::new(key, &y)?], 0.5)
    }

    fn normalize(&self, y: &Tensor, ones: &Tensor) -> Result<Tensor, OpError> {
        let bn = BatchNorm { gamma: ones, beta: ones, eps: 1e-5, groups: 1 };
        let images = y.reshape((3, 3, 1, 1)).unwrap();
        let (normalized, saved) = batch_norm_train(&images, bn, After::Nothing)?;
        let [mean, var] = &self.running;
        let running = Running { mean, var, num_batches_tracked: &self.num_batches_tracked };
        blend_running_(&saved, running, 1, 0.1)?;
        Ok(normalized.reshape((3, 3)).unwrap())
    }

    fn results(&self) -> [Vec<f32>; 4] {
        let [mean, var] = &self.running;
        [&self.key, &self.buffer, mean, var].map(numbers)
    }

    fn counted(&self) -> i64 {
        self.num_batches_tracked.to_scalar().unwrap()
    }
}

#[test]
fn repetitions_do_the_work_with_what_is_in_memory_by_then() {
    const INPUTS: [(f32, [u32; 3], f32); 3] =
        [(0.0, [2, 0, 1], 0.5), (1.0, [0, 1, 2], 0.25), (-2.0, [1, 1, 0], 2.0)];
    let launched = on_gpu(|device| {
        // A device loads its kernels before it records.
        Memory::new(device).work().unwrap();
        let (eager, replayed) = (Memory::new(device), Memory::new(device));
        let before = replayed.results();
        let recording = Recording::new(device, || replayed.work()).unwrap();
        assert_eq!((replayed.results(), replayed.counted()), (before, 40));
        for ((first, order, lr), counted) in INPUTS.into_iter().zip(41..) {
            for memory in [&eager, &replayed] {
                // From the device and from the host.
                copy_(&memory.x, &matrix(first, device)).unwrap();
                copy_(&memory.order, &Tensor::new(&order, &Device::Cpu).unwrap()).unwrap();
                copy_(&memory.lr, &Tensor::new(&[lr], &Device::Cpu).unwrap()).unwrap();
            }
            let last = replayed.results();
            recording.repeat().unwrap();
            eager.work().unwrap();
            assert_eq!(replayed.results(), eager.results());
            assert_ne!(replayed.results(), last);
            assert_eq!([replayed.counted(), eager.counted()], [counted; 2]);
        }
    });
    let count = |name: &str| launched.iter().filter(|launched| *launched == name).count();
    let counted = if cfg!(feature = "device-tests") { 0 } else { 1 + 2 * INPUTS.len() };
    for name in
        ["Product", "add_bias", "add_f32", "bn_blend", "ema", "relu_f32", "select_rows", "sgd"]
    {
        assert_eq!(count(name), counted, "{name}");
    }
}

#[test]
fn after_a_failure_work_is_done_at_once_again() {
    on_gpu(|device| {
        let x = matrix(0.0, device);
        let expected = numbers(&relu(&x).unwrap());
        let failed = Recording::new(device, || {
            relu(&x)?;
            linear(&x, &x, &x).map(drop)
        });
        assert!(failed.unwrap_err().to_string().contains("`bias` has shape"));
        assert_eq!(numbers(&relu(&x).unwrap()), expected);
    });
}

#[test]
fn convolutions_are_recorded() {
    on_gpu(|device| {
        let image = |first: f32| {
            let pixels = matrix(first, device).reshape((1, 3, 4, 1)).unwrap();
            pixels.permute((0, 3, 1, 2)).unwrap()
        };
        let weight = Tensor::ones((1, 1, 2, 2), DType::F32, device).unwrap();
        let convolve = |x: &Tensor| conv2d(x, &weight, Conv2dSpec::new(1, 0)).unwrap();
        let expected = numbers(&convolve(&image(2.0)));
        let (x, out) = (image(0.0), convolve(&image(0.0)));
        let recording = Recording::new(device, || copy_(&out, &convolve(&x))).unwrap();
        copy_(&x, &image(2.0)).unwrap();
        recording.repeat().unwrap();
        assert_eq!(numbers(&out), expected);
    });
}

/// The tensors that the work was recorded with stay where they are for as long as it may be replayed.
#[test]
fn a_recording_keeps_what_it_touches() {
    on_gpu(|device| {
        let (x, out) = (matrix(0.5, device), matrix(0.0, device));
        let expected = numbers(&relu(&x).unwrap());
        let recording = Recording::new(device, || copy_(&out, &relu(&x)?)).unwrap();
        drop(x);
        let others: Vec<Tensor> = (0..8).map(|_| matrix(-9.0, device)).collect();
        recording.repeat().unwrap();
        assert_eq!(numbers(&out), expected);
        assert!(others.iter().all(|other| numbers(other) == numbers(&matrix(-9.0, device))));
    });
}

#[test]
fn a_cpu_records_nothing() {
    let error = Recording::new(&Device::Cpu, || Ok::<_, OpError>(())).unwrap_err().to_string();
    assert!(error.starts_with("recording: no kernels for tensors on"), "{error}");
}

/// A result that outlives the recording would be overwritten by each replay; a device notices.
#[cfg(feature = "device-tests")]
#[test]
fn a_result_that_is_kept_is_an_error() {
    on_gpu(|device| {
        let x = matrix(0.5, device);
        relu(&x).unwrap();
        // Its memory goes with the recording that fails.
        let mut kept = std::mem::ManuallyDrop::new(None);
        let recording = Recording::new(device, || {
            *kept = Some(relu(&x)?);
            Ok::<_, OpError>(())
        });
        let error = recording.unwrap_err().to_string();
        assert!(error.contains("1 tensors were made and 0 given back"), "{error}");
    });
}
