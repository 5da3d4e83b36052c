//! Every op against its definition and its gradients against the definition of a gradient, in f64, on odd
//! sizes, batches of one and tensors that are strided views.

use candle_core::{DType, Device, Tensor};
use moco_ops::{
    After, BatchNorm, BatchNormGradients, Conv2dSpec, InfoNce, OpError, batch_norm_backward,
    batch_norm_eval, batch_norm_eval_backward, batch_norm_train, conv2d, conv2d_input_gradient,
    conv2d_weight_gradient, global_average_pool, global_average_pool_backward, info_nce,
    l2_normalize, l2_normalize_backward, linear, linear_backward, max_pool, max_pool_backward,
    relu, relu_backward,
};
use moco_rng::{At, Purpose, Seed};

use crate::common::averages;

fn random(index: u64, dims: &[usize]) -> Tensor {
    let mut stream = Seed(11).stream(Purpose::Init, At::index(index));
    let numbers: Vec<f64> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| a * b).sum()
}

#[track_caller]
fn assert_close(what: &str, got: f64, expected: f64, tolerance: f64) {
    let scale = expected.abs().max(1e-3);
    assert!((got - expected).abs() <= tolerance * scale, "{what}: {got} instead of {expected}");
}

/// Compares a gradient with central differences of `loss` along random directions and single axes.
#[track_caller]
fn check_gradient(what: &str, x: &Tensor, gradient: &Tensor, loss: impl Fn(&Tensor) -> f64) {
    const STEP: f64 = 1e-5;
    const TOLERANCE: f64 = 1e-6;
    assert_eq!(x.dims(), gradient.dims(), "{what}");
    let mut directions: Vec<Tensor> = (0..4).map(|i| random(900 + i, x.dims())).collect();
    for axis in [0, x.elem_count() / 2, x.elem_count() - 1] {
        let mut unit = vec![0.0; x.elem_count()];
        unit[axis] = 1.0;
        directions.push(Tensor::from_vec(unit, x.dims(), &Device::Cpu).unwrap());
    }
    for direction in directions {
        let at = |step: f64| loss(&(x + (&direction * step).unwrap()).unwrap());
        let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert_close(what, dot(gradient, &direction), expected, TOLERANCE);
    }
}

/// The definition of a convolution, one output at a time.
fn naive_conv(x: &Tensor, w: &Tensor, spec: Conv2dSpec) -> Vec<f64> {
    let (n, c, h, width) = x.dims4().unwrap();
    let (co, cg, k, _) = w.dims4().unwrap();
    let (xs, ws) = (numbers(x), numbers(w));
    let out =
        |size: usize| (size + 2 * spec.padding - spec.dilation * (k - 1) - 1) / spec.stride + 1;
    let mut y = Vec::new();
    for (n, o) in (0..n).flat_map(|n| (0..co).map(move |o| (n, o))) {
        for (oy, ox) in (0..out(h)).flat_map(|y| (0..out(width)).map(move |x| (y, x))) {
            let mut sum = 0.0;
            for (i, (ky, kx)) in
                (0..cg).flat_map(|i| (0..k * k).map(move |tap| (i, (tap / k, tap % k))))
            {
                let y = (oy * spec.stride + ky * spec.dilation).checked_sub(spec.padding);
                let x = (ox * spec.stride + kx * spec.dilation).checked_sub(spec.padding);
                if let (Some(y), Some(x)) = (y.filter(|y| *y < h), x.filter(|x| *x < width)) {
                    let channel = o / (co / spec.groups) * cg + i;
                    let weight = ws[((o * cg + i) * k + ky) * k + kx];
                    sum += xs[((n * c + channel) * h + y) * width + x] * weight;
                }
            }
            y.push(sum);
        }
    }
    y
}

