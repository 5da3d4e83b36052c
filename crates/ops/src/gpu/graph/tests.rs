//! The graph interface against a library that writes down its calls.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;
use crate::Conv2dSpec;
use crate::conv::Geometry;
use crate::gpu::plans::{Plans, Table as _};

/// A fake engine.
#[derive(Debug, Clone)]
struct Fake {
    index: i64,
    knobs: Vec<(i64, i64)>,
    notes: Vec<i64>,
    workspace: i64,
    milliseconds: f32,
    /// Why its plan cannot be made.
    fails: Option<&'static str>,
}

fn fake(index: i64, milliseconds: f32) -> Fake {
    Fake { index, knobs: Vec::new(), notes: Vec::new(), workspace: 0, milliseconds, fails: None }
}

impl Fake {
    fn with(self, note: Note) -> Self {
        Self { notes: vec![note as i64], ..self }
    }
}

/// The contents of a descriptor.
#[derive(Debug, Clone)]
enum Behind {
    Mode(i64),
    Engine(Fake),
    Knob(i64, i64),
}

#[derive(Debug, Default)]
struct Recorder {
    /// The engines that each mode lists.
    lists: BTreeMap<i64, Vec<Fake>>,
    seconds_a_call: f64,
    calls: RefCell<Vec<String>>,
    created: Cell<u64>,
    alive: Cell<i64>,
    behind: RefCell<BTreeMap<u64, Behind>>,
    clock: Cell<f64>,
    executed: Cell<u64>,
}

impl Recorder {
    fn listing(engines: &[Fake]) -> Self {
        let mode = HeuristicsMode::CUDNN_HEUR_MODE_A as i64;
        Self { lists: [(mode, engines.to_vec())].into(), ..Self::default() }
    }

    fn log(&self, call: String) {
        self.calls.borrow_mut().push(call);
    }

    fn engine(&self, descriptor: u64) -> Result<Fake, String> {
        match self.behind.borrow().get(&descriptor) {
            Some(Behind::Engine(engine)) => Ok(engine.clone()),
            other => Err(format!("{descriptor} is {other:?}")),
        }
    }

    fn listed(&self, heuristics: u64) -> Result<Vec<Fake>, String> {
        match self.behind.borrow().get(&heuristics) {
            Some(Behind::Mode(mode)) => {
                self.lists.get(mode).cloned().ok_or_else(|| "NOT_SUPPORTED".into())
            }
            other => Err(format!("{heuristics} is {other:?}")),
        }
    }
}

impl Calls for Rc<Recorder> {
    type Workspace = usize;

    fn identity(&self) -> String {
        "a recorder".into()
    }

    fn create(&self, kind: Kind) -> Result<u64, String> {
        self.created.set(self.created.get() + 1);
        self.alive.set(self.alive.get() + 1);
        self.log(format!("{}: {kind:?}", self.created.get()));
        Ok(self.created.get())
    }

    fn set(&self, of: u64, attribute: Attribute, value: &Value) -> Result<(), String> {
        self.log(format!("{of}: {attribute:?} = {value:?}"));
        let mut behind = self.behind.borrow_mut();
        match (attribute, value) {
            (Attribute::CUDNN_ATTR_ENGINEHEUR_MODE, Value::Enum(_, mode)) => {
                behind.insert(of, Behind::Mode((*mode).into()));
            }
            (Attribute::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, Value::Descriptors(configs)) => {
                let config = configs.first().and_then(|config| behind.get(config)).cloned();
                behind.insert(of, config.ok_or("no such configuration")?);
            }
            _ => {}
        }
        Ok(())
    }

    fn finalize(&self, of: u64) -> Result<(), String> {
        self.log(format!("finalize {of}"));
        let engine = self.engine(of).ok();
        engine.and_then(|engine| engine.fails).map_or(Ok(()), |why| Err(why.into()))
    }

    fn destroy(&self, of: u64) {
        self.alive.set(self.alive.get() - 1);
        self.log(format!("destroy {of}"));
    }

    fn count(&self, of: u64, _: Attribute, _: Type) -> Result<usize, String> {
        Ok(self.listed(of)?.len())
    }

    fn numbers(
        &self,
        of: u64,
        attribute: Attribute,
        _: Type,
        room: usize,
    ) -> Result<Vec<i64>, String> {
        let behind = self.behind.borrow().get(&of).cloned();
        let mut numbers = match (attribute, behind) {
            (Attribute::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, Some(Behind::Engine(engine))) => {
                vec![engine.index]
            }
            (Attribute::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Some(Behind::Engine(engine))) => {
                engine.notes
            }
            (Attribute::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Some(Behind::Engine(engine))) => {
                vec![engine.workspace]
            }
            (Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, Some(Behind::Knob(kind, _))) => {
                vec![kind]
            }
            (Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, Some(Behind::Knob(_, value))) => {
                vec![value]
            }
            other => return Err(format!("{other:?}")),
        };
        numbers.truncate(room);
        Ok(numbers)
    }

