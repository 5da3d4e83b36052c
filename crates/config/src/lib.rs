//! TOML configs with overrides, validated into plans.