const CONVOLUTIONS: [([usize; 4], usize, usize, Conv2dSpec); 13] = [
    ([2, 3, 7, 5], 4, 3, Conv2dSpec { stride: 1, padding: 1, dilation: 1, groups: 1 }),
    ([1, 1, 1, 1], 1, 1, Conv2dSpec { stride: 1, padding: 0, dilation: 1, groups: 1 }),
    ([3, 5, 6, 7], 17, 1, Conv2dSpec { stride: 1, padding: 0, dilation: 1, groups: 1 }),
    ([2, 4, 7, 8], 33, 1, Conv2dSpec { stride: 2, padding: 0, dilation: 1, groups: 1 }),
    ([1, 16, 9, 9], 32, 3, Conv2dSpec { stride: 2, padding: 1, dilation: 1, groups: 1 }),
    ([2, 3, 23, 19], 8, 7, Conv2dSpec { stride: 2, padding: 3, dilation: 1, groups: 1 }),
    ([2, 8, 5, 6], 12, 3, Conv2dSpec { stride: 1, padding: 1, dilation: 1, groups: 4 }),
    ([1, 6, 7, 7], 6, 3, Conv2dSpec { stride: 2, padding: 1, dilation: 1, groups: 2 }),
    ([2, 3, 9, 8], 5, 3, Conv2dSpec { stride: 1, padding: 2, dilation: 2, groups: 1 }),
    ([1, 4, 11, 9], 6, 3, Conv2dSpec { stride: 3, padding: 1, dilation: 2, groups: 2 }),
    ([2, 70, 3, 3], 130, 3, Conv2dSpec { stride: 1, padding: 1, dilation: 1, groups: 1 }),
    ([1, 3, 5, 5], 2, 5, Conv2dSpec { stride: 1, padding: 4, dilation: 1, groups: 1 }),
    ([9, 2, 4, 4], 3, 2, Conv2dSpec { stride: 2, padding: 0, dilation: 1, groups: 1 }),
];

#[test]
fn convolution_is_its_definition_and_its_gradients_are_its_adjoints() {
    for (i, (dims, co, k, spec)) in CONVOLUTIONS.into_iter().enumerate() {
        let x = random(1, &dims);
        let w = random(2, &[co, dims[1] / spec.groups, k, k]);
        let y = conv2d(&x, &w, spec).unwrap();
        for (got, expected) in numbers(&y).iter().zip(naive_conv(&x, &w, spec)) {
            assert!((got - expected).abs() < 1e-11, "case {i}: {got} instead of {expected}");
        }
        // The output is linear in x and in w, so both gradients are fixed by these identities.
        let dy = random(3, y.dims());
        let dx = conv2d_input_gradient(x.dims(), &w, &dy, spec).unwrap();
        let dw = conv2d_weight_gradient(&x, w.dims(), &dy, spec).unwrap();
        for (j, (x2, w2)) in
            [(random(4, x.dims()), &w), (x.clone(), &random(5, w.dims()))].into_iter().enumerate()
        {
            let expected = dot(&dy, &conv2d(&x2, w2, spec).unwrap());
            let got = if j == 0 { dot(&dx, &x2) } else { dot(&dw, w2) };
            assert_close(&format!("case {i}, gradient {j}"), got, expected, 1e-10);
        }
    }
}

#[test]
fn a_strided_view_gives_the_same_bits_as_its_copy() {
    let x = random(1, &[5, 6, 3, 2]).permute((3, 2, 1, 0)).unwrap();
    let w = random(2, &[3, 3, 3, 4]).permute((3, 0, 1, 2)).unwrap();
    let spec = Conv2dSpec::new(1, 1);
    let copied = conv2d(&x.contiguous().unwrap(), &w.contiguous().unwrap(), spec).unwrap();
    assert_eq!(numbers(&conv2d(&x, &w, spec).unwrap()), numbers(&copied));
    assert_eq!(
        numbers(&max_pool(&x).unwrap().y),
        numbers(&max_pool(&x.contiguous().unwrap()).unwrap().y)
    );
}

#[test]
fn f32_agrees_with_f64() {
    let spec = Conv2dSpec::new(2, 1);
    let (x, w) = (random(1, &[3, 40, 9, 9]), random(2, &[50, 40, 3, 3]));
    let single = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
    let exact = numbers(&conv2d(&x, &w, spec).unwrap());
    let y = conv2d(&single(&x), &single(&w), spec).unwrap().to_dtype(DType::F64).unwrap();
    let error: f64 = numbers(&y).iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = exact.iter().map(|v| v * v).sum();
    assert!((error / norm).sqrt() < 1e-6, "relative error {}", (error / norm).sqrt());
}

