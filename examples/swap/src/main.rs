//! One's own augmentation and encoder in the training function: no fork, no backward pass by hand.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::{Arc, atomic::AtomicBool};

use candle_core::{DType, Tensor};
use candle_nn::{Activation, Linear, Module, VarBuilder, linear};
use moco_augment::{AugmentError, Augmentation, RgbImage, flip_horizontal, resize_shorter_side};
use moco_encoders::AutogradEncoder;
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

struct Mlp(Linear, Linear);

impl Module for Mlp {
    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let hidden = Activation::Gelu.forward(&self.0.forward(&images.flatten_from(1)?)?)?;
        self.1.forward(&hidden)
    }
}

fn main() -> anyhow::Result<()> {
    let build =
        |vb: VarBuilder<'_>| Ok(Mlp(linear(3072, 64, vb.pp("0"))?, linear(64, 32, vb.pp("1"))?));
    let sets =
        ["run.steps=20", "monitor.knn_every_steps=0", "evaluate.linear_epochs=5"].map(String::from);
    let loaded = moco_config::load_pretrain(Path::new("configs/pretrain/default.toml"), &sets)?;
    let encoder = Box::new(AutogradEncoder::new(build, 32, loaded.plan.seed, DType::F32)?);
    let parts = Parts { augmentation: Arc::new(FlipOnly), encoder, ..moco_cli::parts(&loaded)? };
    let name = format!("swap-{}", std::process::id());
    let folder = RunFolder::create(Path::new("runs"), &name, &loaded.resolved)?;
    let control = Control { stop: &AtomicBool::new(false), observe: &mut |_| () };
    println!("{:#?}", pretrain(&loaded.plan, parts, (&folder, &loaded.resolved), None, control)?);
    Ok(())
}
