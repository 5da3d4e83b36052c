//! The extract stage.

fn main() {}
