//! Named tensors in a fixed order, parameters and buffers told apart.
