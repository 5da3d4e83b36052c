//! Named tensors in name order, trainable parameters and buffers distinguished.
//!
//! The principal type is [`ParamStore`], which keeps each tensor with its [`Role`]; [`Gradients`] go by the same
//! names.
//!
//! Parameters are what the optimizer, weight decay and the momentum update touch; buffers (running
//! statistics of batch norm) are changed only by forward passes.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use moco_params::{ParamStore, Role};
//! let mut store = ParamStore::default();
//! store.insert("fc.weight", Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?, Role::Parameter)?;
//! assert_eq!(store.get("fc.weight")?.dims(), [2, 3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod store;

pub use store::{Gradients, ParamError, ParamStore, Role};