    fn fill(&self, of: u64, attribute: Attribute, into: &[u64]) -> Result<usize, String> {
        let values: Vec<Behind> = match attribute {
            Attribute::CUDNN_ATTR_ENGINEHEUR_RESULTS => {
                self.listed(of)?.into_iter().map(Behind::Engine).collect()
            }
            Attribute::CUDNN_ATTR_ENGINECFG_ENGINE => vec![Behind::Engine(self.engine(of)?)],
            Attribute::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES => {
                let knobs = self.engine(of)?.knobs.into_iter();
                knobs.map(|(kind, value)| Behind::Knob(kind, value)).collect()
            }
            other => return Err(format!("{other:?}")),
        };
        let count = values.len();
        self.behind.borrow_mut().extend(into.iter().copied().zip(values));
        Ok(count)
    }

    fn execute(&self, plan: u64, variant_pack: u64) -> Result<(), String> {
        self.log(format!("execute {plan} with {variant_pack}"));
        self.executed.set(plan);
        Ok(())
    }

    fn workspace(&self, bytes: usize) -> Result<usize, String> {
        Ok(bytes)
    }

    fn address(&self, _: &usize) -> u64 {
        4096
    }

    fn milliseconds(&self, work: &dyn Fn() -> Result<(), String>) -> Result<f32, String> {
        work()?;
        let engine = self.engine(self.executed.get())?;
        self.log(format!("time engine {}", engine.index));
        Ok(engine.milliseconds)
    }

    fn seconds(&self) -> f64 {
        self.clock.set(self.clock.get() + self.seconds_a_call);
        self.clock.get()
    }
}

const OPERANDS: Operands = Operands { a: 16, b: 32, out: 48 };

fn convolution(direction: Direction, dtype: DType) -> Convolution {
    let spec = Conv2dSpec { stride: 2, padding: 1, dilation: 1, groups: 2 };
    let geometry = Geometry::new("", [2, 4, 9, 7], [8, 2, 3, 3], spec).unwrap();
    Convolution { direction, geometry, dtype }
}

fn plans(recorder: Recorder, products: F32Products) -> (Plans<Graph<Rc<Recorder>>>, Rc<Recorder>) {
    let recorder = Rc::new(recorder);
    (Plans::new(Graph::new(Rc::clone(&recorder), products)), recorder)
}

/// The last line of the choices: what was chosen for `convolution`.
fn choice(plans: &Plans<Graph<Rc<Recorder>>>) -> String {
    let choices = plans.choices();
    choices.lines().last().and_then(|line| line.split_once("bf16: ")).unwrap().1.to_owned()
}

/// Runs a forward convolution in bf16 once; what was chosen, and the engines that were timed, in order.
fn chosen(recorder: Recorder, preferred: &str) -> Result<(String, Vec<String>), String> {
    let (mut plans, recorder) = plans(recorder, F32Products::Exact);
    plans.prefer(preferred)?;
    plans.run(&convolution(Direction::Forward, DType::BF16), OPERANDS)?;
    let calls = recorder.calls.borrow();
    let mut timed: Vec<String> =
        calls.iter().filter_map(|call| Some(call.strip_prefix("time ")?.to_owned())).collect();
    timed.dedup();
    Ok((choice(&plans), timed))
}

