//! How long work reports that it is under way.

/// Called with how much is done, and of how much.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
