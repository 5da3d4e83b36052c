//! Stages on named threads joined by bounded channels; end, failure and cancellation told apart.
