//! Wires the stages and holds the training loop.
