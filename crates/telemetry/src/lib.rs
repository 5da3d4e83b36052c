//! Metrics as JSON lines, run logs, throughput and ETA.
