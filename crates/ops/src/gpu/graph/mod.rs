//! Convolutions through cuDNN's graph interface: which engines there are, which may be used, and the order
//! of the calls to the library. The calls themselves are behind [`Calls`], so that a recording stands in
//! for the library in tests.
//!
//! Everything is made at the first computation of a shape. A later computation passes addresses and
//! starts the plan: nothing is allocated on the device and nothing waited for, as a recording needs it.

mod description;
mod names;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;

use candle_core::DType;

pub(crate) use self::description::{Description, Value};
pub(crate) use self::names::{Attribute, Kind, Type};

use self::names::{HeuristicsMode, Note};
use super::convolution::{Convolution, Direction};
use super::plans::{Candidate, Library, Measured, Operands, WORKSPACE_LIMIT};

/// Engines of a convolution that are timed at most.
const MOST_TIMED: usize = 4;
/// Seconds after which a run takes the heuristics' first engine of each further convolution.
const MOST_SECONDS: f64 = 20.0;
/// Whom to ask, one after the other.
const MODES: [HeuristicsMode; 3] = [
    HeuristicsMode::CUDNN_HEUR_MODE_A,
    HeuristicsMode::CUDNN_HEUR_MODE_B,
    HeuristicsMode::CUDNN_HEUR_MODE_FALLBACK,
];
/// Engines of a list that are looked at. cuDNN 9.19 lists up to 40 for an H100, and those that compute in exact
/// f32 come last.
const MOST_LISTED: usize = 128;
/// Room for an engine's notes and settings; cuDNN 9.19 knows 10 notes and 44 kinds of settings.
const MOST_NOTES: usize = 32;
const MOST_KNOBS: usize = 64;
/// Timed computations of an engine after the first, which also loads its kernels.
const TIMED: usize = 5;

/// The calls of the graph interface, and what is needed of the device around them. Descriptors are numbers
/// that `create` gives out. Errors are the library's own words.
pub(crate) trait Calls {
    /// Memory on the device, given back when dropped.
    type Workspace;

    /// Version of the library and name of the device.
    fn identity(&self) -> String;

    fn create(&self, kind: Kind) -> Result<u64, String>;
    fn set(&self, descriptor: u64, attribute: Attribute, value: &Value) -> Result<(), String>;
    fn finalize(&self, descriptor: u64) -> Result<(), String>;
    fn destroy(&self, descriptor: u64);

    /// How many elements an attribute has.
    fn count(&self, descriptor: u64, attribute: Attribute, kind: Type) -> Result<usize, String>;

    /// The elements of an attribute, as far as there is room: integers, or members of an enumeration.
    fn numbers(
        &self,
        descriptor: u64,
        attribute: Attribute,
        kind: Type,
        room: usize,
    ) -> Result<Vec<i64>, String>;

    /// Makes the given descriptors those of an attribute; says how many there were.
    fn fill(&self, descriptor: u64, attribute: Attribute, into: &[u64]) -> Result<usize, String>;

    /// Queues a computation.
    fn execute(&self, plan: u64, variant_pack: u64) -> Result<(), String>;

    /// Memory of so many bytes.
    fn workspace(&self, bytes: usize) -> Result<Self::Workspace, String>;

    fn address(&self, workspace: &Self::Workspace) -> u64;

    /// Milliseconds that the device takes for the work; waits for it.
    fn milliseconds(&self, work: &dyn Fn() -> Result<(), String>) -> Result<f32, String>;

    /// Seconds since some moment.
    fn seconds(&self) -> f64;
}

/// The precision that products of f32 may be rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum F32Products {
    Exact,
    Tf32,
}

/// The library.
pub(crate) struct Graph<C: Calls> {
    calls: Rc<C>,
    f32_products: F32Products,
    /// Seconds of search so far.
    searched: Cell<f64>,
}

impl<C: Calls> Graph<C> {
    pub(crate) fn new(calls: C, f32_products: F32Products) -> Self {
        Self { calls: Rc::new(calls), f32_products, searched: Cell::new(0.0) }
    }
}

