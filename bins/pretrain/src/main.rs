//! The pretrain stage.

fn main() {}
