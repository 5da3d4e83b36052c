//! Rows one after the other in memory.

use candle_core::Tensor;

use crate::dense::Dense;
use crate::error::{InOp, OpError};

const OP: &str = "select_rows";

/// The tensor with channels last if it is one of images, and else as it is, its rows contiguous.
pub(super) fn in_row_order(x: &Tensor) -> Result<Dense, OpError> {
    if x.rank() == 4 { Dense::channels_last(OP, x) } else { Dense::rows(OP, x) }
}

/// The inverse, without moving anything.
pub(super) fn out_of_row_order(x: &Tensor) -> Result<Tensor, OpError> {
    if x.rank() == 4 { x.permute((0, 3, 1, 2)).in_op(OP) } else { Ok(x.clone()) }
}
