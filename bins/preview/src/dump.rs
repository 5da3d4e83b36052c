//! Images and views as tensors, and every number that was drawn as JSON.

use std::collections::BTreeMap;

use anyhow::Context as _;
use moco_augment::{DrawnView, Fidelity, Frame, JitterOp, Recipe, RgbImage, Step};
use moco_config::LoadedPretrain;
use moco_feed::Pairing;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde_json::{Value, json};

use crate::rows::{Row, Shown, View};

/// The safetensors file: each image and view, `[H, W, 3]` u8.
pub(crate) fn tensors(shown: &Shown) -> anyhow::Result<Vec<u8>> {
    let images = shown.images.iter().map(|(index, image)| (image_name(*index), &image.pixels));
    let views = views(shown).map(|shown| (shown.name(), &shown.view().pixels));
    // The same place may be asked for twice.
    let mut tensors = BTreeMap::new();
    for (name, image) in images.chain(views) {
        tensors.insert(name, tensor(image).context("cannot make a tensor of an image")?);
    }
    safetensors::serialize(tensors, None).context("cannot serialize the tensors")
}

fn tensor(image: &RgbImage) -> Result<TensorView<'_>, SafeTensorError> {
    let shape = vec![image.height() as usize, image.width() as usize, 3];
    TensorView::new(Dtype::U8, shape, image.pixels())
}

/// The JSON text beside it.
pub(crate) fn numbers(
    shown: &Shown,
    loaded: &LoadedPretrain,
    recipe: &Recipe,
) -> anyhow::Result<String> {
    let images = shown.images.iter().map(|(index, image)| {
        json!({
            "tensor": image_name(*index), "sample_index": index, "key": image.key,
            "width": image.pixels.width(), "height": image.pixels.height(),
        })
    });
    let views = views(shown).map(|shown| {
        let ShownView { row, draw_idx, view_idx } = shown;
        let view = shown.view();
        let mut entry = drawn(&view.drawn);
        entry["tensor"] = shown.name().into();
        entry["image"] = image_name(view.sample_index).into();
        entry["step"] = row.step.into();
        entry["index"] = row.index.into();
        entry["epoch"] = view.epoch.into();
        entry["draw"] = draw_idx.into();
        entry["view"] = view_idx.into();
        entry
    });
    let plan = &loaded.plan;
    let document = json!({
        "seed": plan.seed.0,
        "batch_size": plan.batch_size,
        "pairing": match plan.input.pairing {
            Pairing::SameImage => "same_image",
            Pairing::Shuffled => "shuffled",
        },
        "fidelity": match recipe.fidelity() {
            Fidelity::Exact => "exact",
            Fidelity::Fast => "fast",
        },
        "images": images.collect::<Vec<_>>(),
        "views": views.collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// A view and where it stands in the picture.
#[derive(Clone, Copy)]
struct ShownView<'a> {
    row: &'a Row,
    draw_idx: usize,
    /// 0 is the query's, 1 the key's.
    view_idx: usize,
}

impl<'a> ShownView<'a> {
    fn view(self) -> &'a View {
        &self.row.draws[self.draw_idx][self.view_idx]
    }

    fn name(self) -> String {
        let Self { row: Row { step, index, .. }, draw_idx, view_idx } = self;
        format!("step.{step}.index.{index}.draw.{draw_idx}.view.{view_idx}")
    }
}

/// All views, row by row.
fn views(shown: &Shown) -> impl Iterator<Item = ShownView<'_>> {
    shown.rows.iter().flat_map(|row| {
        (0..row.draws.len())
            .flat_map(move |draw_idx| [0, 1].map(|view_idx| ShownView { row, draw_idx, view_idx }))
    })
}

fn image_name(sample_index: u64) -> String {
    format!("image.{sample_index}")
}

/// Every parameter of a view; numbers are written so that they read back as the same f64.
fn drawn(view: &DrawnView) -> Value {
    let frame = match view.frame {
        Frame::ResizedCrop(crop) => json!({
            "kind": "resized_crop", "top": crop.top, "left": crop.left,
            "height": crop.height, "width": crop.width,
        }),
        Frame::CenterCrop { resize } => json!({"kind": "center_crop", "resize": resize}),
    };
    let steps: Vec<Value> = view.steps.iter().map(step).collect();
    json!({"image_size": view.image_size, "frame": frame, "steps": steps})
}

fn step(step: &Step) -> Value {
    match step {
        Step::Jitter(draw) => json!({
            "kind": "jitter",
            "order": draw.order.map(|op| match op {
                JitterOp::Brightness => "brightness",
                JitterOp::Contrast => "contrast",
                JitterOp::Saturation => "saturation",
                JitterOp::Hue => "hue",
            }),
            "brightness": draw.brightness, "contrast": draw.contrast,
            "saturation": draw.saturation, "hue": draw.hue,
        }),
        Step::Grayscale => json!({"kind": "grayscale"}),
        Step::Blur { sigma } => json!({"kind": "blur", "sigma": sigma}),
        Step::Flip => json!({"kind": "flip"}),
    }
}
