//! Layer-wise adaptive rate scaling, for large batches.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use moco_params::{Gradients, ParamStore};

use crate::error::OptimError;
use crate::optimizer::{Momenta, Optimizer};

/// η, the trust coefficient (SimCLR's `EETA_DEFAULT`; MoCo v3's `trust_coefficient`).
const TRUST: f64 = 0.001;

/// Constants of the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LarsConfig {
    /// Momentum of the scaled gradient's running sum; 0.9 in SimCLR.
    pub sgd_momentum: f64,
    /// L2 penalty on the parameters that are scaled; 1e-6 in SimCLR.
    pub weight_decay: f64,
}

/// LARS (You et al. 2017) as SimCLR computes it (official `lars_optimizer.py`, `classic_momentum`): for each
/// parameter w with gradient g,
///
/// ```text
/// g ← g + weight_decay·w
/// r = 0.001·‖w‖/‖g‖, and 1 if either norm is 0
/// v ← sgd_momentum·v + lr·r·g
/// w ← w − v
/// ```
///
/// Parameters of one dimension, which are biases and the weights of norms, have no weight decay and r = 1:
/// SimCLR excludes them by name, MoCo v3 by this rule (official `moco-v3/moco/optimizer.py`).
///
/// Norms are summed in f64, each by one thread, so the bits do not depend on the number of threads. The
/// operations are candle's and [`moco_ops::sgd_`], on any device; a GPU cannot record them.
#[derive(Debug)]
pub struct Lars {
    config: LarsConfig,
    momenta: Momenta,
}

impl Lars {
    pub(crate) const NAME: &str = "lars";

    /// An optimizer for these parameters, with v = 0. Several stores are one network; their names must differ.
    ///
    /// # Errors
    /// If two parameters have one name or memory cannot be had.
    pub fn new(config: LarsConfig, stores: &[&ParamStore]) -> Result<Self, OptimError> {
        Ok(Self { config, momenta: Momenta::zeros(stores)? })
    }

    /// lr·r·g.
    fn scaled(&self, w: &Tensor, g: &Tensor, lr: &Tensor) -> candle_core::Result<Tensor> {
        if w.rank() <= 1 {
            return g.broadcast_mul(lr);
        }
        let g = (g + (w * self.config.weight_decay)?)?;
        let norm = |x: &Tensor| x.to_dtype(DType::F64)?.sqr()?.sum_all()?.sqrt();
        let (of_w, of_g) = (norm(w)?, norm(&g)?);
        let zero = of_w.zeros_like()?;
        let both = of_w.gt(&zero)?.mul(&of_g.gt(&zero)?)?;
        // Where a norm is 0, the quotient is not taken.
        let r = both.where_cond(&((of_w * TRUST)? / of_g)?, &zero.ones_like()?)?;
        let rate = lr.to_dtype(DType::F64)?.broadcast_mul(&r)?;
        g.broadcast_mul(&rate.to_dtype(w.dtype())?)
    }
}

impl Optimizer for Lars {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn step(
        &mut self,
        stores: &[&ParamStore],
        gradients: &Gradients,
        lr: &Tensor,
    ) -> Result<(), OptimError> {
        let mut updates = Vec::new();
        for slot in self.momenta.slots(stores, gradients)? {
            // A gradient that does not fit is refused as such, before anything is computed with it.
            slot.update(slot.gradient)?;
            let scaled = self.scaled(slot.parameter, slot.gradient, lr);
            updates.push(slot.update(&scaled.map_err(|error| slot.candle(error))?)?);
        }
        // SGD with the rate 1 and no decay: v ← sgd_momentum·v + scaled, w ← w − v.
        let one = lr.ones_like().map_err(OptimError::LearningRate)?;
        let constants = [self.config.sgd_momentum, 0.0];
        moco_ops::sgd_(&updates, &one, constants).map_err(OptimError::Update)
    }

    fn state(&self) -> &BTreeMap<String, Tensor> {
        &self.momenta.0
    }

