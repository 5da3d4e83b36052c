//! Counter-based random streams keyed by seed, purpose, epoch, sample and view.
