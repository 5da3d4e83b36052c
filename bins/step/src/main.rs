//! The step stage.

fn main() {}
