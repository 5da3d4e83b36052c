//! Rows of a tensor in another order.

mod gpu;
mod order;

use candle_core::{DType, Tensor};

use self::order::{in_row_order, out_of_row_order};
use crate::backend::on_gpu;
use crate::dense::{expect_integers, shape};
use crate::error::{InOp, OpError};

const OP: &str = "select_rows";

/// Row `order[i]` of `x` as row i of the result; `order` is u32 `[M]` where `x` is. Images and activations
/// `[N, C, H, W]` keep channels last in memory. On a GPU, where this cannot be checked, a row that `x` does not
/// have is NaN.
///
/// # Errors
/// If `order` is no list of u32, or on a CPU names a row that `x` does not have.
pub fn select_rows(x: &Tensor, order: &Tensor) -> Result<Tensor, OpError> {
    expect_integers(OP, "order", order, DType::U32)?;
    if order.rank() != 1 {
        return Err(shape(OP, "order", "[M]", order.dims()));
    }
    on_gpu!(OP, x, gpu::rows, OP, x, order);
    // candle copies strided rows element by element; those with channels last are selected in their order.
    let x = in_row_order(x)?;
    let selected = x.tensor().index_select(order, 0).in_op(OP)?;
    out_of_row_order(&selected)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn order(rows: &[u32]) -> Tensor {
        Tensor::new(rows, &Device::Cpu).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn rows_come_in_the_order_asked_for() {
        let x = Tensor::arange(0.0_f64, 6.0, &Device::Cpu).unwrap().reshape((3, 2)).unwrap();
        let got = select_rows(&x, &order(&[2, 0, 2, 1])).unwrap();
        assert_eq!(got.dims(), [4, 2]);
        assert_eq!(numbers(&got), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0, 2.0, 3.0]);
        let images = Tensor::arange(0.0_f64, 12.0, &Device::Cpu).unwrap();
        let images = images.reshape((2, 1, 2, 3)).unwrap().permute((0, 3, 1, 2)).unwrap();
        let got = select_rows(&images, &order(&[1, 0])).unwrap();
        assert_eq!(got.dims(), [2, 3, 1, 2]);
        assert!(got.permute((0, 2, 3, 1)).unwrap().is_contiguous());
        assert_eq!(numbers(&got)[..6], numbers(&images)[6..]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let error = |order: &Tensor| select_rows(&x, order).unwrap_err().to_string();
        assert!(error(&x).contains("`order` is F32, expected u32"));
        let square = order(&[0, 1]).reshape((1, 2)).unwrap();
        assert!(error(&square).contains("`order` has shape [1, 2], expected [M]"));
        assert!(error(&order(&[3])).starts_with("select_rows: "));
    }
}
