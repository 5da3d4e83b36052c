//! In-place updates on the emulated GPU against the same on the CPU, bit for bit.

use candle_core::{DType, Device, Tensor};
use moco_ops::{EmaUpdate, SgdUpdate, copy_, ema_, emulate, sgd_};

use crate::common::{assert_close, scattered};

/// Numbers that a block takes.
const CHUNK: usize = 16384;
/// Of each step.
const LRS: [f32; 2] = [0.03, 0.7];
const CONSTANTS: [f64; 2] = [0.9, 1e-4];
const KEY_MOMENTUM: f64 = 0.999;

/// Parameters, gradients, momentum buffers and key parameters of a network. One in two is a part of a
/// longer vector, so that its address fits no access of 16 bytes.
fn network() -> [Vec<Tensor>; 4] {
    let lens = [1, 31, 256, 257, 3, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, 0];
    [1, 2, 3, 4].map(|salt| {
        let tensor = |(i, len): (usize, &usize)| {
            let all = scattered(salt, &[len + 1]);
            all.narrow(0, i % 2, *len).unwrap()
        };
        lens.iter().enumerate().map(tensor).collect()
    })
}

/// A step at each rate, which is read from the same memory; what was changed.
fn steps() -> [Vec<Tensor>; 3] {
    let [p, g, b, k] = network();
    let lr = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    for of_step in LRS {
        copy_(&lr, &Tensor::new(&[of_step], &Device::Cpu).unwrap()).unwrap();
        let of_sgd = p.iter().zip(&g).zip(&b);
        let of_sgd: Vec<_> = of_sgd.map(|((p, g), b)| SgdUpdate::new(p, g, b).unwrap()).collect();
        let of_ema: Vec<_> = k.iter().zip(&p).map(|(k, p)| EmaUpdate::new(k, p).unwrap()).collect();
        ema_(&of_ema, KEY_MOMENTUM).unwrap();
        sgd_(&of_sgd, &lr, CONSTANTS).unwrap();
    }
    [p, b, k]
}

#[test]
fn updates_are_those_of_the_cpu_to_the_bit_in_one_launch_each() {
    let (got, kernels) = emulate(steps);
    assert_eq!(kernels, ["ema", "sgd", "ema", "sgd"]);
    for (name, (got, expected)) in ["p", "buffer", "key"].iter().zip(got.iter().zip(&steps())) {
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert_close(&format!("{name} {i}"), got, expected, 0.0);
        }
    }
}

#[test]
fn nothing_to_update_launches_nothing_and_f64_has_no_kernel() {
    let empty = scattered(1, &[0]);
    let double = scattered(1, &[3]).to_dtype(DType::F64).unwrap();
    let other = (&double * 2.0).unwrap();
    let lr = Tensor::new(&LRS[..1], &Device::Cpu).unwrap();
    let (messages, kernels) = emulate(|| {
        ema_(&[], 0.5).unwrap();
        ema_(&[EmaUpdate::new(&empty, &scattered(2, &[0])).unwrap()], 0.5).unwrap();
        sgd_(&[], &lr, CONSTANTS).unwrap();
        let buffers = [scattered(3, &[0]), (&double * 3.0).unwrap()];
        let nothing = SgdUpdate::new(&empty, &scattered(2, &[0]), &buffers[0]).unwrap();
        sgd_(&[nothing], &lr, CONSTANTS).unwrap();
        let update = EmaUpdate::new(&double, &other).unwrap();
        let sgd = |lr: &Tensor| {
            let update = SgdUpdate::new(&double, &other, &buffers[1]).unwrap();
            sgd_(&[update], lr, CONSTANTS).unwrap_err().to_string()
        };
        let of_ema = ema_(&[update], 0.5).unwrap_err().to_string();
        [of_ema, sgd(&lr), sgd(&lr.to_dtype(DType::F64).unwrap())]
    });
    assert!(kernels.is_empty(), "{kernels:?}");
    // A rate of another type than the parameters, and one that fits where no kernel does.
    for (message, expected) in
        messages.iter().zip(["ema: `key` is F64", "sgd: `lr` is F32", "sgd: `lr` is F64"])
    {
        assert!(message.contains(expected), "{message}");
    }
}
