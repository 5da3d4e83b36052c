//! Faults that are put into runs on the embedded data, and the alarm that each must ring.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use moco::{Alarm, Finding};
use moco_augment::{AugmentError, Augmentation, RgbImage};
use moco_ingest::{EncodedSample, IngestError, Payload, Source};
use moco_rng::{At, Purpose, Seed, Stream};
use moco_textures::TexturesConfig;
use moco_train::{Components, Control, Event, RunFolder, Start, pretrain};

/// Steps within which a fault must be named.
pub(crate) const WITHIN: u64 = 200;

/// Training images, more than the queue of any run holds.
pub(crate) const N_TRAIN: u32 = 2048;

/// The run that a fault is put into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    /// Overrides of the default run.
    pub(crate) sets: &'static [&'static str],
    /// Its `optim.base_lr`.
    pub(crate) base_lr: f64,
}

/// Seconds long: an eighth of the width on 16 pixels.
pub(crate) const SMALL: Recipe = Recipe {
    sets: &[
        "run.steps=1000",
        "encoder.width=0.125",
        "augment.image_size=16",
        "evaluate.resize=16",
        "moco.queue_size=512",
        "optim.batch_size=32",
        "optim.base_lr=1.0",
        "log.every_steps=10",
    ],
    base_lr: 1.0,
};

/// What is wrong, and what must be said.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) alarm: Alarm,
    put_in: PutIn,
}

enum PutIn {
    Set(&'static str),
    Rate(f64),
    FlatImages,
    EqualViews,
}

/// Every fault but those that end a run or are seen in its settings.
pub(crate) const FAULTS: [Fault; 9] = [
    Fault {
        name: "100 times the learning rate",
        alarm: Alarm::RateHigh,
        put_in: PutIn::Rate(100.0),
    },
    Fault { name: "no learning rate", alarm: Alarm::FrozenQueries, put_in: PutIn::Rate(0.0) },
    Fault { name: "m = 0", alarm: Alarm::KeysFollow, put_in: PutIn::Set("moco.key_momentum=0") },
    Fault { name: "m = 1", alarm: Alarm::FrozenKeys, put_in: PutIn::Set("moco.key_momentum=1") },
    Fault { name: "images of one color", alarm: Alarm::FlatImages, put_in: PutIn::FlatImages },
    Fault { name: "equal views", alarm: Alarm::EqualViews, put_in: PutIn::EqualViews },
    Fault {
        name: "keys of another image",
        alarm: Alarm::ForeignViews,
        put_in: PutIn::Set("augment.pairing=\"shuffled\""),
    },
    Fault {
        name: "τ = 0.002",
        alarm: Alarm::TemperatureLow,
        put_in: PutIn::Set("moco.temperature=0.002"),
    },
    Fault {
        name: "τ = 5",
        alarm: Alarm::TemperatureHigh,
        put_in: PutIn::Set("moco.temperature=5"),
    },
];

/// Draws the data set of the runs.
pub(crate) fn draw(folder: &Path) -> anyhow::Result<()> {
    let textures = TexturesConfig { seed: Seed(0), n_train: N_TRAIN, n_test: 32, n_workers: 2 };
    moco_textures::write(folder, &textures, &mut |_, _| ())?;
    Ok(())
}

/// What a run reported.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Steps until the first alarm; those of the run if there was none.
    pub(crate) step: u64,
    /// The alarms that rang first, the cause before the others.
    pub(crate) findings: Vec<Finding>,
    /// What ended the run, if that was an error.
    pub(crate) error: Option<String>,
}