/// A descriptor that is destroyed when dropped. It keeps the library open.
struct Made<C: Calls> {
    calls: Rc<C>,
    descriptor: u64,
}

impl<C: Calls> Drop for Made<C> {
    fn drop(&mut self) {
        self.calls.destroy(self.descriptor);
    }
}

impl<C: Calls> Made<C> {
    /// One that the library will fill.
    fn empty(calls: &Rc<C>, kind: Kind) -> Result<Self, String> {
        let descriptor = calls.create(kind).map_err(|error| format!("{kind:?}: {error}"))?;
        Ok(Self { calls: Rc::clone(calls), descriptor })
    }

    fn new(calls: &Rc<C>, description: &Description) -> Result<Self, String> {
        let Description { kind, attributes } = description;
        let made = Self::empty(calls, *kind)?;
        for (attribute, value) in attributes {
            let set = calls.set(made.descriptor, *attribute, value);
            set.map_err(|error| format!("{attribute:?}: {error}"))?;
        }
        calls.finalize(made.descriptor).map_err(|error| format!("{kind:?}: {error}"))?;
        Ok(made)
    }
}

/// A convolution as the library knows it. Fields are dropped from the first, so nothing outlives what it is
/// made of.
pub(crate) struct Described<C: Calls> {
    direction: Direction,
    dtype: DType,
    graph: Made<C>,
    _operation: Made<C>,
    _parts: Vec<Made<C>>,
}

/// An engine with its settings, ready to compute.
pub(crate) struct Engine<C: Calls> {
    name: String,
    plan: Made<C>,
    _config: Made<C>,
    workspace_bytes: usize,
}

/// An engine that the heuristics name.
struct Listed<C: Calls> {
    /// The engine's number and its settings, which mean the same in another process.
    name: String,
    config: Made<C>,
    notes: Vec<i64>,
}

impl<C: Calls> Listed<C> {
    fn has(&self, note: Note) -> bool {
        self.notes.contains(&i64::from(note as i32))
    }

    fn is_deterministic(&self) -> bool {
        !self.has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
    }
}

impl<C: Calls> Graph<C> {
    /// The engines that the heuristics name, the likely fastest first.
    fn listed(&self, what: &Described<C>, mode: HeuristicsMode) -> Result<Vec<Listed<C>>, String> {
        const RESULTS: Attribute = Attribute::CUDNN_ATTR_ENGINEHEUR_RESULTS;
        let description = description::heuristics(what.graph.descriptor, mode);
        let asked = Made::new(&self.calls, &description)?;
        let count =
            self.calls.count(asked.descriptor, RESULTS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR)?;
        let configs = self.filled(
            asked.descriptor,
            RESULTS,
            Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
            count.min(MOST_LISTED),
        )?;
        configs.into_iter().map(|config| self.read(config)).collect()
    }

    /// Descriptors that are the value of an attribute, `room` at most.
    fn filled(
        &self,
        of: u64,
        attribute: Attribute,
        kind: Kind,
        room: usize,
    ) -> Result<Vec<Made<C>>, String> {
        let empty = (0..room).map(|_| Made::empty(&self.calls, kind));
        let mut made = empty.collect::<Result<Vec<_>, _>>()?;
        if room > 0 {
            let descriptors: Vec<u64> = made.iter().map(|made| made.descriptor).collect();
            let count = self.calls.fill(of, attribute, &descriptors);
            made.truncate(count.map_err(|error| format!("{attribute:?}: {error}"))?);
        }
        Ok(made)
    }

