//! The lincls stage.

fn main() {}
