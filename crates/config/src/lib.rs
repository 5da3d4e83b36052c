//! TOML configs, `extends` and `--set` overrides, checked and turned into the plans of a run.
//!
//! The principal function is [`load_pretrain`], which returns a [`LoadedPretrain`] with the plans, or a
//! [`ConfigError`] that points at the keys at fault; [`check_resume`] compares two configs for a resume.
//!
//! ```no_run
//! use std::path::Path;
//! let sets = ["moco.queue_size=4096".to_owned()];
//! match moco_config::load_pretrain(Path::new("configs/pretrain/default.toml"), &sets) {
//!     Ok(loaded) => assert_eq!(loaded.plan.moco.queue_size, 4096),
//!     Err(error) => eprintln!("{}", error.render()),
//! }
//! ```
//!
//! A config names the format that it follows, and one of an older format means what it meant then.
//!
//! What it deliberately lacks: defaults. A config, with what it extends, sets every key, so a reader of
//! it knows the run; and any knowledge of files other than configs.
#![forbid(unsafe_code)]

mod check;
mod complaint;
mod convert;
mod data;
mod encoder;
mod error;
mod layer;
mod load;
mod merge;
mod method;
mod migrate;
mod optim;
mod raw;
mod resolved;
mod resume_keys;

pub use error::{ConfigError, Diagnostic};
pub use load::{LoadedPretrain, load_pretrain, load_pretrain_text, load_stored_pretrain};
pub use resolved::{KeyChange, StoredConfig, changed_keys, check_resume, compare_stored};
pub use resume_keys::RESUME_MAY_CHANGE;
