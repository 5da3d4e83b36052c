//! Which images are shown, and their views, drawn as the trainer draws them.

use std::collections::BTreeMap;
use std::sync::Arc;

use moco_augment::{AugmentError, DrawnView, Frame, JitterOp, Recipe, RgbImage, Step};
use moco_cli::{Exit, usage};
use moco_feed::{FeedError, Substitutes, decode, view_streams};
use moco_ingest::{BadSample, EncodedSample, OnBadSample, Sampler, Slot, Source};
use moco_train::PretrainPlan;

/// The views that were requested.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) step: u64,
    /// Places from the start of the step's batch.
    pub(crate) indices: Vec<u64>,
    pub(crate) n_draws: u32,
}

/// A decoded image.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where it is.
    pub(crate) key: String,
    pub(crate) pixels: RgbImage,
}

/// A view and what it was made of.
#[derive(Debug)]
pub(crate) struct View {
    /// The image that it is of.
    pub(crate) sample_index: u64,
    /// The epoch that it was drawn for.
    pub(crate) epoch: u32,
    pub(crate) drawn: DrawnView,
    pub(crate) pixels: RgbImage,
}

/// A place of a batch.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) step: u64,
    pub(crate) index: u64,
    pub(crate) sample_index: u64,
    /// What the image stands in for, where that cannot be used and the run skips it.
    pub(crate) bad_samples: Vec<BadSample>,
    /// For each draw the query's view and the key's.
    pub(crate) draws: Vec<[View; 2]>,
}

/// All rows and their images, by sample index.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) images: BTreeMap<u64, Image>,
    pub(crate) rows: Vec<Row>,
}

/// Reads the images of the places wanted and draws their views.
pub(crate) fn draw(
    plan: &PretrainPlan,
    source: &Arc<dyn Source>,
    recipe: &Recipe,
    wanted: &Wanted,
) -> anyhow::Result<Shown> {
    let order = plan.training_order(source.as_ref())?;
    let substitutes = Substitutes::new(source, &order);
    let source = Arc::clone(source);
    let trainer = Trainer { plan, recipe, sampler: order.sampler, source, substitutes };
    let mut shown = Shown { images: BTreeMap::new(), rows: Vec::new() };
    for index in &wanted.indices {
        let place = BatchPlace::new(wanted.step, *index, plan.batch_size as u64)?;
        shown.add(&trainer, &place, wanted.n_draws)?;
    }
    Ok(shown)
}

/// What the trainer would draw from: which image comes where, and how views are made of it.
struct Trainer<'a> {
    plan: &'a PretrainPlan,
    recipe: &'a Recipe,
    sampler: Sampler,
    source: Arc<dyn Source>,
    substitutes: Substitutes,
}

impl Trainer<'_> {
    /// The image of a slot by its number, and those that it stands in for.
    fn image(&self, slot: Slot) -> Result<(Vec<BadSample>, (u64, Image)), FeedError> {
        let image = |sample: EncodedSample| {
            let (sample_index, key) = (sample.sample_index, sample.key.to_string());
            let pixels = decode(sample, self.plan.input.exif)?;
            Ok((sample_index, Image { key, pixels }))
        };
        match self.plan.on_bad_sample {
            OnBadSample::Fail => Ok((Vec::new(), image(self.source.read(slot.sample_index)?)?)),
            OnBadSample::Skip { .. } => self.substitutes.sample(slot, image),
        }
    }
}

/// A place in the order of a run.
struct BatchPlace {
    step: u64,
    index: u64,
    /// Samples before those of this batch.
    start: u64,
}

impl BatchPlace {
    fn new(step: u64, index: u64, batch_size: u64) -> anyhow::Result<Self> {
        let too_far = || usage(Exit::Usage, format!("--step {step}: no run is that long"));
        // The place after the batch must have a number too.
        let position = step.checked_mul(batch_size).and_then(|start| start.checked_add(index));
        let position = position.and_then(|position| position.checked_add(batch_size));
        let position = position.ok_or_else(too_far)? - batch_size;
        let index = position % batch_size;
        Ok(Self { step: position / batch_size, index, start: position - index })
    }
}

