//! Every op against PyTorch in f64; `golden/generate_ops.py` made the file.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use moco_ops::{
    After, BatchNorm, Conv2dSpec, Running, batch_norm_backward, batch_norm_eval, batch_norm_train,
    blend_running_, conv2d, conv2d_input_gradient, conv2d_weight_gradient, global_average_pool,
    global_average_pool_backward, info_nce, l2_normalize, l2_normalize_backward, linear,
    linear_backward, max_pool, max_pool_backward,
};

use crate::formulas::fill;

/// Relative to the largest element of a tensor; both sides compute in f64.
const TOLERANCE: f64 = 1e-11;

struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    fn load() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ops.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect())
    }

    /// The cases of an op with their parameters.
    fn cases(&self, op: &str) -> Vec<(String, Vec<f64>)> {
        let prefix = format!("{op}.");
        let names =
            self.0.keys().filter(|name| name.starts_with(&prefix) && name.ends_with(".params"));
        let case = |name: &String| {
            let params = self.0[name].to_dtype(candle_core::DType::F64).unwrap();
            let prefix = name.strip_suffix(".params").unwrap().to_owned();
            (prefix, params.to_vec1().unwrap())
        };
        let cases: Vec<_> = names.map(case).collect();
        assert!(!cases.is_empty(), "{op}");
        cases
    }

    #[track_caller]
    fn check(&self, prefix: &str, output: &str, got: &Tensor) {
        let name = format!("{prefix}.{output}");
        let expected = &self.0[&name];
        assert_eq!(got.dims(), expected.dims(), "{name}");
        let (got, expected) = (numbers(got), numbers(expected));
        let scale = expected.iter().fold(1e-6_f64, |max, v| max.max(v.abs()));
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!(
                (got - expected).abs() <= TOLERANCE * scale,
                "{name}[{i}]: {got} not {expected}"
            );
        }
    }
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn given(name: &str, dims: &[usize]) -> Tensor {
    Tensor::from_vec(fill(name, dims.iter().product()), dims, &Device::Cpu).unwrap()
}

fn counts<const N: usize>(params: &[f64]) -> [usize; N] {
    std::array::from_fn(|i| params[i] as usize)
}

#[test]
fn conv2d_is_pytorchs() {
    let golden = Golden::load();
    for (prefix, params) in golden.cases("conv2d") {
        let [n, c, h, w, co, k, stride, padding, dilation, groups] = counts(&params);
        let spec = Conv2dSpec { stride, padding, dilation, groups };
        let x = given(&format!("{prefix}.x"), &[n, c, h, w]);
        let weight = given(&format!("{prefix}.w"), &[co, c / groups, k, k]);
        let y = conv2d(&x, &weight, spec).unwrap();
        golden.check(&prefix, "y", &y);
        let dy = given(&format!("{prefix}.dy"), y.dims());
        let dx = conv2d_input_gradient(x.dims(), &weight, &dy, spec).unwrap();
        golden.check(&prefix, "dx", &dx);
        let dw = conv2d_weight_gradient(&x, weight.dims(), &dy, spec).unwrap();
        golden.check(&prefix, "dw", &dw);
    }
}

struct BnInputs {
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor,
    running: [Tensor; 2],
}

fn bn_inputs(prefix: &str, dims: &[usize]) -> BnInputs {
    let of_channels = |name: &str, scale: f64, shift: f64| {
        given(&format!("{prefix}.{name}"), &dims[1..2]).affine(scale, shift).unwrap()
    };
    BnInputs {
        x: given(&format!("{prefix}.x"), dims),
        gamma: of_channels("gamma", 0.5, 1.0),
        beta: of_channels("beta", 1.0, 0.0),
        residual: given(&format!("{prefix}.residual"), dims),
        running: [of_channels("running_mean", 0.1, 0.0), of_channels("running_var", 0.5, 1.0)],
    }
}

fn after(relu: usize, add: usize, residual: &Tensor) -> After<'_> {
    match (relu, add) {
        (0, 0) => After::Nothing,
        (1, 0) => After::Relu,
        (1, 1) => After::AddRelu(residual),
        other => panic!("no such fusion: {other:?}"),
    }
}

