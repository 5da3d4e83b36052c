//! One's own augmentation and one's own encoder crate in the training function, without a fork.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::{Arc, atomic::AtomicBool};

use moco_augment::{AugmentError, Augmentation, RgbImage, flip_horizontal, resize_shorter_side};
use moco_encoders::AutogradEncoder;
use moco_example_encoder::{FEATURE_DIM, PatchMixer};
use moco_train::{Control, Parts, RunFolder, pretrain};

struct FlipOnly;

impl Augmentation for FlipOnly {
    fn view(
        &self,
        image: &RgbImage,
        mut stream: moco_rng::Stream,
    ) -> Result<RgbImage, AugmentError> {
        let mut view = resize_shorter_side(image, self.image_size())?;
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
    let (plan, config) = (&loaded.plan, &loaded.resolved);
    let encoder =
        AutogradEncoder::new(PatchMixer::new, FEATURE_DIM, plan.seed, candle_core::DType::F32)?;
    let own = (Arc::new(FlipOnly), Box::new(encoder));
    let parts = Parts { augmentation: own.0, encoder: own.1, ..moco_cli::parts(&loaded)? };
    let folder =
        RunFolder::create(Path::new("runs"), &format!("swap-{}", std::process::id()), config)?;
    let control = Control { stop: &AtomicBool::new(false), observe: &mut |_| () };
    moco_cli::print_result(&format!(
        "{:#?}",
        pretrain(plan, parts, (&folder, config), None, control)?
    ));
    Ok(())
}
