//! An encoder from any candle module, with candle's automatic gradients: nobody who brings a module
//! writes a backward pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::init::{FanInOut, Init, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{ModuleT, VarBuilder};
use moco_params::{ParamStore, Role};
use moco_rng::{At, Purpose, Seed, Stream};

use crate::encoder::{Encoder, EncoderError, GradientSink, InLayer, Mode, Saved};
use crate::init::count;

type Build<M> = dyn Fn(VarBuilder<'_>) -> candle_core::Result<M> + Send + Sync;

/// Wraps a candle module that maps `[N, 3, H, W]` to `[N, feature_dim]`, on any device. Each `Module` is a
/// `ModuleT`, so modules that behave alike in training and evaluation need nothing more.
///
/// Variables are created through the `VarBuilder` that the module is built with and get reproducible initial
/// values from the run's seed (candle's own generator cannot be seeded on the CPU). Those whose own name
/// starts with `running_`, as candle-nn's `BatchNorm` names its statistics, are buffers: they have no
/// gradient, and forward passes in training mode change them. All others are parameters.
///
/// The module is built twice, on the same memory: once on variables, for steps, and once on constants, so that
/// features are computed without a graph that nobody asks for.
///
/// candle-nn's fused operations (`LayerNorm::forward`, `softmax_last_dim`) have no derivative, and candle
/// reports none: a parameter that gets no gradient on that account is an error.
pub struct AutogradEncoder<M> {
    build: Arc<Build<M>>,
    module: M,
    /// The same without gradients.
    constant: M,
    params: ParamStore,
    vars: BTreeMap<String, Var>,
    feature_dim: usize,
    dtype: DType,
    device: Device,
}

impl<M> std::fmt::Debug for AutogradEncoder<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AutogradEncoder").field("feature_dim", &self.feature_dim).finish()
    }
}

/// The features with the graph that they came from.
struct WithGraph(Tensor);

/// Whether candle keeps every operation for a backward pass.
#[derive(Debug, Clone, Copy)]
enum Graph {
    Kept,
    None,
}

fn role_of(name: &str) -> Role {
    let own = name.rsplit('.').next().unwrap_or(name);
    if own.starts_with("running_") { Role::Buffer } else { Role::Parameter }
}

