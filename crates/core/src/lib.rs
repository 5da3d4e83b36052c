//! Momentum Contrast: queue, momentum encoder, shuffling BN, InfoNCE and the training step.