#[test]
fn batch_norm_in_training_is_pytorchs() {
    let golden = Golden::load();
    for (prefix, params) in golden.cases("batch_norm_train") {
        let [n, c, h, w, groups, relu, add] = counts(&params);
        let BnInputs { x, gamma, beta, residual, running } = bn_inputs(&prefix, &[n, c, h, w]);
        let after = after(relu, add, &residual);
        let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups };
        let (y, saved) = batch_norm_train(&x, bn, after).unwrap();
        golden.check(&prefix, "y", &y);
        let dy = given(&format!("{prefix}.dy"), y.dims());
        let g = batch_norm_backward(&x, &y, &dy, bn, &saved, after).unwrap();
        golden.check(&prefix, "dx", &g.x);
        golden.check(&prefix, "dgamma", &g.gamma);
        golden.check(&prefix, "dbeta", &g.beta);
        if let Some(added) = g.added {
            golden.check(&prefix, "dresidual", &added);
        }
        let [mean, var] = &running;
        let num_batches_tracked = &Tensor::new(2_i64, &Device::Cpu).unwrap();
        blend_running_(&saved, Running { mean, var, num_batches_tracked }, 1, 0.1).unwrap();
        assert_eq!(num_batches_tracked.to_scalar::<i64>().unwrap(), 3);
        golden.check(&prefix, "running_mean", mean);
        golden.check(&prefix, "running_var", var);
    }
}

#[test]
fn batch_norm_in_evaluation_is_pytorchs() {
    let golden = Golden::load();
    for (prefix, params) in golden.cases("batch_norm_eval") {
        let [n, c, h, w, relu, add] = counts(&params);
        let BnInputs { x, gamma, beta, residual, running } = bn_inputs(&prefix, &[n, c, h, w]);
        let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups: 1 };
        let after = after(relu, add, &residual);
        let y = batch_norm_eval(&x, bn, &running[0], &running[1], after).unwrap();
        golden.check(&prefix, "y", &y);
    }
}

#[test]
fn pooling_is_pytorchs() {
    let golden = Golden::load();
    for (prefix, params) in golden.cases("max_pool2d") {
        let [n, c, h, w, ties] = counts(&params);
        let mut x = given(&format!("{prefix}.x"), &[n, c, h, w]);
        if ties == 1 {
            x = ((x * 4.0).unwrap().floor().unwrap() / 4.0).unwrap();
        }
        let pooled = max_pool(&x).unwrap();
        golden.check(&prefix, "y", &pooled.y);
        let dy = given(&format!("{prefix}.dy"), pooled.y.dims());
        golden.check(&prefix, "dx", &max_pool_backward(&pooled, x.dims(), &dy).unwrap());
    }
    for (prefix, params) in golden.cases("global_avg_pool") {
        let dims: [usize; 4] = counts(&params);
        let y = global_average_pool(&given(&format!("{prefix}.x"), &dims)).unwrap();
        golden.check(&prefix, "y", &y);
        let dy = given(&format!("{prefix}.dy"), y.dims());
        golden.check(&prefix, "dx", &global_average_pool_backward(&dims, &dy, dy.dtype()).unwrap());
    }
}

#[test]
fn linear_and_normalize_are_pytorchs() {
    let golden = Golden::load();
    for (prefix, params) in golden.cases("linear") {
        let [n, c_in, c_out] = counts(&params);
        let input = |name: &str, dims: &[usize]| given(&format!("{prefix}.{name}"), dims);
        let (x, w, b) = (input("x", &[n, c_in]), input("w", &[c_out, c_in]), input("b", &[c_out]));
        let y = linear(&x, &w, &b).unwrap();
        golden.check(&prefix, "y", &y);
        let g = linear_backward(&x, &w, &input("dy", y.dims())).unwrap();
        golden.check(&prefix, "dx", &g.x);
        golden.check(&prefix, "dw", &g.weight);
        golden.check(&prefix, "db", &g.bias);
    }
    for (prefix, params) in golden.cases("l2_normalize") {
        let [n, c] = counts(&params);
        // Row 1 is zero, row 2 shorter than eps.
        let mut x = fill(&format!("{prefix}.x"), n * c);
        x[c..2 * c].fill(0.0);
        x[2 * c..3 * c].iter_mut().for_each(|v| *v *= 2.0_f64.powi(-50));
        let x = Tensor::from_vec(x, (n, c), &Device::Cpu).unwrap();
        golden.check(&prefix, "y", &l2_normalize(&x).unwrap());
        let dy = given(&format!("{prefix}.dy"), &[n, c]);
        golden.check(&prefix, "dx", &l2_normalize_backward(&x, &dy).unwrap());
    }
}

#[test]
fn info_nce_is_pytorchs_cross_entropy() {
    let golden = Golden::load();
    for (prefix, params) in golden.cases("info_nce") {
        let ([n, c, n_negatives], temperature, scale) = (counts(&params), params[3], params[4]);
        let input = |name: &str, dims: &[usize]| {
            (given(&format!("{prefix}.{name}"), dims) * scale).unwrap()
        };
        let (q, k) = (input("q", &[n, c]), input("k", &[n, c]));
        let result = info_nce(&q, &k, &input("queue", &[c, n_negatives]), temperature).unwrap();
        golden.check(
            &prefix,
            "loss",
            &Tensor::new(result.statistics.read().unwrap().loss, &Device::Cpu).unwrap(),
        );
        golden.check(&prefix, "dq", &result.dq);
    }
}
