//! The knn stage.

fn main() {}
