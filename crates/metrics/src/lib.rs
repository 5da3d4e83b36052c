//! Top-k accuracy and the kNN vote from plain numbers.
