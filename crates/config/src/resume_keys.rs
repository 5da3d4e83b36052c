//! The keys that a resume may change.

/// Keys that a resumed run may change, since they do not change what is trained; images that moved are compared
/// with those of the checkpoint. `x.*` is the whole section.
pub const RESUME_MAY_CHANGE: &[&str] = &[
    "run.cuda_graph",
    "log.*",
    "checkpoint.*",
    "data.readers",
    "data.decoders",
    "data.root",
    "data.test_root",
    "data.manifest",
    "data.cache",
    "data.cache_bytes",
    "data.verify",
    "data.on_bad_sample",
    "data.bad_sample_budget",
    "monitor.*",
    "evaluate.*",
];