impl Shown {
    fn add(
        &mut self,
        trainer: &Trainer<'_>,
        place: &BatchPlace,
        n_draws: u32,
    ) -> anyhow::Result<()> {
        let Trainer { plan, recipe, sampler, .. } = trainer;
        let slots = [0, 1].map(|view| {
            let at = plan.input.pairing.place_of(view, place.index as usize, plan.batch_size);
            sampler.slot(place.start + at as u64)
        });
        let mut indices = [0; 2];
        let mut bad_samples = Vec::new();
        for (view, slot) in slots.iter().enumerate() {
            if view == 1 && slot.position == slots[0].position {
                indices[1] = indices[0];
                continue;
            }
            let (bad, (sample_index, image)) = trainer.image(*slot)?;
            indices[view] = sample_index;
            bad_samples.extend(bad);
            self.images.insert(sample_index, image);
        }
        let mut draws = Vec::new();
        for draw in 0..n_draws {
            let view = |view: usize| -> Result<View, FeedError> {
                let (sample_index, slot) = (indices[view], slots[view]);
                let (image, epoch) = (&self.images[&sample_index], slot.epoch.wrapping_add(draw));
                // A substitute has the streams of the sample that it stands in for.
                let [query, key] = view_streams(plan.seed, epoch, slot.sample_index);
                let (width, height) = (image.pixels.width(), image.pixels.height());
                let drawn = recipe.draw(width, height, if view == 0 { query } else { key });
                let failed =
                    |source: AugmentError| FeedError::Image { key: image.key.clone(), source };
                let pixels = drawn.apply_as(&image.pixels, recipe.fidelity()).map_err(failed)?;
                Ok(View { sample_index, epoch, drawn, pixels })
            };
            draws.push([view(0)?, view(1)?]);
        }
        let (step, index, sample_index) = (place.step, place.index, indices[0]);
        self.rows.push(Row { step, index, sample_index, bad_samples, draws });
        Ok(())
    }

    /// A row in words.
    pub(crate) fn describe(&self, row: &Row) -> String {
        let image = &self.images[&row.sample_index];
        let (width, height) = (image.pixels.width(), image.pixels.height());
        let Row { step, index, sample_index, .. } = row;
        let mut lines = vec![format!(
            "step {step}, index {index}: image {sample_index}, {}, {width}x{height} pixels",
            image.key
        )];
        lines.extend(row.bad_samples.iter().map(|bad| format!("  stands in for {bad}")));
        for (name, view) in row.draws.iter().flat_map(|[q, k]| [("query", q), ("key", k)]) {
            let mut words = vec![match view.drawn.frame {
                Frame::ResizedCrop(b) => {
                    format!("{}x{} from row {}, column {}", b.width, b.height, b.top, b.left)
                }
                Frame::CenterCrop { resize } => format!("center of {resize}"),
            }];
            words.extend(view.drawn.steps.iter().map(describe_step));
            let of = if view.sample_index == row.sample_index {
                String::new()
            } else {
                format!(" of image {}", view.sample_index)
            };
            lines.push(format!("  epoch {}, {name}{of}: {}", view.epoch, words.join("; ")));
        }
        lines.join("\n")
    }
}

fn describe_step(step: &Step) -> String {
    match step {
        Step::Jitter(draw) => {
            let adjustment = |op: &JitterOp| match op {
                JitterOp::Brightness => format!("brightness {:.2}", draw.brightness),
                JitterOp::Contrast => format!("contrast {:.2}", draw.contrast),
                JitterOp::Saturation => format!("saturation {:.2}", draw.saturation),
                JitterOp::Hue => format!("hue {:+.3}", draw.hue),
            };
            draw.order.iter().map(adjustment).collect::<Vec<_>>().join(", ")
        }
        Step::Grayscale => "gray".into(),
        Step::Blur { sigma } => format!("blur {sigma:.2}"),
        Step::Flip => "flip".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_past_the_batch_are_those_of_the_next_steps() {
        for ((step, index), expected) in
            [((0, 3), (0, 3, 0)), ((2, 4), (3, 0, 12)), ((1, 9), (3, 1, 12))]
        {
            let place = BatchPlace::new(step, index, 4).unwrap();
            assert_eq!((place.step, place.index, place.start), expected);
        }
        for step in [u64::MAX, u64::MAX / 4] {
            let error = BatchPlace::new(step, 0, 4).err().unwrap().to_string();
            assert_eq!(error, format!("--step {step}: no run is that long"));
        }
    }
}
