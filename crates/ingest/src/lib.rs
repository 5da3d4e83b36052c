//! Manifests, tar shards and the order of samples.