    /// An engine's number, settings and notes.
    fn read(&self, config: Made<C>) -> Result<Listed<C>, String> {
        let engine = self.filled(
            config.descriptor,
            Attribute::CUDNN_ATTR_ENGINECFG_ENGINE,
            Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR,
            1,
        )?;
        let engine = engine.first().ok_or("a configuration without an engine")?.descriptor;
        let index =
            self.number(engine, Attribute::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, Type::CUDNN_TYPE_INT64)?;
        let notes = self.calls.numbers(
            engine,
            Attribute::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
            Type::CUDNN_TYPE_NUMERICAL_NOTE,
            MOST_NOTES,
        )?;
        let knobs = self.filled(
            config.descriptor,
            Attribute::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
            Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
            MOST_KNOBS,
        )?;
        let knob = |knob: &Made<C>| {
            let kind = self.number(
                knob.descriptor,
                Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                Type::CUDNN_TYPE_KNOB_TYPE,
            )?;
            let value = self.number(
                knob.descriptor,
                Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                Type::CUDNN_TYPE_INT64,
            )?;
            Ok::<_, String>((kind, value))
        };
        let mut knobs = knobs.iter().map(knob).collect::<Result<Vec<_>, _>>()?;
        knobs.sort_unstable();
        let settings = knobs.into_iter().map(|(kind, value)| format!(" {kind}={value}"));
        let name = format!("engine {index}{}", settings.collect::<String>());
        Ok(Listed { name, config, notes })
    }

    fn number(&self, of: u64, attribute: Attribute, kind: Type) -> Result<i64, String> {
        let numbers = self.calls.numbers(of, attribute, kind, 1);
        let numbers = numbers.map_err(|error| format!("{attribute:?}: {error}"))?;
        numbers.first().copied().ok_or_else(|| format!("{attribute:?} has no value"))
    }

    /// A note for which an engine is not used: inputs are multiplied as they are stored, except that a run
    /// may ask for TF32, which tensor cores round f32 to. Winograd's and Fourier's ways stay: they are f32
    /// arithmetic, and the legacy interface takes them too.
    fn forbidden(&self, dtype: DType, engine: &Listed<C>) -> Option<Note> {
        let exact = dtype == DType::F32 && self.f32_products == F32Products::Exact;
        let tensor_core = exact.then_some(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
        let forbidden = [Some(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS), tensor_core];
        forbidden.into_iter().flatten().find(|note| engine.has(*note))
    }

    /// Makes the listed engines ready, runs each and times those between which there is a choice: the
    /// preferred one only if it works, otherwise the deterministic ones, otherwise the rest.
    fn measure_listed(
        &self,
        what: &Described<C>,
        mut listed: Vec<Listed<C>>,
        preferred: Option<&str>,
        operands: Operands,
        workspace: &C::Workspace,
        begun: f64,
    ) -> Measured<Rc<Engine<C>>> {
        let mut measured = Measured { candidates: Vec::new(), skipped: Vec::new() };
        let is_preferred = |name: &str| preferred == Some(name);
        // The order of the heuristics stays where nothing else counts.
        listed.sort_by_key(|one| (!is_preferred(&one.name), !one.is_deterministic()));
        for one in listed {
            let deterministic = one.is_deterministic();
            let seconds = self.searched.get() + self.calls.seconds() - begun;
            let most = if seconds > MOST_SECONDS { 1 } else { MOST_TIMED };
            let Measured { candidates, skipped } = &mut measured;
            let has_better = candidates.iter().any(|known: &Candidate<Rc<Engine<C>>>| {
                is_preferred(&known.algorithm.name) || (known.deterministic && !deterministic)
            });
            if has_better || candidates.len() >= most {
                break;
            }
            let name = one.name.clone();
            if let Some(note) = self.forbidden(what.dtype, &one) {
                skipped.push(format!("{name} has {note:?}"));
                continue;
            }
            let engine = self.ready(one).and_then(|engine| {
                let run = || self.start(what, &engine, operands, Some(workspace));
                run()?;
                let times = most > 1 && !is_preferred(&name);
                let milliseconds = if times { self.median(&run)? } else { 0.0 };
                Ok((engine, milliseconds))
            });
            match engine {
                Ok((engine, milliseconds)) => candidates.push(Candidate {
                    workspace_bytes: engine.workspace_bytes,
                    algorithm: Rc::new(engine),
                    milliseconds,
                    deterministic,
                }),
                Err(error) => skipped.push(format!("{name}: {error}")),
            }
        }
        measured
    }

    fn ready(&self, one: Listed<C>) -> Result<Engine<C>, String> {
        let Listed { name, config, .. } = one;
        let plan = Made::new(&self.calls, &description::execution_plan(config.descriptor))?;
        let bytes = self.number(
            plan.descriptor,
            Attribute::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
            Type::CUDNN_TYPE_INT64,
        )?;
        let workspace_bytes = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= WORKSPACE_LIMIT)
            .ok_or_else(|| format!("wants {bytes} bytes of workspace"))?;
        Ok(Engine { name, plan, _config: config, workspace_bytes })
    }

