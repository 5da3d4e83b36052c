//! What a device computed, compared with the CPU.

use anyhow::bail;
use candle_core::{DType, Device, Tensor};

/// A tensor's numbers in their logical order.
fn numbers(x: &Tensor) -> anyhow::Result<Vec<f64>> {
    let x = x.to_device(&Device::Cpu)?;
    Ok(x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Compares tensors by their names. Gives the largest difference, relative to 1 or to larger numbers.
///
/// # Errors
/// If one differs by more than the tolerance; NaN equals only NaN.
pub(super) fn all(
    got: &[(&'static str, Tensor)],
    expected: &[(&'static str, Tensor)],
    tolerance: f64,
) -> anyhow::Result<f64> {
    let mut worst = 0.0_f64;
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        if got.dims() != expected.dims() {
            bail!("{name} has shape {:?}, expected {:?}", got.dims(), expected.dims());
        }
        worst = worst.max(one(name, got, expected, tolerance)?);
    }
    Ok(worst)
}

fn one(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) -> anyhow::Result<f64> {
    let dims = got.dims();
    let (got, expected) = (numbers(got)?, numbers(expected)?);
    let error = |i: usize| {
        let (got, expected) = (got[i], expected[i]);
        if got.is_nan() && expected.is_nan() {
            0.0
        } else {
            (got - expected).abs() / expected.abs().max(1.0)
        }
    };
    // NaN, which is no number, is wrong and the worst.
    let is_wrong = |i: &usize| error(*i).is_nan() || error(*i) > tolerance;
    let rank = |error: f64| if error.is_nan() { f64::INFINITY } else { error };
    let worst = (0..got.len()).max_by(|a, b| rank(error(*a)).total_cmp(&rank(error(*b))));
    let Some(worst) = worst else { return Ok(0.0) };
    let Some(first) = (0..got.len()).find(is_wrong) else { return Ok(error(worst)) };
    let n_wrong = (0..got.len()).filter(is_wrong).count();
    let described = |i: usize| format!("{:?}: {} and not {}", place(i, dims), got[i], expected[i]);
    bail!(
        "{name} {dims:?}: {n_wrong} of {} numbers differ by more than {tolerance:e}; first at {}; worst at {}",
        got.len(),
        described(first),
        described(worst)
    );
}

/// The index of a number in each dimension.
fn place(number: usize, dims: &[usize]) -> Vec<usize> {
    let mut rest = number;
    let mut place: Vec<usize> = dims
        .iter()
        .rev()
        .map(|size| {
            let index = rest % size;
            rest /= size;
            index
        })
        .collect();
    place.reverse();
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_first_and_worst() {
        let of = |numbers: &[f32; 6]| {
            vec![("y", Tensor::from_slice(numbers, (2, 3), &Device::Cpu).unwrap())]
        };
        let expected = of(&[0.0, 1.0, 2.0, 3.0, 4.0, f32::NAN]);
        assert_eq!(all(&expected, &expected, 0.0).unwrap(), 0.0);
        let near = of(&[0.0, 1.0, 2.5, 3.0, 4.0, f32::NAN]);
        assert_eq!(all(&near, &expected, 0.25).unwrap(), 0.25);
        let error = all(&of(&[0.5, 1.0, 2.0, 3.0, 8.0, f32::NAN]), &expected, 0.25).unwrap_err();
        let message = "y [2, 3]: 2 of 6 numbers differ by more than 2.5e-1; first at [0, 0]: 0.5 and not 0; \
                    worst at [1, 1]: 8 and not 4";
        assert_eq!(error.to_string(), message);
        let error =
            all(&of(&[0.0, f32::NAN, 2.0, 3.0, 4.0, 1.0]), &expected, 9.0).unwrap_err().to_string();
        assert!(
            error.contains("2 of 6") && error.contains("first at [0, 1]: NaN and not 1"),
            "{error}"
        );
        let other = vec![("y", Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())];
        let error = all(&other, &expected, 1.0).unwrap_err().to_string();
        assert_eq!(error, "y has shape [3], expected [2, 3]");
    }
}
