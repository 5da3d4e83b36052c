//! How far a step moves both encoders' weights, from a sample of them.

use candle_core::{DType, Device, Tensor};
use serde::Serialize;

use crate::encoder_with_head::EncoderWithHead;
use crate::error::{During, MocoError};
use crate::mechanism::Mechanism;

/// Parameters that are looked at, spread evenly over the network, and numbers of each.
const N_TENSORS: usize = 16;
const N_NUMBERS: usize = 4096;
/// Two encoders closer than this differ by rounding.
const ROUNDING: f64 = 1e-6;

/// Distances between weights, each relative to the length of the query encoder's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WeightNumbers {
    /// ‖θ_q′ − θ_q‖ / ‖θ_q‖ of one step.
    pub query_drift: f64,
    /// ‖θ_k′ − θ_k‖ / ‖θ_q‖ of one step.
    pub key_drift: f64,
    /// ‖θ_q − θ_k‖ / ‖θ_q‖ before the step.
    pub encoder_distance: f64,
    /// The share of the way to the query encoder that the key encoder took, ‖θ_k′ − θ_k‖ / ‖θ_q − θ_k‖, which is
    /// 1 − m of Eq. (2); `None` where both are equal up to rounding.
    pub key_follows: Option<f64>,
    /// ‖θ_q′ − θ_q‖ / ‖θ_q‖ since the first look.
    pub query_moved: f64,
    /// ‖θ_k′ − θ_k‖ / ‖θ_q‖ since the first look.
    pub key_moved: f64,
}

impl WeightNumbers {
    /// From query and key encoder at the first look, before a step, and after it.
    pub(super) fn of_step(start: &[Sample; 2], before: &[Sample; 2], after: &[Sample; 2]) -> Self {
        let [q, k] = before;
        let length = q.length().max(f64::MIN_POSITIVE);
        let [query_drift, key_drift] = [0, 1].map(|i| after[i].distance(&before[i]) / length);
        let [query_moved, key_moved] = [0, 1].map(|i| after[i].distance(&start[i]) / length);
        let encoder_distance = q.distance(k) / length;
        let differ = encoder_distance > ROUNDING;
        Self {
            query_drift,
            key_drift,
            encoder_distance,
            key_follows: differ.then(|| key_drift / encoder_distance),
            query_moved,
            key_moved,
        }
    }
}

/// Numbers of some of an encoder's parameters.
#[derive(Debug, Clone)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    /// Of the query and the key encoder.
    pub(super) fn of_both(model: &dyn Mechanism) -> Result<[Self; 2], MocoError> {
        let [q, k] = model.encoders();
        Ok([Self::of(q)?, Self::of(k)?])
    }

    fn of(encoder: &EncoderWithHead) -> Result<Self, MocoError> {
        let parameters: Vec<&Tensor> = encoder
            .stores()
            .into_iter()
            .flat_map(|store| store.parameters())
            .map(|p| p.1)
            .collect();
        let n = parameters.len();
        let some = (0..n.min(N_TENSORS)).map(|i| parameters[i * n / n.min(N_TENSORS)]);
        let mut numbers = Vec::new();
        for parameter in some {
            let first = |x: &Tensor| {
                let x = x.to_device(&Device::Cpu)?.flatten_all()?;
                let x = x.narrow(0, 0, x.elem_count().min(N_NUMBERS))?;
                x.to_dtype(DType::F64)?.to_vec1::<f64>()
            };
            numbers.extend(first(parameter).during("looking at weights")?);
        }
        Ok(Self(numbers))
    }

    fn length(&self) -> f64 {
        self.0.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    fn distance(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_relative_to_the_query_encoder() {
        let sample = |x: f64, y: f64| Sample(vec![x, y]);
        let start = [sample(0.0, 4.0), sample(3.0, 0.0)];
        let before = [sample(3.0, 4.0), sample(3.0, 0.0)];
        let after = [sample(3.0, 5.0), sample(3.0, 1.0)];
        let got = WeightNumbers::of_step(&start, &before, &after);
        let expected = WeightNumbers {
            query_drift: 0.2,
            key_drift: 0.2,
            encoder_distance: 0.8,
            key_follows: Some(0.25),
            query_moved: 10.0_f64.sqrt() / 5.0,
            key_moved: 0.2,
        };
        assert_eq!(got, expected);
        let equal = [sample(3.0, 4.0), sample(3.0, 4.0 + 1e-7)];
        assert_eq!(WeightNumbers::of_step(&start, &equal, &after).key_follows, None);
    }
}