#[test]
fn batch_norm_gradients() {
    let (gamma, beta) = (random(1, &[19]), random(2, &[19]));
    for (n, groups) in [(1, 1), (4, 2), (6, 3)] {
        let dims = [n, 19, 3, 5];
        let (x, added, dy) = (random(3, &dims), random(4, &dims), random(5, &dims));
        for after in [After::Nothing, After::Relu, After::AddRelu(&added)] {
            fn bn<'a>(gamma: &'a Tensor, beta: &'a Tensor, groups: usize) -> BatchNorm<'a> {
                BatchNorm { gamma, beta, eps: 1e-5, groups }
            }
            let loss = |x: &Tensor, gamma: &Tensor, beta: &Tensor, after: After<'_>| {
                dot(&dy, &batch_norm_train(x, bn(gamma, beta, groups), after).unwrap().0)
            };
            let (y, saved) = batch_norm_train(&x, bn(&gamma, &beta, groups), after).unwrap();
            let g =
                batch_norm_backward(&x, &y, &dy, bn(&gamma, &beta, groups), &saved, after).unwrap();
            let what = format!("groups {groups}, {after:?}");
            check_batch_norm(&what, [&x, &gamma, &beta], after, g, loss);
        }
    }
}

/// Compares every gradient of a batch norm of x, γ and β with the differences of `loss`.
#[track_caller]
fn check_batch_norm(
    what: &str,
    [x, gamma, beta]: [&Tensor; 3],
    after: After<'_>,
    g: BatchNormGradients,
    loss: impl Fn(&Tensor, &Tensor, &Tensor, After<'_>) -> f64,
) {
    check_gradient(what, x, &g.x, |x| loss(x, gamma, beta, after));
    check_gradient(what, gamma, &g.gamma, |gamma| loss(x, gamma, beta, after));
    check_gradient(what, beta, &g.beta, |beta| loss(x, gamma, beta, after));
    match (after, g.added) {
        (After::AddRelu(added), Some(g)) => {
            let loss = |added: &Tensor| loss(x, gamma, beta, After::AddRelu(added));
            check_gradient(what, added, &g, loss);
        }
        (_, added) => assert!(added.is_none(), "{what}"),
    }
}

/// With running statistics that are not those of the batch; they are read and not changed.
#[test]
fn batch_norm_gradients_in_evaluation_mode() {
    let (gamma, beta, mean) = (random(1, &[19]), random(2, &[19]), random(6, &[19]));
    let var = (random(7, &[19]).sqr().unwrap() + 0.5).unwrap();
    let before = [numbers(&mean), numbers(&var)];
    let dims = [3, 19, 3, 5];
    let (x, added, dy) = (random(3, &dims), random(4, &dims), random(5, &dims));
    for after in [After::Nothing, After::Relu, After::AddRelu(&added)] {
        // `groups` is not looked at.
        fn bn<'a>(gamma: &'a Tensor, beta: &'a Tensor) -> BatchNorm<'a> {
            BatchNorm { gamma, beta, eps: 1e-5, groups: 2 }
        }
        let eval = |x: &Tensor, gamma: &Tensor, beta: &Tensor, after: After<'_>| {
            batch_norm_eval(x, bn(gamma, beta), &mean, &var, after).unwrap()
        };
        let loss = |x: &Tensor, gamma: &Tensor, beta: &Tensor, after: After<'_>| {
            dot(&dy, &eval(x, gamma, beta, after))
        };
        let y = eval(&x, &gamma, &beta, after);
        let (tensors, running) = ([&x, &y, &dy], [&mean, &var]);
        let g = batch_norm_eval_backward(tensors, bn(&gamma, &beta), running, after).unwrap();
        let what = format!("evaluation, {after:?}");
        check_batch_norm(&what, [&x, &gamma, &beta], after, g, loss);
    }
    assert_eq!([numbers(&mean), numbers(&var)], before);
    let (short, after) = (random(6, &[18]), After::Nothing);
    let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups: 1 };
    let error = batch_norm_eval_backward([&x, &x, &dy], bn, [&mean, &short], after).unwrap_err();
    assert_eq!(error.to_string(), "batch_norm: `running_var` has shape [18], expected [19]");
}

