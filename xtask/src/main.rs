//! Build, check and run this workspace.

fn main() {}
