//! Which algorithms convolutions are computed by.

/// The interface of its library that a GPU's convolutions are computed through. A CPU has one way, whatever
/// is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvBackend {
    /// The faster one: the legacy one, until a device has measured both.
    Auto,
    /// cuDNN's list of algorithms for each direction.
    Legacy,
    /// cuDNN's graphs of operations, which engines compute.
    Graph,
}

/// Follows a choice whose results differ from one time to the next.
pub(crate) const BITS_VARY: &str = " (its bits vary)";

/// Of the choices of [`convolution_choices`](crate::convolution_choices) those without an algorithm that
/// gives the same bits each time.
#[must_use]
pub fn varying_convolutions(choices: &str) -> Vec<&str> {
    choices.lines().filter(|line| line.ends_with(BITS_VARY)).collect()
}

/// Choices of algorithms that are not taken, since another library or device made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutdatedChoices {
    /// The library that made them: the interface, its version, and the device.
    pub chosen_by: String,
    /// The library that chooses here.
    pub here: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_whose_bits_vary_are_found() {
        let choices = "Forward of a: 1\nForward of b: 2 (its bits vary)\nForward of c: 31\n";
        assert_eq!(varying_convolutions(choices), ["Forward of b: 2 (its bits vary)"]);
        assert!(varying_convolutions("").is_empty());
    }
}
