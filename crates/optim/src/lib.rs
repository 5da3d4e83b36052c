//! SGD as PyTorch defines it, and learning-rate schedules.
