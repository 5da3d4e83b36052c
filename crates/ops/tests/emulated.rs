//! Operations on the emulated GPU against the same operations on the CPU, on sizes that fill no block.

use candle_core::DType;
use moco_ops::{
    Conv2dSpec, conv2d, conv2d_input_gradient, conv2d_weight_gradient, emulate, l2_normalize,
    l2_normalize_backward, relu, relu_backward,
};

use crate::common::{assert_close, scattered};

/// How far results may differ: the emulator sums in another order, and bf16 has 8 bits.
const TYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::BF16, 8e-3)];

#[test]
fn rows_are_those_of_the_cpu() {
    for (n, c) in [(1, 1), (3, 31), (2, 33), (9, 128), (40, 257)] {
        let (x, dy) = (scattered(1, &[n, c]), scattered(2, &[n, c]));
        for (dtype, tolerance) in TYPES {
            let [rounded_x, rounded_dy] = [&x, &dy].map(|x| x.to_dtype(dtype).unwrap());
            let [x, dy] = [&rounded_x, &rounded_dy].map(|x| x.to_dtype(DType::F32).unwrap());
            let y = l2_normalize(&x).unwrap();
            let dx = l2_normalize_backward(&x, &dy).unwrap();
            let (z, dz) = (relu(&x).unwrap(), relu_backward(&relu(&x).unwrap(), &dy).unwrap());
            let (got, kernels) = emulate(|| {
                let (x, dy) = (&rounded_x, &rounded_dy);
                let z = relu(x).unwrap();
                [
                    l2_normalize(x).unwrap(),
                    l2_normalize_backward(x, dy).unwrap(),
                    relu_backward(&z, dy).unwrap(),
                    z,
                ]
            });
            for (got, expected) in got.iter().zip([&y, &dx, &dz, &z]) {
                assert_close(&format!("{dtype:?} {n} {c}"), got, expected, tolerance);
            }
            let names = ["relu", "l2_normalize", "l2_normalize_backward", "relu_backward"];
            let suffix = dtype.as_str();
            assert_eq!(kernels, names.map(|name| format!("{name}_{suffix}")));
        }
    }
}

#[test]
fn convolutions_are_those_of_the_cpu() {
    let specs = [
        ([2, 3, 7, 5], [4, 3, 3, 3], Conv2dSpec::new(2, 1)),
        ([1, 5, 4, 4], [7, 5, 1, 1], Conv2dSpec::new(1, 0)),
        ([2, 4, 6, 6], [6, 2, 3, 3], Conv2dSpec { groups: 2, ..Conv2dSpec::new(1, 1) }),
    ];
    for (x_dims, w_dims, spec) in specs {
        let (x, w) = (scattered(1, &x_dims), scattered(2, &w_dims));
        let y = conv2d(&x, &w, spec).unwrap();
        let dy = scattered(3, y.dims());
        let dx = conv2d_input_gradient(&x_dims, &w, &dy, spec).unwrap();
        let dw = conv2d_weight_gradient(&x, &w_dims, &dy, spec).unwrap();
        for (dtype, tolerance) in TYPES {
            let [x, dy] = [&x, &dy].map(|x| x.to_dtype(dtype).unwrap());
            let (got, _) = emulate(|| {
                [
                    conv2d(&x, &w, spec).unwrap(),
                    conv2d_input_gradient(&x_dims, &w, &dy, spec).unwrap(),
                    conv2d_weight_gradient(&x, &w_dims, &dy, spec).unwrap(),
                ]
            });
            assert_eq!(got[2].dtype(), DType::F32);
            for (got, expected) in got.iter().zip([&y, &dx, &dw]) {
                // Inputs were rounded too, and the sums are over as many products as a weight has.
                assert_close(&format!("{dtype:?} {w_dims:?}"), got, expected, 12.0 * tolerance);
            }
        }
    }
}