#[test]
fn every_descriptor_is_told_in_its_order() {
    let engine = Fake { workspace: 64, ..fake(7, 1.0) };
    let (mut plans, recorder) = plans(Recorder::listing(&[engine]), F32Products::Exact);
    plans.run(&convolution(Direction::Forward, DType::BF16), OPERANDS).unwrap();
    let calls = recorder.calls.take();
    let expected = "\
1: CUDNN_BACKEND_TENSOR_DESCRIPTOR
1: CUDNN_ATTR_TENSOR_DATA_TYPE = Enum(CUDNN_TYPE_DATA_TYPE, 9)
1: CUDNN_ATTR_TENSOR_DIMENSIONS = Int64([2, 4, 9, 7])
1: CUDNN_ATTR_TENSOR_STRIDES = Int64([252, 1, 28, 4])
1: CUDNN_ATTR_TENSOR_UNIQUE_ID = Int64([1])
1: CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT = Int64([16])
finalize 1
2: CUDNN_BACKEND_TENSOR_DESCRIPTOR
2: CUDNN_ATTR_TENSOR_DATA_TYPE = Enum(CUDNN_TYPE_DATA_TYPE, 9)
2: CUDNN_ATTR_TENSOR_DIMENSIONS = Int64([8, 2, 3, 3])
2: CUDNN_ATTR_TENSOR_STRIDES = Int64([18, 1, 6, 2])
2: CUDNN_ATTR_TENSOR_UNIQUE_ID = Int64([2])
2: CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT = Int64([16])
finalize 2
3: CUDNN_BACKEND_TENSOR_DESCRIPTOR
3: CUDNN_ATTR_TENSOR_DATA_TYPE = Enum(CUDNN_TYPE_DATA_TYPE, 9)
3: CUDNN_ATTR_TENSOR_DIMENSIONS = Int64([2, 8, 5, 4])
3: CUDNN_ATTR_TENSOR_STRIDES = Int64([160, 1, 32, 8])
3: CUDNN_ATTR_TENSOR_UNIQUE_ID = Int64([3])
3: CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT = Int64([16])
finalize 3
4: CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR
4: CUDNN_ATTR_CONVOLUTION_COMP_TYPE = Enum(CUDNN_TYPE_DATA_TYPE, 0)
4: CUDNN_ATTR_CONVOLUTION_CONV_MODE = Enum(CUDNN_TYPE_CONVOLUTION_MODE, 1)
4: CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS = Int64([2])
4: CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS = Int64([1, 1])
4: CUDNN_ATTR_CONVOLUTION_POST_PADDINGS = Int64([1, 1])
4: CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES = Int64([2, 2])
4: CUDNN_ATTR_CONVOLUTION_DILATIONS = Int64([1, 1])
finalize 4
5: CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR
5: CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X = Descriptors([1])
5: CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W = Descriptors([2])
5: CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y = Descriptors([3])
5: CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC = Descriptors([4])
5: CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA = Float(1.0)
5: CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA = Float(0.0)
finalize 5
6: CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR
6: CUDNN_ATTR_OPERATIONGRAPH_HANDLE = Handle
6: CUDNN_ATTR_OPERATIONGRAPH_OPS = Descriptors([5])
finalize 6
7: CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR
7: CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH = Descriptors([6])
7: CUDNN_ATTR_ENGINEHEUR_MODE = Enum(CUDNN_TYPE_HEUR_MODE, 3)
finalize 7
8: CUDNN_BACKEND_ENGINECFG_DESCRIPTOR
9: CUDNN_BACKEND_ENGINE_DESCRIPTOR";
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let n_expected = expected.lines().count();
    assert_eq!(calls[..n_expected].join("\n"), expected);
    // Then room for knobs, of which there are none, is made and given back; the plan is made and run.
    let last = 9 + MOST_KNOBS as u64;
    let (plan, pack) = (last + 1, last + 2);
    let expected = format!(
        "\
{plan}: CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR
{plan}: CUDNN_ATTR_EXECUTION_PLAN_HANDLE = Handle
{plan}: CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG = Descriptors([8])
finalize {plan}
{pack}: CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR
{pack}: CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS = Int64([1, 2, 3])
{pack}: CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS = Pointers([16, 32, 48])
{pack}: CUDNN_ATTR_VARIANT_PACK_WORKSPACE = Pointers([4096])
finalize {pack}
execute {plan} with {pack}
destroy {pack}"
    );
    let from = calls.iter().position(|call| *call == expected.lines().next().unwrap()).unwrap();
    assert_eq!(calls[from..from + expected.lines().count()].join("\n"), expected);
    assert_eq!(calls.iter().filter(|call| **call == "time engine 7").count(), TIMED);
}

#[test]
fn a_value_has_the_type_of_its_elements() {
    for (value, expected) in [
        (Value::Handle, Type::CUDNN_TYPE_HANDLE),
        (Value::Enum(Type::CUDNN_TYPE_HEUR_MODE, 3), Type::CUDNN_TYPE_HEUR_MODE),
        (Value::Int64(vec![1]), Type::CUDNN_TYPE_INT64),
        (Value::Float(1.0), Type::CUDNN_TYPE_FLOAT),
        (Value::Pointers(vec![1]), Type::CUDNN_TYPE_VOID_PTR),
        (Value::Descriptors(vec![1]), Type::CUDNN_TYPE_BACKEND_DESCRIPTOR),
    ] {
        assert_eq!(value.kind(), expected, "{value:?}");
    }
}

