//! The keys that a resume may change.

/// Keys that a resumed run may change, since they do not change what is computed. `x.*` is the whole
/// section.
pub const RESUME_MAY_CHANGE: &[&str] = &[
    "run.cuda_graph",
    "log.*",
    "checkpoint.*",
    "data.readers",
    "data.decoders",
    "data.root",
    "data.cache",
    "data.cache_bytes",
    "data.verify",
    "data.on_bad_sample",
    "data.bad_sample_budget",
    "monitor.*",
];