#[test]
fn batch_norm_normalizes_each_group_alone() {
    let (ones, zeros) = (Tensor::ones(3, DType::F64, &Device::Cpu).unwrap(), random(0, &[3]));
    let zeros = (zeros * 0.0).unwrap();
    let bn = BatchNorm { gamma: &ones, beta: &zeros, eps: 0.0, groups: 2 };
    let x = random(1, &[4, 3, 5, 5]);
    let (y, saved) = batch_norm_train(&x, bn, After::Nothing).unwrap();
    let first = averages(&saved, 3, 1);
    let both = averages(&saved, 3, 2);
    for group in 0..2 {
        let part = y.narrow(0, group * 2, 2).unwrap();
        for channel in 0..3 {
            // The second group's are what is left of the average of both.
            let [mean, variance] = [0, 1].map(|i| match group {
                0 => first[i][channel],
                _ => 2.0 * both[i][channel] - first[i][channel],
            });
            let values = numbers(&part.narrow(1, channel, 1).unwrap());
            let sum: f64 = values.iter().sum();
            let squares: f64 = values.iter().map(|v| v * v).sum();
            assert!(sum.abs() < 1e-10 && (squares / 50.0 - 1.0).abs() < 1e-10);
            let of_x = numbers(&x.narrow(0, group * 2, 2).unwrap().narrow(1, channel, 1).unwrap());
            let expected = of_x.iter().sum::<f64>() / 50.0;
            let spread = of_x.iter().map(|v| (v - expected).powi(2)).sum::<f64>() / 49.0;
            assert_close("mean", mean, expected, 1e-9);
            assert_close("unbiased variance", variance, spread, 1e-10);
        }
    }
}

#[test]
fn batch_norm_statistics_hold_up_in_f32_with_a_large_offset() {
    let x = (random(1, &[8, 2, 33, 31]) + 1000.0).unwrap();
    let one = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
    let bn = BatchNorm { gamma: &one, beta: &one, eps: 1e-5, groups: 1 };
    let single = x.to_dtype(DType::F32).unwrap();
    let (_, saved) = batch_norm_train(&single, bn, After::Nothing).unwrap();
    let exact = single.to_dtype(DType::F64).unwrap();
    let [means, variances] = averages(&saved, 2, 1);
    for (channel, (mean, variance)) in means.into_iter().zip(variances).enumerate() {
        let values = numbers(&exact.narrow(1, channel, 1).unwrap());
        let n = 8.0 * 33.0 * 31.0;
        let expected = values.iter().sum::<f64>() / n;
        let spread = values.iter().map(|v| (v - expected).powi(2)).sum::<f64>() / (n - 1.0);
        assert_close("mean", mean, expected, 1e-9);
        assert_close("variance", variance, spread, 1e-5);
    }
}

#[test]
fn batch_norm_in_evaluation_uses_the_running_statistics() {
    let x = random(1, &[2, 3, 2, 2]);
    let vector = |values: [f64; 3]| Tensor::new(&values, &Device::Cpu).unwrap();
    let (gamma, beta) = (vector([1.0, 2.0, -1.0]), vector([0.5, 0.0, 1.0]));
    let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups: 7 };
    let (mean, var) = (vector([0.1, 0.2, 0.3]), vector([1.0, 4.0, 0.25]));
    let y = numbers(&batch_norm_eval(&x, bn, &mean, &var, After::Nothing).unwrap());
    for (i, (y, x)) in y.iter().zip(numbers(&x)).enumerate() {
        let c = i / 4 % 3;
        let [g, b, m, v] = [&gamma, &beta, &mean, &var].map(|t| numbers(t)[c]);
        assert_close("value", *y, (x - m) / (v + 1e-5).sqrt() * g + b, 1e-12);
    }
}