#[test]
fn a_later_computation_hands_over_addresses_alone() {
    let (mut plans, recorder) = plans(Recorder::listing(&[fake(7, 1.0)]), F32Products::Exact);
    let forward = convolution(Direction::Forward, DType::BF16);
    plans.run(&forward, OPERANDS).unwrap();
    let (mut alike, before) = (Vec::new(), recorder.created.get());
    recorder.calls.take();
    plans.run(&forward, OPERANDS).unwrap();
    alike.push(recorder.calls.take().len());
    plans.run_planned(&forward, OPERANDS).unwrap();
    let calls = recorder.calls.take();
    alike.push(calls.len());
    assert_eq!(alike, [7, 7]);
    assert_eq!(recorder.created.get(), before + 2);
    // This engine wants no workspace, so none is handed over.
    let workspace = "CUDNN_ATTR_VARIANT_PACK_WORKSPACE = Pointers([0])";
    assert!(calls.iter().any(|call| call.ends_with(workspace)), "{calls:?}");
    // All that was made is given back, and nothing twice.
    drop(plans);
    assert_eq!(recorder.alive.get(), 0);
}

#[test]
fn each_direction_has_its_operation_and_its_order_of_addresses() {
    for (direction, kind, attributes, addresses) in [
        (Direction::InputGradient, "BACKWARD_DATA", ["DX", "W", "DY"], [48, 16, 32]),
        (Direction::WeightGradient, "BACKWARD_FILTER", ["X", "DW", "DY"], [16, 48, 32]),
    ] {
        let (mut plans, recorder) = plans(Recorder::listing(&[fake(7, 1.0)]), F32Products::Exact);
        plans.run(&convolution(direction, DType::F32), OPERANDS).unwrap();
        let calls = recorder.calls.take();
        let expected = format!("5: CUDNN_BACKEND_OPERATION_CONVOLUTION_{kind}_DESCRIPTOR");
        assert!(calls.contains(&expected), "{calls:?}");
        let short = kind.replace("BACKWARD", "BWD");
        for (attribute, part) in attributes.into_iter().chain(["CONV_DESC"]).zip(1..) {
            let expected = format!(
                "5: CUDNN_ATTR_OPERATION_CONVOLUTION_{short}_{attribute} = Descriptors([{part}])"
            );
            assert!(calls.contains(&expected), "no {expected} in {calls:?}");
        }
        let pointers = format!("DATA_POINTERS = Pointers({addresses:?})");
        assert!(calls.iter().any(|call| call.ends_with(&pointers)), "{calls:?}");
        assert!(
            calls
                .contains(&"1: CUDNN_ATTR_TENSOR_DATA_TYPE = Enum(CUDNN_TYPE_DATA_TYPE, 0)".into())
        );
    }
}

#[test]
fn the_fastest_of_the_first_four_that_work_is_taken() {
    let failing = Fake { fails: Some("NOT_SUPPORTED"), ..fake(1, 0.1) };
    let greedy = Fake { workspace: (1 << 30) + 1, ..fake(2, 0.1) };
    let knobs = Fake { knobs: vec![(24, 1), (2, 3)], ..fake(5, 2.0) };
    let engines = [failing, greedy, fake(3, 4.0), fake(4, 3.0), knobs, fake(6, 5.0), fake(7, 0.5)];
    let (choice, timed) = chosen(Recorder::listing(&engines), "").unwrap();
    // The settings in the order of their numbers, for the library may list them in any.
    assert_eq!(choice, "engine 5 2=3 24=1");
    assert_eq!(timed, ["engine 3", "engine 4", "engine 5", "engine 6"]);
}

