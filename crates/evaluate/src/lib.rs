//! kNN and linear classification on frozen features.
