//! The make-data stage.

fn main() {}
