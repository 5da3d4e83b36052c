//! Atomic, checksummed checkpoints in safetensors.
