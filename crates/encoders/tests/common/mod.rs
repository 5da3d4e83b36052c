//! Random tensors, and derivatives by differences.

use candle_core::{Device, Tensor};
use moco_encoders::{Encoder, Mode};
use moco_rng::{At, Purpose, Seed};

pub(crate) fn random(index: u64, dims: &[usize]) -> Tensor {
    let mut stream = Seed(3).stream(Purpose::Augment, At::index(index));
    let numbers: Vec<f64> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
}

pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    norm(&(a - b).unwrap()) / norm(b).max(1e-12)
}

/// Compares a parameter's gradient, for the gradient `dy` of the features, with central differences of
/// `step` along a random direction.
#[track_caller]
pub(crate) fn check_differences(
    encoder: &mut dyn Encoder,
    (images, dy): (&Tensor, &Tensor),
    (name, gradient): (&str, &Tensor),
    (step, tolerance): (f64, f64),
) {
    let original = encoder.params().get(name).unwrap().clone();
    let direction = random(3, original.dims());
    let mut loss = |step: f64| {
        let moved = (&original + (&direction * step).unwrap()).unwrap();
        encoder.params_mut().set(name, &moved).unwrap();
        let features = encoder.features(images, Mode::Train).unwrap();
        (features * dy).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let expected = (loss(step) - loss(-step)) / (2.0 * step);
    loss(0.0);
    let along = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    assert!(
        (along - expected).abs() < tolerance * expected.abs().max(1.0),
        "{name}: {along} {expected}"
    );
}
