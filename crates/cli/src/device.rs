//! The `--device` argument.

use std::str::FromStr;

use crate::exit::{Exit, usage};

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            Some(("cuda", number)) => number
                .parse()
                .map(Self::Cuda)
                .map_err(|e| format!("`{number}` is no device number ({e}); expected cuda:0")),
            _ => Err("expected cpu or cuda:N".into()),
        }
    }
}

impl Device {
    /// Fails unless this build and machine have the device; there is no silent fallback to the CPU.
    ///
    /// # Errors
    /// With the exit code for an unfit machine.
    pub fn check(self) -> anyhow::Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(number) => Err(usage(
                Exit::DataOrMachine,
                format!(
                    "cuda:{number} is not available: the operations of this build run on the CPU only\n  \
                     help: use --device cpu"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_wrong_ones_explained() {
        assert_eq!("cpu".parse(), Ok(Device::Cpu));
        assert_eq!("cuda:3".parse(), Ok(Device::Cuda(3)));
        for wrong in ["gpu", "cuda", "cuda:x", ""] {
            let message = wrong.parse::<Device>().unwrap_err();
            assert!(message.contains("expected"), "{message}");
        }
        Device::Cpu.check().unwrap();
        let message = Device::Cuda(0).check().unwrap_err().to_string();
        assert!(message.contains("cuda:0 is not available"), "{message}");
    }
}