/// A run with a fault, until it rings or `WITHIN` steps are done.
pub(crate) fn listen_to(
    fault: &Fault,
    recipe: Recipe,
    seed: u64,
    data: &Path,
) -> anyhow::Result<Heard> {
    let mut sets = Vec::new();
    match fault.put_in {
        PutIn::Set(set) => sets.push(set.to_owned()),
        PutIn::Rate(factor) => sets.push(format!("optim.base_lr={:?}", factor * recipe.base_lr)),
        PutIn::FlatImages | PutIn::EqualViews => (),
    }
    let spoil = |components: Components| match fault.put_in {
        PutIn::FlatImages => {
            let mut components = components;
            components.sources.train = Arc::new(Flat(components.sources.train));
            components
        }
        PutIn::EqualViews => {
            Components { augmentation: Arc::new(OneView(components.augmentation)), ..components }
        }
        PutIn::Set(_) | PutIn::Rate(_) => components,
    };
    listen(recipe, &sets, seed, data, &spoil, WITHIN)
}

/// A run with overrides and its own components, until it rings or so many steps are done.
pub(crate) fn listen(
    recipe: Recipe,
    sets: &[String],
    seed: u64,
    data: &Path,
    spoil: &dyn Fn(Components) -> Components,
    steps: u64,
) -> anyhow::Result<Heard> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/pretrain/default.toml");
    let fixed = [
        format!("data.root={:?}", data.display().to_string()),
        format!("data.manifest={:?}", data.join("manifest.toml").display().to_string()),
        format!("run.seed={seed}"),
        "checkpoint.every_steps=0".into(),
        "monitor.knn_every_steps=0".into(),
        "evaluate.at_end=false".into(),
        "health.stop_on_collapse=false".into(),
    ];
    let of_recipe = recipe.sets.iter().map(|set| (*set).to_owned());
    let sets: Vec<String> =
        fixed.into_iter().chain(of_recipe).chain(sets.iter().cloned()).collect();
    let loaded = moco_config::load_pretrain(Path::new(default), &sets)?;
    let device = moco_cli::Device::Cpu.open(moco_ops::Precision::F32)?;
    let components = spoil(moco_cli::components(&loaded, &device)?);
    let runs = tempfile::tempdir().context("no folder for the run")?;
    let folder = RunFolder::create(runs.path(), "run", &loaded.resolved)?;
    let stop = AtomicBool::new(false);
    let mut heard = Heard { step: 0, findings: Vec::new(), error: None };
    let mut observe = |event: &Event<'_>| match event {
        Event::Stepped { global_step, .. } if heard.findings.is_empty() => {
            heard.step = *global_step;
            if *global_step >= steps {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Event::Log { line, .. } if heard.findings.is_empty() => {
            heard.findings.clone_from(&line.health.findings);
            if !heard.findings.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        _ => (),
    };
    let control = Control { stop: &stop, observe: &mut observe };
    let outcome = pretrain(&loaded.plan, components, &folder, Start::New, control);
    heard.error = outcome.err().map(|error| error.to_string());
    Ok(heard)
}

/// Every image has one color, each its own.
struct Flat(Arc<dyn Source>);

impl Source for Flat {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let mut stream = Seed(0).stream(Purpose::Textures, At::index(sample_index));
        let color = [(); 3].map(|()| u8::try_from(stream.next_u32() % 256).unwrap_or(0));
        let payload = Payload::Rgb { width: 32, height: 32, pixels: color.repeat(32 * 32) };
        Ok(EncodedSample { payload, ..self.0.read(sample_index)? })
    }

    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        self.0.label(sample_index)
    }

    fn n_classes(&self) -> Option<u32> {
        self.0.n_classes()
    }
}

/// Draws both views from one stream.
struct OneView(Arc<dyn Augmentation>);

impl Augmentation for OneView {
    fn view(&self, image: &RgbImage, stream: Stream) -> Result<RgbImage, AugmentError> {
        self.0.view(image, stream)
    }

    fn views(&self, file: &[u8], streams: Vec<Stream>) -> Result<Vec<RgbImage>, AugmentError> {
        let first = streams.first().cloned();
        let equal = streams.iter().filter_map(|_| first.clone()).collect();
        self.0.views(file, equal)
    }

    fn image_size(&self) -> u32 {
        self.0.image_size()
    }
}
