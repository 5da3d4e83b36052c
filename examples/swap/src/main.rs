//! A swap in forty lines: one's own augmentation and encoder.

fn main() {}
