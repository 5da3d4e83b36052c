//! The arguments that say where to compute: `--device`, and `--activations` for features.

use std::str::FromStr;

use candle_core::DType;
use moco::QueuePrecision;
use moco_ops::{ConvBackend, Precision};
use moco_train::{EvaluationActivations, PretrainPlan};

use crate::exit::{Exit, usage};

/// A device by its name.
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
    /// Opens the device for steps by a plan.
    ///
    /// # Errors
    /// As [`Device::open`], or if the plan asks a CPU for what it does not have.
    pub fn open_for(self, plan: &PretrainPlan) -> anyhow::Result<candle_core::Device> {
        if self == Self::Cpu && plan.moco.queue_precision == QueuePrecision::Bf16 {
            let message =
                "moco.queue_precision must be \"f32\" on the CPU; \"bf16\" is for --device cuda:N";
            return Err(usage(Exit::Usage, message));
        }
        self.open_with(plan.precision, plan.conv_backend)
    }

    /// Opens the device; there is no silent fallback to the CPU.
    ///
    /// # Errors
    /// With the exit code for an unfit machine, if this build or machine does not have the device.
    pub fn open(self, precision: Precision) -> anyhow::Result<candle_core::Device> {
        self.open_with(precision, ConvBackend::Auto)
    }

    /// As [`Device::open`], with what convolutions of a GPU go through.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(
        self,
        precision: Precision,
        conv_backend: ConvBackend,
    ) -> anyhow::Result<candle_core::Device> {
        match self {
            Self::Cpu if precision == Precision::F32 => Ok(candle_core::Device::Cpu),
            Self::Cpu => Err(usage(
                Exit::Usage,
                "run.precision must be \"f32\" on the CPU; the others are for --device cuda:N",
            )),
            Self::Cuda(number) => cuda(number, precision, conv_backend).map_err(|what| {
                usage(
                    Exit::DataOrMachine,
                    format!("cuda:{number} is not available: {what}\n  help: use --device cpu"),
                )
            }),
        }
    }
}

/// How activations are stored while features are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activations(EvaluationActivations);

impl FromStr for Activations {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "f32" => Ok(Self(EvaluationActivations::F32)),
            "as_trained" => Ok(Self(EvaluationActivations::AsTrained)),
            _ => Err("expected f32 or as_trained"),
        }
    }
}

impl Activations {
    /// Their type on a device for a run in this precision.
    ///
    /// # Errors
    /// If the device does not have it.
    pub(crate) fn dtype_on(self, device: Device, of_run: Precision) -> anyhow::Result<DType> {
        let dtype = self.0.dtype(of_run);
        if device == Device::Cpu && dtype != DType::F32 {
            let message = "--activations as_trained is bf16 for this run, which the CPU does not have; \
                           add --device cuda:N, or take --activations f32";
            return Err(usage(Exit::Usage, message));
        }
        Ok(dtype)
    }
}

#[cfg(feature = "cuda")]
fn cuda(
    number: usize,
    precision: Precision,
    conv_backend: ConvBackend,
) -> Result<candle_core::Device, String> {
    // With backtraces on, candle puts one into its text.
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    moco_ops::open_cuda(number, precision, conv_backend)
        .map_err(|error| first_line(error.to_string()))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize, _: Precision, _: ConvBackend) -> Result<candle_core::Device, String> {
    Err("this build has no CUDA; build one by `cargo xtask dist --cuda`".into())
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
        assert!(Device::Cpu.open(Precision::F32).unwrap().is_cpu());
    }

    #[test]
    fn activations_are_those_of_the_run_where_it_is_asked_for() {
        let on_cpu =
            |text: &str, of_run| text.parse::<Activations>().unwrap().dtype_on(Device::Cpu, of_run);
        for of_run in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            assert_eq!(on_cpu("f32", of_run).unwrap(), DType::F32);
            let on_gpu = "as_trained".parse::<Activations>().unwrap();
            let on_gpu = on_gpu.dtype_on(Device::Cuda(0), of_run).unwrap();
            assert_eq!(on_gpu, of_run.activations());
        }
        // TF32 is how a GPU multiplies; what it stores is f32.
        for of_run in [Precision::F32, Precision::Tf32] {
            assert_eq!(on_cpu("as_trained", of_run).unwrap(), DType::F32);
        }
        let message = on_cpu("as_trained", Precision::Bf16).unwrap_err().to_string();
        assert_eq!(
            message,
            "--activations as_trained is bf16 for this run, which the CPU does not have; \
             add --device cuda:N, or take --activations f32"
        );
        assert_eq!("bf16".parse::<Activations>(), Err("expected f32 or as_trained"));
    }

    /// A machine has no hundredth device, with or without CUDA.
    #[test]
    fn a_device_that_is_not_there_is_an_error_and_never_the_cpu() {
        let error = Device::Cuda(99).open(Precision::F32).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("cuda:99 is not available: "), "{message}");
    }
}
