//! Images and views as tensors, and every number that was drawn as JSON.

use std::collections::BTreeMap;

use anyhow::Context as _;
use moco_augment::{DrawnView, Fidelity, Frame, JitterOp, Recipe, RgbImage, Step};
use moco_config::LoadedPretrain;
use moco_feed::Pairing;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde_json::{Value, json};

use crate::rows::{Row, Shown};

/// The safetensors file: each image and view, `[H, W, 3]` u8.
pub(crate) fn tensors(shown: &Shown) -> anyhow::Result<Vec<u8>> {
    let images = shown.images.iter().map(|(index, image)| (image_name(*index), &image.pixels));
    let views = views(shown).map(|(row, at)| (view_name(row, at), &row.draws[at.0][at.1].pixels));
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
    let views = views(shown).map(|(row, at)| {
        let view = &row.draws[at.0][at.1];
        let mut entry = drawn(&view.drawn);
        entry["tensor"] = view_name(row, at).into();
        entry["image"] = image_name(view.sample_index).into();
        entry["step"] = row.step.into();
        entry["index"] = row.index.into();
        entry["epoch"] = view.epoch.into();
        entry["draw"] = at.0.into();
        entry["view"] = at.1.into();
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

/// Row, draw and view of all views.
fn views(shown: &Shown) -> impl Iterator<Item = (&Row, (usize, usize))> {
    shown.rows.iter().flat_map(|row| {
        (0..row.draws.len()).flat_map(move |draw| [(row, (draw, 0)), (row, (draw, 1))])
    })
}

fn image_name(sample_index: u64) -> String {
    format!("image.{sample_index}")
}

fn view_name(row: &Row, (draw, view): (usize, usize)) -> String {
    format!("step.{}.index.{}.draw.{draw}.view.{view}", row.step, row.index)
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
