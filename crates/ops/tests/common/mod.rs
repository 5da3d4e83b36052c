//! Helpers for the tests of operations.

mod scattered;
mod statistics;

#[cfg(feature = "emulator")]
use candle_core::{DType, Tensor};

pub(crate) use self::{scattered::scattered, statistics::averages};

/// Fails unless all numbers differ by at most the tolerance, relative to 1 or to larger numbers; NaN
/// equals nothing.
#[cfg(feature = "emulator")]
pub(crate) fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let numbers = |x: &Tensor| -> Vec<f64> {
        x.to_dtype(DType::F64).and_then(|x| x.flatten_all()?.to_vec1()).unwrap()
    };
    for (i, (got, expected)) in numbers(got).into_iter().zip(numbers(expected)).enumerate() {
        let close = (got - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(close, "{what}, number {i}: {got}, expected {expected}");
    }
}
