//! The ranges that values can have.

use crate::complaint::Complaint;

/// The conditions are written so that NaN breaks each of them.
fn number(
    key: &str,
    value: f64,
    rule: &str,
    holds: impl Fn(f64) -> bool,
) -> Result<f64, Complaint> {
    if value.is_finite() && holds(value) {
        Ok(value)
    } else {
        Err(Complaint::value(key, format!("{key} must be {rule}, got {value}")))
    }
}

pub(crate) fn above_zero(key: &str, value: f64) -> Result<f64, Complaint> {
    number(key, value, "greater than 0", |value| value > 0.0)
}

pub(crate) fn not_negative(key: &str, value: f64) -> Result<f64, Complaint> {
    number(key, value, "0 or more", |value| value >= 0.0)
}

pub(crate) fn within_zero_one(key: &str, value: f64) -> Result<f64, Complaint> {
    number(key, value, "from 0 to 1", |value| (0.0..=1.0).contains(&value))
}

/// Of SGD, whose sum of gradients never ends at momentum 1.
pub(crate) fn momentum(key: &str, value: f64) -> Result<f64, Complaint> {
    number(key, value, "from 0 to less than 1", |value| (0.0..1.0).contains(&value))
}

pub(crate) fn at_least_one(key: &str, value: u64) -> Result<u64, Complaint> {
    match value {
        0 => Err(Complaint::value(key, format!("{key} must be at least 1, got 0"))),
        value => Ok(value),
    }
}

pub(crate) fn ascending(key: &str, epochs: Vec<u32>) -> Result<Vec<u32>, Complaint> {
    if epochs.is_sorted_by(|a, b| a < b) {
        Ok(epochs)
    } else {
        Err(Complaint::value(key, format!("{key} must be ascending, got {epochs:?}")))
    }
}

/// A key that the chosen kind needs.
pub(crate) fn present<T>(
    key: &str,
    value: Option<T>,
    choice: &str,
    kind: &str,
) -> Result<T, Complaint> {
    value.ok_or_else(|| Complaint::value(choice, format!("{choice} = \"{kind}\" needs {key}")))
}

/// A key that the chosen kind does not read.
pub(crate) fn unused<T>(
    key: &str,
    value: Option<&T>,
    choice: &str,
    kind: &str,
) -> Result<(), Complaint> {
    match value {
        None => Ok(()),
        Some(_) => {
            let message = format!("{key} has no meaning with {choice} = \"{kind}\"");
            Err(Complaint::key(key, message).and(choice))
        }
    }
}