impl<M: ModuleT + Send + 'static> AutogradEncoder<M> {
    /// Builds the module with initial values from `seed`, in f32 or f64, on the device that computes it.
    ///
    /// # Errors
    /// If the module cannot be built.
    pub fn new(
        build: impl Fn(VarBuilder<'_>) -> candle_core::Result<M> + Send + Sync + 'static,
        feature_dim: usize,
        seed: Seed,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, EncoderError> {
        Self::with_values(Arc::new(build), feature_dim, dtype, device, Values::Drawn(seed))
    }

    fn with_values(
        build: Arc<Build<M>>,
        feature_dim: usize,
        dtype: DType,
        device: &Device,
        values: Values,
    ) -> Result<Self, EncoderError> {
        let on = |backend: Box<dyn SimpleBackend>| {
            build(VarBuilder::from_backend(backend, dtype, device.clone()))
                .map_err(|e| candle("the module could not be built", e))
        };
        let vars = Arc::new(Mutex::new(BTreeMap::new()));
        let module = on(Box::new(Variables { values, vars: Arc::clone(&vars) }))?;
        let vars = vars.lock().map(|vars| vars.clone()).unwrap_or_default();
        let constant = on(Box::new(Constants(vars.clone())))?;
        let mut params = ParamStore::default();
        for (name, var) in &vars {
            // A copy, since candle records no versions: the optimizer must not reach into the graph.
            let value = var.as_detached_tensor().copy().map_err(|e| candle(name, e))?;
            params.insert(name.as_str(), value, role_of(name))?;
        }
        let device = device.clone();
        Ok(Self { build, module, constant, params, vars, feature_dim, dtype, device })
    }

    /// Brings the values of the store, which the optimizer changes, into the module's variables.
    fn sync(&self) -> Result<(), EncoderError> {
        for (name, var) in &self.vars {
            var.set(self.params.get(name)?).map_err(|e| candle(&format!("variable {name}"), e))?;
        }
        Ok(())
    }

    /// Features `[N, feature_dim]`; in training mode the store takes over the buffers.
    fn run(&mut self, images: &Tensor, mode: Mode, graph: Graph) -> Result<Tensor, EncoderError> {
        if images.dtype() != self.dtype {
            return Err(EncoderError::ImageType { expected: self.dtype, got: images.dtype() });
        }
        self.sync()?;
        let module = match graph {
            Graph::Kept => &self.module,
            Graph::None => &self.constant,
        };
        let features = module.forward_t(images, mode == Mode::Train);
        let features = features.map_err(|e| candle("forward", e))?;
        let expected = [images.dims().first().copied().unwrap_or(0), self.feature_dim];
        if features.dims() != expected {
            let got = features.dims().to_vec();
            return Err(EncoderError::FeatureShape { expected, got });
        }
        if mode == Mode::Train {
            for (name, var) in self.vars.iter().filter(|(name, _)| role_of(name) == Role::Buffer) {
                self.params.set(name, &var.as_detached_tensor())?;
            }
        }
        Ok(features)
    }
}

impl<M: ModuleT + Send + 'static> Encoder for AutogradEncoder<M> {
    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn params_mut(&mut self) -> &mut ParamStore {
        &mut self.params
    }

    fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    fn forward(&mut self, images: &Tensor) -> Result<(Tensor, Saved), EncoderError> {
        let features = self.run(images, Mode::Train, Graph::Kept)?;
        Ok((features.detach(), Saved::new(WithGraph(features))))
    }

    fn features(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, EncoderError> {
        Ok(self.run(images, mode, Graph::None)?.detach())
    }

    fn backward(
        &self,
        saved: Saved,
        gradient: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<(), EncoderError> {
        let WithGraph(features) = saved.take()?;
        // d(Σ features·gradient)/dθ is the gradient that flows in, pulled back.
        let product = (&features * gradient).and_then(|product| product.sum_all());
        let store = product.and_then(|sum| sum.backward()).map_err(|e| candle("backward", e))?;
        for (name, _) in self.params.parameters() {
            let gradient = self.vars.get(name).and_then(|var| store.get(var));
            let missing = || EncoderError::NoGradient { name: name.to_owned() };
            sink(name.to_owned(), gradient.ok_or_else(missing)?.clone()).in_layer(name)?;
        }
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Encoder>, EncoderError> {
        let values = Values::Given(self.params.deep_copy()?);
        let build = Arc::clone(&self.build);
        let fork = Self::with_values(build, self.feature_dim, self.dtype, &self.device, values)?;
        Ok(Box::new(fork))
    }
}

fn candle(what: &str, source: candle_core::Error) -> EncoderError {
    EncoderError::Candle { what: what.to_owned(), source }
}

/// The source of a new variable's value.
enum Values {
    Drawn(Seed),
    Given(ParamStore),
}

/// Creates the variables a module asks for. The mutex has one owner, the building thread; it is there
/// because candle wants the backend to be `Sync`.
struct Variables {
    values: Values,
    vars: Arc<Mutex<BTreeMap<String, Var>>>,
}

impl Variables {
    fn value(
        &self,
        shape: &Shape,
        name: &str,
        init: Init,
        created: usize,
    ) -> candle_core::Result<Tensor> {
        match &self.values {
            Values::Given(store) => Ok(store.get(name).map_err(candle_core::Error::wrap)?.clone()),
            Values::Drawn(seed) => {
                let mut stream = seed.stream(Purpose::Init, At::index(created as u64));
                let numbers = (0..shape.elem_count()).map(|_| draw(&mut stream, init, shape));
                Tensor::from_vec(numbers.collect::<Vec<f64>>(), shape, &Device::Cpu)
            }
        }
    }
}

/// One number of candle's initial distributions.
fn draw(stream: &mut Stream, init: Init, shape: &Shape) -> f64 {
    match init {
        Init::Const(value) => value,
        Init::Randn { mean, stdev } => mean + stdev * stream.normal(),
        Init::Uniform { lo, up } => stream.range(lo, up),
        Init::Kaiming { dist, fan, non_linearity } => {
            let dims = shape.dims();
            let field: usize = dims.iter().skip(2).product();
            let fan = match fan {
                FanInOut::FanIn => dims.get(1).copied().unwrap_or(1) * field,
                FanInOut::FanOut => dims[0] * field,
            };
            let std = non_linearity.gain() / count(fan).sqrt();
            match dist {
                NormalOrUniform::Normal => std * stream.normal(),
                NormalOrUniform::Uniform => {
                    let bound = 3.0_f64.sqrt() * std;
                    stream.range(-bound, bound)
                }
            }
        }
    }
}

/// The variables of a module that is there: parameters without their gradients, and the same buffers.
struct Constants(BTreeMap<String, Var>);

impl SimpleBackend for Constants {
    fn get(
        &self,
        _: Shape,
        name: &str,
        _: Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        match (self.0.get(name), role_of(name)) {
            (Some(var), Role::Parameter) => Ok(var.as_detached_tensor()),
            (Some(var), Role::Buffer) => Ok(var.as_tensor().clone()),
            (None, _) => {
                candle_core::bail!("variable {name} was not there when it was built first")
            }
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("variable {name} was asked for without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl SimpleBackend for Variables {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let Ok(mut vars) = self.vars.lock() else {
            candle_core::bail!("a module panicked while it was built");
        };
        if let Some(var) = vars.get(name) {
            return Ok(var.as_tensor().clone());
        }
        let value = self.value(&shape, name, init, vars.len())?.to_dtype(dtype)?;
        let var = Var::from_tensor(&value.to_device(device)?.copy()?)?;
        vars.insert(name.to_owned(), var.clone());
        Ok(var.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("variable {name} was asked for without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.vars.lock().is_ok_and(|vars| vars.contains_key(name))
    }
}