#[test]
fn engines_whose_bits_vary_are_for_want_of_others() {
    let varying = |index| fake(index, 0.1).with(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    let engines = [varying(1), fake(2, 1.0), varying(3), fake(4, 2.0)];
    let (choice, timed) = chosen(Recorder::listing(&engines), "").unwrap();
    assert_eq!((choice.as_str(), timed.len()), ("engine 2", 2));
    let failing = Fake { fails: Some("NOT_SUPPORTED"), ..fake(2, 1.0) };
    let (choice, timed) = chosen(Recorder::listing(&[varying(1), failing]), "").unwrap();
    assert_eq!((choice.as_str(), timed.len()), ("engine 1 (its bits vary)", 1));
}

#[test]
fn numbers_are_multiplied_as_they_are_stored() {
    let core = fake(1, 0.1).with(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    let down = fake(2, 0.1).with(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
    let engines = [down, core, fake(3, 1.0)];
    for (dtype, products, expected) in [
        (DType::F32, F32Products::Exact, "engine 3"),
        (DType::F32, F32Products::Tf32, "engine 1"),
        (DType::BF16, F32Products::Exact, "engine 1"),
    ] {
        let (mut plans, _) = plans(Recorder::listing(&engines), products);
        plans.run(&convolution(Direction::Forward, dtype), OPERANDS).unwrap();
        let choices = plans.choices();
        assert!(choices.ends_with(&format!(": {expected}\n")), "{dtype:?} {products:?}: {choices}");
    }
}

#[test]
fn other_heuristics_are_asked_where_the_first_has_nothing() {
    let fallback = HeuristicsMode::CUDNN_HEUR_MODE_FALLBACK as i64;
    let failing = Fake { fails: Some("NOT_SUPPORTED"), ..fake(1, 1.0) };
    let mut recorder = Recorder::listing(&[failing]);
    recorder.lists.insert(fallback, vec![fake(9, 1.0)]);
    assert_eq!(chosen(recorder, "").unwrap().0, "engine 9");
    // If no engine works, everything that was tried is reported.
    let down = fake(2, 1.0).with(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
    let failing = Fake { fails: Some("NOT_SUPPORTED"), ..fake(1, 1.0) };
    let greedy = Fake { workspace: -1, ..fake(3, 1.0) };
    let error = chosen(Recorder::listing(&[failing, down, greedy]), "").unwrap_err();
    let found = "found: [engine 1: CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: NOT_SUPPORTED, \
                 engine 2 has CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS, \
                 engine 3: wants -1 bytes of workspace, \
                 CUDNN_HEUR_MODE_B: NOT_SUPPORTED, CUDNN_HEUR_MODE_FALLBACK: NOT_SUPPORTED]";
    assert!(
        error.contains(": no algorithm works with at most ") && error.ends_with(found),
        "{error}"
    );
}

#[test]
fn a_choice_of_before_is_taken_without_a_measurement() {
    let engines = [fake(1, 1.0), fake(2, 2.0)];
    let (choice, timed) = chosen(Recorder::listing(&engines), "").unwrap();
    assert_eq!((choice.as_str(), timed.len()), ("engine 1", 2));
    let name = "Forward 2x4x9x7 to 8 by 3 stride 2 padding 1 dilation 1 groups 2 bf16";
    let by = "chosen by the graph interface of a recorder";
    let (choice, timed) =
        chosen(Recorder::listing(&engines), &format!("{by}\n{name}: engine 2\n")).unwrap();
    assert_eq!((choice.as_str(), timed.len()), ("engine 2", 0));
    // One that does not work any more, one of the legacy interface, and one of elsewhere.
    let failing = [fake(1, 1.0), Fake { fails: Some("NOT_SUPPORTED"), ..fake(2, 2.0) }];
    for (engines, text) in [
        (&failing, format!("{by}\n{name}: engine 2\n")),
        (&engines, format!("{name}: 11\n")),
        (&engines, format!("{by} of another version\n{name}: engine 2\n")),
    ] {
        let (choice, timed) = chosen(Recorder::listing(engines), &text).unwrap();
        assert_eq!(choice, "engine 1", "{text}");
        assert!(timed.contains(&"engine 1".to_owned()), "{timed:?}");
    }
}

#[test]
fn a_long_search_ends_with_the_first_that_works() {
    let failing = Fake { fails: Some("NOT_SUPPORTED"), ..fake(1, 1.0) };
    let recorder = Recorder {
        seconds_a_call: 30.0,
        ..Recorder::listing(&[failing, fake(2, 2.0), fake(3, 1.0)])
    };
    let (choice, timed) = chosen(recorder, "").unwrap();
    assert_eq!((choice.as_str(), timed.len()), ("engine 2", 0));
}

#[test]
fn an_address_across_the_alignment_is_refused_before_the_device_is() {
    let (mut plans, _) = plans(Recorder::listing(&[fake(1, 1.0)]), F32Products::Exact);
    let forward = convolution(Direction::Forward, DType::BF16);
    plans.run(&forward, OPERANDS).unwrap();
    let error = plans.run(&forward, Operands { b: 40, ..OPERANDS }).unwrap_err();
    let expected = "Forward 2x4x9x7 to 8 by 3 stride 2 padding 1 dilation 1 groups 2 bf16 by engine 1: a tensor \
                    at 0x28 is not aligned to 16 bytes; run.conv_backend = \"legacy\" takes it";
    assert_eq!(error, expected);
}