    fn load<'a>(
        &mut self,
        value_of: &dyn Fn(&str) -> Option<&'a Tensor>,
    ) -> Result<(), OptimError> {
        self.momenta.load(value_of)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use moco_params::Role;

    use super::*;
    use crate::optimizer::learning_rate;

    /// f64 sums of a few numbers in another order.
    const TOLERANCE: f64 = 1e-14;

    fn tensor(values: &[f64], dims: &[usize]) -> Tensor {
        Tensor::from_vec(values.to_vec(), dims, &Device::Cpu).unwrap()
    }

    fn rate(lr: f64, dtype: DType) -> Tensor {
        learning_rate(lr, dtype, &Device::Cpu).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn store(parameters: &[(&str, &Tensor)]) -> ParamStore {
        let mut store = ParamStore::default();
        for (name, value) in parameters {
            store.insert(*name, value.copy().unwrap(), Role::Parameter).unwrap();
        }
        store
    }

    fn gradients(of: &[(&str, &Tensor)]) -> Gradients {
        of.iter().map(|(name, g)| ((*name).to_owned(), (*g).clone())).collect()
    }

    /// w = (3, 4), g = (0.6, 0.8): ‖w‖ = 5 and ‖g‖ = 1, so r = 0.005 and the step is 0.005·lr along g.
    #[test]
    fn the_first_step_is_the_closed_form() {
        let w = tensor(&[3.0, 4.0], &[1, 2]);
        let g = tensor(&[0.6, 0.8], &[1, 2]);
        let store = store(&[("w", &w)]);
        let config = LarsConfig { sgd_momentum: 0.9, weight_decay: 0.0 };
        let mut lars = Lars::new(config, &[&store]).unwrap();
        lars.step(&[&store], &gradients(&[("w", &g)]), &rate(2.0, DType::F64)).unwrap();
        let got = numbers(store.get("w").unwrap());
        assert!((got[0] - (3.0 - 0.01 * 0.6)).abs() < TOLERANCE, "{got:?}");
        assert!((got[1] - (4.0 - 0.01 * 0.8)).abs() < TOLERANCE, "{got:?}");
        // The same gradient again: r = 0.001·‖w‖, where w has become shorter by 0.01.
        lars.step(&[&store], &gradients(&[("w", &g)]), &rate(2.0, DType::F64)).unwrap();
        let moved = 0.01 + 0.9 * 0.01 + 0.002 * 4.99;
        let got = numbers(store.get("w").unwrap());
        assert!((got[0] - (3.0 - moved * 0.6)).abs() < TOLERANCE, "{got:?}");
    }

    /// The formula in loops, for one parameter of so many dimensions.
    fn reference(w: &mut [f64], v: &mut [f64], g: &[f64], lr: f64, rank: usize) {
        let is_excluded = rank == 1;
        let (momentum, decay) = (0.9, 0.05);
        let decayed: Vec<f64> =
            g.iter().zip(&*w).map(|(g, w)| if is_excluded { *g } else { g + decay * w }).collect();
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let (of_w, of_g) = (norm(w), norm(&decayed));
        let r = if is_excluded || of_w == 0.0 || of_g == 0.0 { 1.0 } else { 0.001 * of_w / of_g };
        for i in 0..w.len() {
            v[i] = momentum * v[i] + lr * r * decayed[i];
            w[i] -= v[i];
        }
    }

    #[test]
    fn five_steps_are_those_of_the_formula_with_norms_and_biases_left_out() {
        let wave = |len: usize, by: f64| -> Vec<f64> {
            (0..len).map(|i| (i as f64 * by + 0.3).sin()).collect()
        };
        let shapes: [(&str, &[usize]); 4] = [
            ("conv.weight", &[4, 3, 3, 3]),
            ("fc.weight", &[5, 7]),
            ("fc.bias", &[5]),
            ("bn.weight", &[4]),
        ];
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
            let len = |dims: &[usize]| dims.iter().product::<usize>();
            let start: Vec<Tensor> = shapes
                .iter()
                .map(|(_, dims)| tensor(&wave(len(dims), 0.7), dims).to_dtype(dtype).unwrap())
                .collect();
            let named: Vec<(&str, &Tensor)> =
                shapes.iter().zip(&start).map(|((name, _), value)| (*name, value)).collect();
            let store = store(&named);
            let config = LarsConfig { sgd_momentum: 0.9, weight_decay: 0.05 };
            let mut lars = Lars::new(config, &[&store]).unwrap();
            let mut w: Vec<Vec<f64>> = start.iter().map(numbers).collect();
            let mut v: Vec<Vec<f64>> = w.iter().map(|w| vec![0.0; w.len()]).collect();
            for step in 1..=5 {
                let lr = 3.0 / f64::from(step);
                let by = 1.1 * f64::from(step);
                let of: Vec<Tensor> = shapes
                    .iter()
                    .map(|(_, dims)| tensor(&wave(len(dims), by), dims).to_dtype(dtype).unwrap())
                    .collect();
                let named: Vec<(&str, &Tensor)> =
                    shapes.iter().zip(&of).map(|((name, _), g)| (*name, g)).collect();
                lars.step(&[&store], &gradients(&named), &rate(lr, dtype)).unwrap();
                for (i, (_, dims)) in shapes.iter().enumerate() {
                    reference(&mut w[i], &mut v[i], &numbers(&of[i]), lr, dims.len());
                }
            }
            for (i, (name, _)) in shapes.iter().enumerate() {
                for (got, expected) in
                    [(store.get(name).unwrap(), &w[i]), (&lars.state()[*name], &v[i])]
                {
                    let got = numbers(got);
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() < tolerance * b.abs().max(1.0);
                    let close = got.iter().zip(expected).all(near);
                    assert!(close, "{name} {dtype:?}: {got:?} {expected:?}");
                }
            }
        }
    }

    /// r = 1 where a norm is 0: a weight of zeros moves by lr·g, and a gradient of zeros moves nothing.
    #[test]
    fn zero_norms_have_the_ratio_one() {
        let zeros = tensor(&[0.0; 4], &[2, 2]);
        let ones = tensor(&[1.0; 4], &[2, 2]);
        let store = store(&[("a", &zeros), ("b", &ones), ("c", &zeros)]);
        let config = LarsConfig { sgd_momentum: 0.9, weight_decay: 0.0 };
        let mut lars = Lars::new(config, &[&store]).unwrap();
        let of = gradients(&[("a", &ones), ("b", &zeros), ("c", &zeros)]);
        lars.step(&[&store], &of, &rate(0.5, DType::F64)).unwrap();
        for (name, expected) in [("a", -0.5), ("b", 1.0), ("c", 0.0)] {
            assert_eq!(numbers(store.get(name).unwrap()), [expected; 4], "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_updated() {
        let w = tensor(&[1.0, 2.0], &[1, 2]);
        let store = store(&[("a", &w), ("b", &w)]);
        let config = LarsConfig { sgd_momentum: 0.9, weight_decay: 0.1 };
        let mut lars = Lars::new(config, &[&store]).unwrap();
        let mut fails = |of: &[(&str, &Tensor)]| {
            lars.step(&[&store], &gradients(of), &rate(1.0, DType::F64)).unwrap_err().to_string()
        };
        assert_eq!(fails(&[("a", &w)]), "parameter `b` has no gradient");
        let turned = tensor(&[1.0, 2.0], &[2, 1]);
        let expected = "parameter `b`: sgd: `gradient` has shape [2, 1], expected [1, 2]";
        assert_eq!(fails(&[("a", &w), ("b", &turned)]), expected);
        assert_eq!(numbers(store.get("a").unwrap()), [1.0, 2.0]);
        assert_eq!(lars.load(&|_| None).unwrap_err().to_string(), "no tensor named `a`");
    }
}