#[test]
fn pooling() {
    for dims in [[2, 3, 7, 6], [1, 17, 1, 1], [1, 2, 4, 9]] {
        let x = random(1, &dims);
        let pooled = max_pool(&x).unwrap();
        let dy = random(2, pooled.y.dims());
        let dx = max_pool_backward(&pooled, &dims, &dy).unwrap();
        check_gradient("max pool", &x, &dx, |x| dot(&dy, &max_pool(x).unwrap().y));
        let dy = random(3, &dims[..2]);
        let dx = global_average_pool_backward(&dims, &dy, DType::F64).unwrap();
        check_gradient("average", &x, &dx, |x| dot(&dy, &global_average_pool(x).unwrap()));
    }
    // Ties: the first in row-major order gets the whole gradient.
    let x = Tensor::ones((1, 1, 2, 2), DType::F64, &Device::Cpu).unwrap();
    let pooled = max_pool(&x).unwrap();
    let dy = (Tensor::ones((1, 1, 1, 1), DType::F64, &Device::Cpu).unwrap() * 3.0).unwrap();
    let dx = max_pool_backward(&pooled, x.dims(), &dy).unwrap();
    assert_eq!(numbers(&dx), [3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn linear_relu_and_normalize() {
    let (x, w, b) = (random(1, &[5, 7]), random(2, &[3, 7]), random(3, &[3]));
    let dy = random(4, &[5, 3]);
    let g = linear_backward(&x, &w, &dy).unwrap();
    check_gradient("linear x", &x, &g.x, |x| dot(&dy, &linear(x, &w, &b).unwrap()));
    check_gradient("linear w", &w, &g.weight, |w| dot(&dy, &linear(&x, w, &b).unwrap()));
    check_gradient("linear b", &b, &g.bias, |b| dot(&dy, &linear(&x, &w, b).unwrap()));

    let x = Tensor::new(&[-1.0_f64, 0.0, 2.0], &Device::Cpu).unwrap();
    let dy = Tensor::new(&[5.0_f64, 6.0, 7.0], &Device::Cpu).unwrap();
    assert_eq!(numbers(&relu_backward(&relu(&x).unwrap(), &dy).unwrap()), [0.0, 0.0, 7.0]);
    let nan = Tensor::new(&[f64::NAN, -1.0], &Device::Cpu).unwrap();
    assert!(numbers(&relu(&nan).unwrap())[0].is_nan(), "a NaN must reach the loss");
    let one = Tensor::ones(1, DType::F64, &Device::Cpu).unwrap();
    let bn = BatchNorm { gamma: &one, beta: &one, eps: 1e-5, groups: 1 };
    let nan = Tensor::new(&[f64::NAN, -1.0, 1.0], &Device::Cpu).unwrap().reshape((3, 1, 1, 1));
    let (y, _) = batch_norm_train(&nan.unwrap(), bn, After::Relu).unwrap();
    assert!(numbers(&y)[0].is_nan());

    let (x, dy) = (random(5, &[4, 9]), random(6, &[4, 9]));
    let y = l2_normalize(&x).unwrap();
    for row in numbers(&y).chunks(9) {
        assert_close("norm", row.iter().map(|v| v * v).sum(), 1.0, 1e-14);
    }
    let dx = l2_normalize_backward(&x, &dy).unwrap();
    check_gradient("normalize", &x, &dx, |x| dot(&dy, &l2_normalize(x).unwrap()));
    let zeros = (&x * 0.0).unwrap();
    assert!(numbers(&l2_normalize(&zeros).unwrap()).iter().all(|v| *v == 0.0));
    assert!(numbers(&l2_normalize_backward(&zeros, &dy).unwrap()).iter().all(|v| v.is_finite()));
}

/// The dense form: cross entropy of all 1 + K logits.
fn dense_loss(q: &Tensor, k: &Tensor, queue: &Tensor, temperature: f64) -> f64 {
    let positive = (q * k).unwrap().sum_keepdim(1).unwrap();
    let logits = Tensor::cat(&[&positive, &q.matmul(queue).unwrap()], 1).unwrap();
    let logits = (logits / temperature).unwrap();
    let of_row = |row: &[f64]| row.iter().map(|l| (l - row[0]).exp()).sum::<f64>().ln();
    let rows = logits.to_vec2::<f64>().unwrap();
    rows.iter().map(|row| of_row(row)).sum::<f64>() / rows.len() as f64
}

#[test]
fn info_nce_is_the_dense_cross_entropy() {
    for (n, n_negatives, temperature) in [(3, 10, 0.2), (1, 1, 0.07), (5, 9000, 0.1)] {
        let q = l2_normalize(&random(1, &[n, 16])).unwrap();
        let k = l2_normalize(&random(2, &[n, 16])).unwrap();
        let queue = l2_normalize(&random(3, &[n_negatives, 16])).unwrap().t().unwrap();
        let InfoNce { dq, statistics } = info_nce(&q, &k, &queue, temperature).unwrap();
        let result = statistics.read().unwrap();
        assert_close("loss", result.loss, dense_loss(&q, &k, &queue, temperature), 1e-12);
        check_gradient("dq", &q, &dq, |q| dense_loss(q, &k, &queue, temperature));
        let cosines = q.matmul(&queue).unwrap().to_vec2::<f64>().unwrap();
        for ((row, q), (k, positive_rank)) in cosines
            .iter()
            .zip(q.to_vec2::<f64>().unwrap())
            .zip(k.to_vec2::<f64>().unwrap().iter().zip(&result.positive_rank))
        {
            let positive: f64 = q.iter().zip(k).map(|(a, b)| a * b).sum();
            let expected = row.iter().filter(|c| **c >= positive).count();
            assert_eq!(*positive_rank as usize, expected);
        }
    }
}

#[test]
fn info_nce_oracles() {
    let one = |n: usize| {
        let mut v = vec![0.0; n * 4];
        v.iter_mut().step_by(4).for_each(|x| *x = 1.0);
        Tensor::from_vec(v, (n, 4), &Device::Cpu).unwrap()
    };
    // All features equal, the collapse: ln(K + 1), and no query is counted as right.
    let statistics = |q: &Tensor, k: &Tensor, queue: &Tensor, temperature| {
        info_nce(q, k, queue, temperature).unwrap().statistics.read().unwrap()
    };
    let collapsed = statistics(&one(3), &one(3), &one(64).t().unwrap(), 0.07);
    assert_close("collapse", collapsed.loss, 65.0_f64.ln(), 1e-12);
    assert!(collapsed.positive_rank.iter().all(|rank| *rank == 64));
    // Positive cosine 1, negatives orthogonal: ln(1 + K·exp(−1/τ)).
    let orthogonal = Tensor::from_vec([0.0, 1.0, 0.0, 0.0].repeat(64), (64, 4), &Device::Cpu);
    let queue = orthogonal.unwrap().t().unwrap();
    let perfect = statistics(&one(2), &one(2), &queue, 0.2);
    assert_close("perfect", perfect.loss, (1.0 + 64.0 * (-5.0_f64).exp()).ln(), 1e-12);
    assert_eq!(perfect.positive_rank, [0, 0]);
    assert_close("positive", perfect.positive_cosine, 1.0, 1e-12);
    assert!(perfect.negative_cosine.abs() < 1e-12);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let single = |i, dims: &[usize]| random(i, dims).to_dtype(DType::F32).unwrap();
            let (x, w) = (single(1, &[6, 20, 9, 9]), single(2, &[24, 20, 3, 3]));
            let spec = Conv2dSpec::new(1, 1);
            let y = conv2d(&x, &w, spec).unwrap();
            let (gamma, beta) = (single(3, &[24]), single(4, &[24]));
            let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: 1e-5, groups: 2 };
            let (z, saved) = batch_norm_train(&y, bn, After::Relu).unwrap();
            let g = batch_norm_backward(&y, &z, &z, bn, &saved, After::Relu).unwrap();
            let dx = conv2d_input_gradient(x.dims(), &w, &g.x, spec).unwrap();
            let dw = conv2d_weight_gradient(&x, w.dims(), &g.x, spec).unwrap();
            let q = l2_normalize(&global_average_pool(&z).unwrap()).unwrap();
            let queue = single(5, &[24, 5000]);
            let dq = info_nce(&q, &q, &queue, 0.2).unwrap().dq;
            [z, g.x, g.gamma, dx, dw, dq]
                .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        })
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(5));
}