    fn start(
        &self,
        what: &Described<C>,
        engine: &Engine<C>,
        operands: Operands,
        workspace: Option<&C::Workspace>,
    ) -> Result<(), String> {
        let workspace = workspace.map_or(0, |workspace| self.calls.address(workspace));
        let pack = description::variant_pack(what.direction, operands, workspace)?;
        let pack = Made::new(&self.calls, &pack)?;
        self.calls.execute(engine.plan.descriptor, pack.descriptor)
    }

    fn median(&self, run: &dyn Fn() -> Result<(), String>) -> Result<f32, String> {
        let times = (0..TIMED).map(|_| self.calls.milliseconds(run));
        let mut times = times.collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable_by(f32::total_cmp);
        Ok(times.get(TIMED / 2).copied().unwrap_or(f32::INFINITY))
    }
}

impl<C: Calls> Library for Graph<C> {
    type Workspace = C::Workspace;
    type Descriptors = Described<C>;
    type Algorithm = Rc<Engine<C>>;

    fn identity(&self) -> String {
        format!("the graph interface of {}", self.calls.identity())
    }

    fn describe(&self, convolution: &Convolution) -> Result<Described<C>, String> {
        let parts = description::parts(convolution)?;
        let [x, weight, y, movement] = parts.each_ref().map(|part| Made::new(&self.calls, part));
        let [x, weight, y, movement] = [x?, weight?, y?, movement?];
        let numbers = [&x, &weight, &y, &movement].map(|part| part.descriptor);
        let operation = description::operation(convolution.direction, numbers);
        let operation = Made::new(&self.calls, &operation)?;
        let graph = description::operation_graph(operation.descriptor);
        Ok(Described {
            direction: convolution.direction,
            dtype: convolution.dtype,
            graph: Made::new(&self.calls, &graph)?,
            _operation: operation,
            _parts: vec![x, weight, y, movement],
        })
    }

    fn workspace(&self, bytes: usize) -> Result<C::Workspace, String> {
        self.calls.workspace(bytes)
    }

    fn measure(
        &self,
        what: &Described<C>,
        preferred: Option<&str>,
        operands: Operands,
        workspace: &C::Workspace,
    ) -> Result<Measured<Rc<Engine<C>>>, String> {
        let begun = self.calls.seconds();
        let mut skipped = Vec::new();
        let mut candidates = Vec::new();
        // The others answer where the first knows nothing that works.
        for mode in MODES {
            match self.listed(what, mode) {
                Ok(listed) => {
                    let measured =
                        self.measure_listed(what, listed, preferred, operands, workspace, begun);
                    skipped.extend(measured.skipped);
                    candidates = measured.candidates;
                }
                Err(error) => skipped.push(format!("{mode:?}: {error}")),
            }
            if !candidates.is_empty() {
                break;
            }
        }
        self.searched.set(self.searched.get() + self.calls.seconds() - begun);
        Ok(Measured { candidates, skipped })
    }

    fn name(&self, algorithm: &Rc<Engine<C>>) -> String {
        algorithm.name.clone()
    }

    fn run(
        &self,
        what: &Described<C>,
        algorithm: &Rc<Engine<C>>,
        operands: Operands,
        workspace: Option<&C::Workspace>,
    ) -> Result<(), String> {
        self.start(what, algorithm, operands, workspace)
    }
}
