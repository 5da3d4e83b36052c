//! Forward and backward kernels that candle lacks or gets wrong.
