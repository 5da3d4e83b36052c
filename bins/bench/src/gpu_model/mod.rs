//! `bench gpu-model`: what a training step costs an H100 at least, from the layers' sizes and from what
//! the kernels and cuDNN move. It measures nothing; the first measurement is to be judged by it.

mod cost;
mod memory;
mod network;
mod published;
mod report;
mod step;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use moco_cli::print_result;
use moco_encoders::Arch;

use self::network::Network;
use self::step::Step;

/// Prints, as Markdown, floating-point operations, bytes, launches and the least time of each phase of a
/// MoCo v2 step in bf16 on an H100; the memory it needs; and published throughputs in the same units.
///
/// The floor is the sum over all operations of the longer of products at the peak and bytes at the peak;
/// "attainable" has the shares of the peaks that good kernels are assumed to reach. No GPU is needed.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Architecture, with the ImageNet stem
    #[arg(long, default_value = "resnet50")]
    arch: String,
    /// Height and width of the views
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u64).range(32..=4096))]
    size: u64,
    /// Images of a step, each with two views
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    batch_size: u64,
    /// Keys in the queue
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..=16_777_216))]
    queue_size: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let arch = Arch::NAMES.into_iter().find(|(known, _)| *known == args.arch);
    let (_, arch) = arch.with_context(|| {
        let names = Arch::NAMES.map(|(name, _)| name).join(", ");
        format!("no architecture {:?}; there are {names}", args.arch)
    })?;
    let network = Network::new(arch, args.size)?;
    let step = Step { network, batch_size: args.batch_size, queue_size: args.queue_size, dim: 128 };
    print_result(report::of(&args.arch, &step).trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_architecture_is_told_what_there_is() {
        let arch = "vgg16".to_owned();
        let args = Args { arch, size: 224, batch_size: 1, queue_size: 1 };
        let message = run(&args).unwrap_err().to_string();
        assert!(
            message.starts_with("no architecture \"vgg16\"; there are resnet10, "),
            "{message}"
        );
    }
}
