//! Max pooling 3×3 with stride 2 and padding 1, and global average pooling.

mod average;
mod gpu;
mod max;

pub use average::{global_average_pool, global_average_pool_backward};
pub use max::{MaxPooled, max_pool, max_pool_backward};
