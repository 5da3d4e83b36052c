//! One's own augmentation and one's own encoder crate in the training function, without a fork.
#![forbid(unsafe_code)]

use std::{path::Path, sync::Arc, sync::atomic::AtomicBool};

use candle_core::{DType, Device};
use moco_augment::{AugmentError, Augmentation, RgbImage, flip_horizontal, resize_shorter_side};
use moco_encoders::AutogradEncoder;
use moco_example_encoder::{FEATURE_DIM, PatchMixer};
use moco_train::{Control, Parts, RunFolder, pretrain};

struct FlipOnly;

impl Augmentation for FlipOnly {
    fn view(&self, x: &RgbImage, mut stream: moco_rng::Stream) -> Result<RgbImage, AugmentError> {
        let mut view = resize_shorter_side(x, self.image_size())?;
        if stream.bernoulli(0.5) {
            flip_horizontal(&mut view);
        }
        Ok(view)
    }
    fn image_size(&self) -> u32 {
        32
    }
}

fn main() -> anyhow::Result<()> {
    let sets = ["run.steps=20", "evaluate.linear_epochs=5"].map(String::from);
    let loaded = moco_config::load_pretrain(Path::new("configs/pretrain/default.toml"), &sets)?;
    let (plan, config, device) = (&loaded.plan, &loaded.resolved, &Device::Cpu);
    let encoder =
        AutogradEncoder::new(PatchMixer::new, FEATURE_DIM, plan.seed, DType::F32, device)?;
    let (encoder, augmentation) = (Box::new(encoder), Arc::new(FlipOnly));
    let parts = Parts { augmentation, encoder, ..moco_cli::parts(&loaded, device)? };
    let name = format!("swap-{}", std::process::id());
    let folder = RunFolder::create(Path::new("runs"), &name, config)?;
    let control = Control { stop: &AtomicBool::new(false), observe: &mut |_| () };
    let outcome = pretrain(plan, parts, (&folder, config), None, control)?;
    moco_cli::print_result(&format!("{outcome:#?}"));
    Ok(())
}
