//! The tensors of an update, with their shapes checked.

use candle_core::Tensor;

use super::in_place::expect_contiguous;
use crate::dense::{Dense, expect_shape};
use crate::error::OpError;

pub(super) const SGD: &str = "sgd";
pub(super) const EMA: &str = "ema";

/// A parameter, its gradient and its momentum buffer.
#[derive(Debug)]
pub struct SgdUpdate<'a> {
    pub(super) parameter: &'a Tensor,
    pub(super) gradient: Dense,
    pub(super) buffer: &'a Tensor,
}

impl<'a> SgdUpdate<'a> {
    /// Checks that they fit; changes nothing. Only the gradient may be a strided view.
    ///
    /// # Errors
    /// If the shapes or types differ, or the parameter or the buffer is strided.
    pub fn new(
        parameter: &'a Tensor,
        gradient: &Tensor,
        buffer: &'a Tensor,
    ) -> Result<Self, OpError> {
        expect_like(SGD, "gradient", gradient, parameter)?;
        expect_like(SGD, "buffer", buffer, parameter)?;
        expect_contiguous(SGD, "parameter", parameter)?;
        expect_contiguous(SGD, "buffer", buffer)?;
        Ok(Self { parameter, gradient: Dense::rows(SGD, gradient)?, buffer })
    }

    /// Parameter, gradient and buffer.
    pub(super) fn tensors(&self) -> [&Tensor; 3] {
        [self.parameter, self.gradient.tensor(), self.buffer]
    }
}

/// A parameter of the key encoder and its twin of the query encoder.
#[derive(Debug)]
pub struct EmaUpdate<'a> {
    pub(super) key: &'a Tensor,
    pub(super) query: Dense,
}

impl<'a> EmaUpdate<'a> {
    /// Checks that they fit; changes nothing. Only `query` may be a strided view.
    ///
    /// # Errors
    /// If the shapes or types differ, or `key` is strided.
    pub fn new(key: &'a Tensor, query: &Tensor) -> Result<Self, OpError> {
        expect_like(EMA, "query", query, key)?;
        expect_contiguous(EMA, "key", key)?;
        Ok(Self { key, query: Dense::rows(EMA, query)? })
    }

    /// The key encoder's parameter and its twin.
    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [self.key, self.query.tensor()]
    }
}

fn expect_like(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
    other: &Tensor,
) -> Result<(), OpError> {
    expect_shape(op, name, x, other.dims())?;
    if x.dtype() != other.dtype() {
        return Err(OpError::DType { op, tensor: name, got: x.dtype() });
    }
    Ok(())
}
