//! Rows in another order, fully connected layers and sums on the emulated GPU, against the CPU.

use candle_core::{DType, Device, Tensor};
use moco_ops::{add, emulate, linear, linear_backward, select_rows};

use crate::common::{assert_close, scattered};

/// Reversed, with the first row once more.
fn order(n: usize) -> Tensor {
    let mut order: Vec<u32> = (0..n as u32).rev().collect();
    order.push(0);
    Tensor::new(order, &Device::Cpu).unwrap()
}

fn bytes(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn selected_rows_are_those_of_the_cpu() {
    for (n, c) in [(1, 1), (3, 4), (5, 31), (33, 8), (4, 129), (2, 40_000)] {
        let x = scattered(1, &[n, c]);
        let expected = select_rows(&x, &order(n)).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let stored = x.to_dtype(dtype).unwrap();
            let (got, kernels) = emulate(|| select_rows(&stored, &order(n)).unwrap());
            assert_eq!(kernels, ["select_rows"]);
            assert_eq!(got.dims(), [n + 1, c]);
            let expected = expected.to_dtype(dtype).unwrap();
            assert_eq!(bytes(&got), bytes(&expected), "{dtype:?} {n} {c}");
        }
    }
}

#[test]
fn selected_images_keep_channels_last() {
    for [n, h, w, c] in [[3, 2, 5, 3], [2, 9, 9, 8]] {
        let images = scattered(1, &[n, h, w, c]).permute((0, 3, 1, 2)).unwrap();
        let expected = select_rows(&images, &order(n)).unwrap();
        let (got, _) = emulate(|| select_rows(&images, &order(n)).unwrap());
        assert_eq!((got.dims(), got.stride()), (expected.dims(), expected.stride()));
        assert_eq!(bytes(&got), bytes(&expected));
    }
}

#[test]
fn a_view_at_an_odd_place_is_read_from_there() {
    let all = scattered(1, &[7, 12]);
    let x = all.narrow(0, 1, 5).unwrap();
    let odd = all.flatten_all().unwrap().narrow(0, 1, 80).unwrap().reshape((20, 4)).unwrap();
    for x in [x, odd] {
        let n = x.dims()[0];
        let expected = select_rows(&x, &order(n)).unwrap();
        assert_eq!(bytes(&emulate(|| select_rows(&x, &order(n)).unwrap()).0), bytes(&expected));
    }
}

#[test]
fn a_row_that_is_not_there_is_nan() {
    let order = Tensor::new(&[1_u32, 2, u32::MAX], &Device::Cpu).unwrap();
    for (c, dtype) in [(4, DType::F32), (3, DType::F32), (8, DType::BF16), (3, DType::BF16)] {
        let x = scattered(1, &[2, c]).to_dtype(dtype).unwrap();
        let got = bytes(&emulate(|| select_rows(&x, &order).unwrap()).0);
        assert_eq!(got[..c], bytes(&x)[c..]);
        assert!(got[c..].iter().all(|x| x.is_nan()));
    }
    let empty = scattered(1, &[0, 3]);
    let none = order.narrow(0, 0, 0).unwrap();
    let (got, kernels) = emulate(|| select_rows(&empty, &none).unwrap());
    assert_eq!((got.dims(), kernels.len()), (&[0, 3][..], 0));
}

#[test]
fn linear_layers_are_those_of_the_cpu() {
    for (n, c_in, c_out) in [(1, 1, 1), (3, 5, 31), (33, 7, 33), (65, 3, 129)] {
        let [x, weight] = [scattered(1, &[n, c_in]), scattered(2, &[c_out, c_in])];
        let [bias, dy] = [scattered(3, &[c_out]), scattered(4, &[n, c_out])];
        let work = || {
            let y = linear(&x, &weight, &bias).unwrap();
            let gradients = linear_backward(&x, &weight, &dy).unwrap();
            [y, gradients.x, gradients.weight, gradients.bias]
        };
        let (got, kernels) = emulate(work);
        assert_eq!(kernels, ["Product", "add_bias", "sum_rows", "Product", "Product"]);
        let mut expected = work();
        let exact = dy.to_dtype(DType::F64).unwrap().sum(0).unwrap();
        expected[3] = exact.to_dtype(DType::F32).unwrap();
        let names = ["y", "x", "weight", "bias"];
        // Sums of the bias' gradient have an order of their own; all else is the same arithmetic.
        for ((name, tolerance), (got, expected)) in
            names.iter().zip([0.0, 0.0, 0.0, 1e-6]).zip(got.iter().zip(&expected))
        {
            assert_close(&format!("{name} {n} {c_in} {c_out}"), got, expected, tolerance);
        }
    }
}

#[test]
fn linear_layers_of_other_types_are_named() {
    let half = |x: &Tensor| x.to_dtype(DType::BF16).unwrap();
    let [x, weight, bias] = [&[4, 3][..], &[2, 3], &[2]].map(|dims| scattered(1, dims));
    let dy = scattered(2, &[4, 2]);
    let (messages, kernels) = emulate(|| {
        [
            linear(&half(&x), &weight, &bias).unwrap_err(),
            linear(&x, &half(&weight), &bias).unwrap_err(),
            linear(&x, &weight, &half(&bias)).unwrap_err(),
            linear_backward(&half(&x), &weight, &dy).unwrap_err(),
            linear_backward(&x, &half(&weight), &dy).unwrap_err(),
            linear_backward(&x, &weight, &half(&dy)).unwrap_err(),
        ]
    });
    assert!(kernels.is_empty(), "{kernels:?}");
    let names = ["x", "weight", "bias", "x", "weight", "dy"];
    for (message, name) in messages.iter().zip(names) {
        assert!(message.to_string().contains(&format!("linear: `{name}` is BF16")), "{message}");
    }
}

#[test]
fn sums_of_parameters_keep_their_order() {
    for dims in [vec![1], vec![5, 31], vec![8, 4, 3, 3]] {
        let [a, b] = [1, 2].map(|salt| scattered(salt, &dims));
        let (got, kernels) = emulate(|| add(&a, &b).unwrap());
        assert_eq!(kernels, ["add_f32"]);
        assert!(got.is_contiguous());
        assert_close("sum", &got, &(&a + &b).unwrap(), 0.0);
        assert_close("sum on the CPU", &add(&a, &b).unwrap(), &(&a + &b).unwrap(), 0.0);
    }
}