#[test]
fn wrong_arguments_are_named() {
    let x = random(1, &[2, 3, 4, 4]);
    let message = |result: Result<Tensor, OpError>| result.unwrap_err().to_string();
    let spec = Conv2dSpec::new(1, 0);
    let cases = [
        (
            message(conv2d(&x, &random(2, &[4, 2, 3, 3]), spec)),
            "conv2d: `weight` has shape [4, 2, 3, 3], expected [C_out, 3, K, K]",
        ),
        (
            message(conv2d(&x, &random(2, &[4, 3, 5, 5]), spec)),
            "conv2d: `x` has shape [2, 3, 4, 4], expected images of at least 5 pixels a side",
        ),
        (
            message(conv2d(&x.to_dtype(DType::U8).unwrap(), &random(2, &[4, 3, 3, 3]), spec)),
            "`x` is U8, expected f32 or f64",
        ),
        (message(l2_normalize(&x)), "expected two dimensions"),
        (
            message(
                info_nce(&random(1, &[2, 3]), &random(2, &[2, 3]), &random(3, &[3, 4]), 0.0)
                    .map(|r| r.dq),
            ),
            "info_nce: `temperature` = 0, expected a positive number",
        ),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got}");
    }
    let one = random(1, &[3]);
    let bn = BatchNorm { gamma: &one, beta: &one, eps: 1e-5, groups: 2 };
    let error = batch_norm_train(&random(1, &[3, 3, 2, 2]), bn, After::Nothing).unwrap_err();
    assert!(error.to_string().contains("a batch that 2 groups divide"), "{error}");
    let error = batch_norm_train(&random(1, &[2, 3, 1, 1]), bn, After::Nothing).unwrap_err();
    assert!(error.to_string().contains("more than one value per channel"), "{error}");
}
