//! One's own augmentation and one's own encoder crate in the training function, without a fork.
#![forbid(unsafe_code)]

use std::{io::Write as _, path::Path, sync::Arc, sync::atomic::AtomicBool};

use candle_core::{DType, Device};
use moco_augment::{AugmentError, Augmentation, RgbImage, flip_horizontal, resize_shorter_side};
use moco_encoders::AutogradEncoder;
use moco_example_encoder::{FEATURE_DIM, PatchMixer};
use moco_train::{
    Components, Control, DataAccess, RunFolder, Start, no_store, open_sources, pretrain,
};

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
    let plan = &loaded.plan;
    let encoder =
        AutogradEncoder::new(PatchMixer::new, FEATURE_DIM, plan.seed, DType::F32, &Device::Cpu)?;
    let access = DataAccess { open_store: &no_store, preparing: &mut |_, _, _| () };
    let sources = open_sources(&loaded.data, plan.workers, access)?;
    let components =
        Components { sources, augmentation: Arc::new(FlipOnly), encoder: Box::new(encoder) };
    let name = format!("swap-{}", std::process::id());
    let folder = RunFolder::create(Path::new("runs"), &name, &loaded.resolved)?;
    let control = Control { stop: &AtomicBool::new(false), observe: &mut |_| () };
    let outcome = pretrain(plan, components, &folder, Start::New, control)?;
    Ok(writeln!(std::io::stdout(), "{outcome:#?}")?)
}
