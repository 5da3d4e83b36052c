//! Which algorithm a convolution library uses for which shape: measured once, then kept.
//!
//! Algorithms that give the same bits each time are taken, so that a step repeated on a device repeats its
//! result; where there is none, one whose bits vary, which is reported with the choice. The choice can be
//! reported and asked for again, since a second measurement may prefer another algorithm, whose bits differ. All convolutions share one workspace, as large as the
//! neediest, so that none is allocated once each shape was seen.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use super::Convolution;
use super::choices::{self, ConvolutionKey, Saved, name};
use crate::device::OutdatedChoices;
use crate::device::choices::BITS_VARY;

/// Workspace that algorithms may ask for at most. ResNet-50's fastest at 256 images of 224² ask for less.
pub(crate) const WORKSPACE_LIMIT: usize = 1 << 30;

/// The interface of a convolution library.
pub(crate) trait Library {
    /// Memory on the device, given back when dropped.
    type Workspace;
    /// The library's descriptors of a convolution.
    type Descriptors;
    /// How it names an algorithm.
    type Algorithm: Clone;

    /// Its name, with everything that its algorithms' names depend on: interface, version and device.
    fn identity(&self) -> String;

    /// Describes a convolution.
    fn describe(&self, convolution: &Convolution) -> Result<Self::Descriptors, String>;

    /// Memory of so many bytes.
    fn workspace(&self, bytes: usize) -> Result<Self::Workspace, String>;

    /// Runs algorithms between which there is a choice and reports on each. Where the preferred one, which
    /// was chosen before, is among them, the others may be left out.
    fn measure(
        &self,
        what: &Self::Descriptors,
        preferred: Option<&str>,
        operands: Operands,
        workspace: &Self::Workspace,
    ) -> Result<Measured<Self::Algorithm>, String>;

    /// A name of an algorithm that means the same in another process, without `: `.
    fn name(&self, algorithm: &Self::Algorithm) -> String;

    /// Computes by an algorithm that `measure` reported.
    fn run(
        &self,
        what: &Self::Descriptors,
        algorithm: &Self::Algorithm,
        operands: Operands,
        workspace: Option<&Self::Workspace>,
    ) -> Result<(), String>;
}

/// Addresses on the device: both inputs in the order of [`Convolution`], and the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operands {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) out: u64,
}

/// The result of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Measured<A> {
    pub(crate) candidates: Vec<Candidate<A>>,
    /// The algorithms that cannot be used, each with the reason.
    pub(crate) skipped: Vec<String>,
}

/// An algorithm that can compute a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate<A> {
    pub(crate) algorithm: A,
    pub(crate) milliseconds: f32,
    pub(crate) workspace_bytes: usize,
    /// Whether its bits are the same each time.
    pub(crate) deterministic: bool,
}

struct Plan<L: Library> {
    what: L::Descriptors,
    algorithm: L::Algorithm,
    workspace_bytes: usize,
    deterministic: bool,
}

/// The plans so far and the workspace.
pub(crate) struct Plans<L: Library> {
    library: L,
    plans: BTreeMap<ConvolutionKey, Plan<L>>,
    /// Algorithms that are taken where they can be, whatever is faster.
    preferred: BTreeMap<String, String>,
    workspace: Shared<L>,
}

/// The workspace and its size. Recorded work holds the one that it was recorded with.
type Shared<L> = Option<(usize, Rc<<L as Library>::Workspace>)>;

/// The plans of any library whose workspaces are `W`.
pub(crate) trait Table<W> {
    /// The algorithm of each shape so far, a line each, and before them who chose.
    fn choices(&self) -> String;

    /// Takes these choices again for shapes that are yet to come, unless another library or device chose.
    fn prefer(&mut self, choices: &str) -> Result<Option<OutdatedChoices>, String>;

    /// Computes a convolution, after measuring if this is the first of its shape.
    fn run(&mut self, convolution: &Convolution, operands: Operands) -> Result<(), String>;

    /// Computes a convolution whose shape was computed before.
    fn run_planned(&self, convolution: &Convolution, operands: Operands) -> Result<(), String>;

    /// The workspace that the next convolution would use.
    fn workspace(&self) -> Option<Rc<W>>;
}

impl<L: Library> Plans<L> {
    pub(crate) fn new(library: L) -> Self {
        Self { library, plans: BTreeMap::new(), preferred: BTreeMap::new(), workspace: None }
    }
}

impl<L: Library> Table<L::Workspace> for Plans<L> {
    fn choices(&self) -> String {
        let line = |(key, plan): (&ConvolutionKey, &Plan<L>)| {
            let note = if plan.deterministic { "" } else { BITS_VARY };
            choices::line(&name(key), &self.library.name(&plan.algorithm), note)
        };
        let header = choices::header(&self.library.identity());
        std::iter::once(header).chain(self.plans.iter().map(line)).collect()
    }

    fn prefer(&mut self, choices: &str) -> Result<Option<OutdatedChoices>, String> {
        match choices::read(choices, &self.library.identity())? {
            Saved::Choices(choices) => {
                self.preferred.extend(choices);
                Ok(None)
            }
            Saved::Outdated(outdated) => Ok(Some(outdated)),
        }
    }

    fn run(&mut self, convolution: &Convolution, operands: Operands) -> Result<(), String> {
        let key = ConvolutionKey::from(convolution);
        let Self { library, plans, preferred, workspace } = self;
        let plan = match plans.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let preferred = preferred.get(&name(&key)).map(String::as_str);
                let measured = measure(library, preferred, workspace, convolution, operands);
                place.insert(measured.map_err(|what| format!("{}: {what}", name(&key)))?)
            }
        };
        compute(library, &key, plan, operands, workspace.as_ref())
    }

    fn run_planned(&self, convolution: &Convolution, operands: Operands) -> Result<(), String> {
        let key = ConvolutionKey::from(convolution);
        let plan = self.plans.get(&key).ok_or_else(|| {
            format!("{} was never computed before the recording, which cannot measure", name(&key))
        })?;
        compute(&self.library, &key, plan, operands, self.workspace.as_ref())
    }

    fn workspace(&self) -> Option<Rc<L::Workspace>> {
        self.workspace.as_ref().map(|(_, workspace)| Rc::clone(workspace))
    }
}

fn compute<L: Library>(
    library: &L,
    key: &ConvolutionKey,
    plan: &Plan<L>,
    operands: Operands,
    workspace: Option<&(usize, Rc<L::Workspace>)>,
) -> Result<(), String> {
    let workspace = workspace.map(|(_, workspace)| &**workspace);
    let workspace = workspace.filter(|_| plan.workspace_bytes > 0);
    library
        .run(&plan.what, &plan.algorithm, operands, workspace)
        .map_err(|what| format!("{} by {}: {what}", name(key), library.name(&plan.algorithm)))
}

/// Makes a plan, and the workspace as large as it needs.
fn measure<L: Library>(
    library: &L,
    preferred: Option<&str>,
    workspace: &mut Shared<L>,
    convolution: &Convolution,
    operands: Operands,
) -> Result<Plan<L>, String> {
    let what = library.describe(convolution)?;
    // The old workspace and the large one at a time would be a peak that the run never needs again.
    let before = workspace.take().map_or(0, |(bytes, _)| bytes);
    let large = library.workspace(WORKSPACE_LIMIT)?;
    let measured = library.measure(&what, preferred, operands, &large);
    drop(large);
    let Measured { candidates, skipped } = measured?;
    let usable = || candidates.iter().filter(|one| one.workspace_bytes <= WORKSPACE_LIMIT);
    let is_preferred = |name: &str| preferred == Some(name);
    let known = usable().find(|candidate| is_preferred(&library.name(&candidate.algorithm)));
    let same_bits = || fastest(usable().filter(|candidate| candidate.deterministic));
    let chosen = known.or_else(same_bits).or_else(|| fastest(usable())).ok_or_else(|| {
        let greedy = |candidate: &Candidate<L::Algorithm>| {
            let name = library.name(&candidate.algorithm);
            format!("{name} with {} bytes", candidate.workspace_bytes)
        };
        let found: Vec<_> = candidates.iter().map(greedy).chain(skipped).collect();
        format!(
            "no algorithm works with at most {WORKSPACE_LIMIT} bytes of workspace; found: [{}]",
            found.join(", ")
        )
    })?;
    let wanted = chosen.workspace_bytes.max(before);
    if wanted > 0 {
        *workspace = Some((wanted, Rc::new(library.workspace(wanted)?)));
    }
    let Candidate { ref algorithm, workspace_bytes, deterministic, .. } = *chosen;
    Ok(Plan { what, algorithm: algorithm.clone(), workspace_bytes, deterministic })
}

fn fastest<'a, A>(candidates: impl Iterator<Item = &'a Candidate<A>>) -> Option<&'a Candidate<A>> {
    candidates.min_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use candle_core::DType;

    use super::super::convolution::Direction;
    use super::*;
    use crate::Conv2dSpec;
    use crate::conv::Geometry;

    /// Records what it is asked; answers with the same candidates each time.
    struct Recorder {
        calls: Rc<RefCell<Vec<String>>>,
        candidates: Vec<Candidate<u32>>,
        skipped: Vec<String>,
    }

    impl Recorder {
        fn new(calls: &Rc<RefCell<Vec<String>>>, candidates: &[Candidate<u32>]) -> Self {
            Self { calls: Rc::clone(calls), candidates: candidates.to_vec(), skipped: Vec::new() }
        }
    }

    struct Memory(usize, Rc<RefCell<Vec<String>>>);

    impl Drop for Memory {
        fn drop(&mut self) {
            self.1.borrow_mut().push(format!("free {}", self.0));
        }
    }

    impl Library for Recorder {
        type Workspace = Memory;
        type Descriptors = Convolution;
        type Algorithm = u32;

        fn identity(&self) -> String {
            "this library".into()
        }

        fn describe(&self, convolution: &Convolution) -> Result<Convolution, String> {
            Ok(*convolution)
        }

        fn workspace(&self, bytes: usize) -> Result<Memory, String> {
            self.calls.borrow_mut().push(format!("alloc {bytes}"));
            Ok(Memory(bytes, Rc::clone(&self.calls)))
        }

        fn measure(
            &self,
            convolution: &Convolution,
            _: Option<&str>,
            _: Operands,
            workspace: &Memory,
        ) -> Result<Measured<u32>, String> {
            let what = format!("measure {:?} with {}", convolution.direction, workspace.0);
            self.calls.borrow_mut().push(what);
            Ok(Measured { candidates: self.candidates.clone(), skipped: self.skipped.clone() })
        }

        fn name(&self, algorithm: &u32) -> String {
            algorithm.to_string()
        }

        fn run(
            &self,
            convolution: &Convolution,
            algorithm: &u32,
            operands: Operands,
            workspace: Option<&Memory>,
        ) -> Result<(), String> {
            let bytes = workspace.map(|memory| memory.0);
            let Operands { a, b, out } = operands;
            let what = format!(
                "run {:?} by {algorithm} on {a} {b} {out} with {bytes:?}",
                convolution.direction
            );
            self.calls.borrow_mut().push(what);
            if *algorithm == BROKEN { Err("CUDNN_STATUS_EXECUTION_FAILED".into()) } else { Ok(()) }
        }
    }

    /// An algorithm that was measured and then fails.
    const BROKEN: u32 = 99;

    fn candidate(algorithm: u32, milliseconds: f32, workspace_bytes: usize) -> Candidate<u32> {
        Candidate { algorithm, milliseconds, workspace_bytes, deterministic: true }
    }

    fn convolution(direction: Direction, n: usize) -> Convolution {
        let spec = Conv2dSpec::new(2, 1);
        let geometry = Geometry::new("", [n, 4, 9, 9], [8, 4, 3, 3], spec).unwrap();
        Convolution { direction, geometry, dtype: DType::BF16 }
    }

    /// Of `convolution(Direction::Forward, 2)`.
    const NAME: &str = "Forward 2x4x9x9 to 8 by 3 stride 2 padding 1 dilation 1 groups 1 bf16";
    const OPERANDS: Operands = Operands { a: 1, b: 2, out: 3 };

    #[test]
    fn a_shape_is_measured_once_and_the_workspace_is_kept() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let candidates = [candidate(5, 2.0, 64), candidate(1, 1.0, 4096)];
        let mut plans = Plans::new(Recorder::new(&calls, &candidates));
        let forward = convolution(Direction::Forward, 2);
        for _ in 0..2 {
            plans.run(&forward, OPERANDS).unwrap();
        }
        let limit = WORKSPACE_LIMIT;
        let expected = [
            format!("alloc {limit}"),
            format!("measure Forward with {limit}"),
            format!("free {limit}"),
            "alloc 4096".into(),
            "run Forward by 1 on 1 2 3 with Some(4096)".into(),
            "run Forward by 1 on 1 2 3 with Some(4096)".into(),
        ];
        assert_eq!(calls.take(), expected);
        // Another direction, batch or way to store numbers is another plan.
        for other in [
            convolution(Direction::WeightGradient, 2),
            convolution(Direction::Forward, 3),
            Convolution { dtype: DType::F32, ..forward },
        ] {
            plans.run(&other, OPERANDS).unwrap();
            let calls = calls.take();
            assert!(calls.iter().any(|call| call.starts_with("measure")), "{calls:?}");
        }
        plans.run(&forward, OPERANDS).unwrap();
        assert_eq!(calls.take(), ["run Forward by 1 on 1 2 3 with Some(4096)"]);
    }

    #[test]
    fn a_recording_takes_what_was_measured_and_its_workspace_outlives_a_larger_one() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let mut plans = Plans::new(Recorder::new(&calls, &[candidate(1, 1.0, 64)]));
        let forward = convolution(Direction::Forward, 2);
        assert!(plans.workspace().is_none());
        let error = plans.run_planned(&forward, OPERANDS).unwrap_err();
        assert!(error.contains("was never computed before the recording"), "{error}");
        assert!(calls.take().is_empty());
        plans.run(&forward, OPERANDS).unwrap();
        calls.take();
        plans.run_planned(&forward, OPERANDS).unwrap();
        assert_eq!(calls.take(), ["run Forward by 1 on 1 2 3 with Some(64)"]);
        let recorded = plans.workspace().unwrap();
        plans.library.candidates = vec![candidate(1, 1.0, 128)];
        plans.run(&convolution(Direction::Forward, 3), OPERANDS).unwrap();
        assert!(!calls.take().contains(&"free 64".to_owned()));
        assert_eq!((recorded.0, plans.workspace().unwrap().0), (64, 128));
        drop(recorded);
        assert_eq!(calls.take(), ["free 64"]);
    }

    #[test]
    fn the_fastest_that_may_be_used_is_chosen() {
        let varying = Candidate { deterministic: false, ..candidate(1, 0.2, 0) };
        let greedy = candidate(2, 0.3, WORKSPACE_LIMIT + 1);
        let (good, slow) = (candidate(3, 0.4, 7), candidate(4, 0.5, 0));
        let chosen = |candidates: &[Candidate<u32>]| {
            let mut recorder = Recorder::new(&Rc::default(), candidates);
            recorder.skipped = vec!["0 cannot".into()];
            let mut plans = Plans::new(recorder);
            plans.run(&convolution(Direction::Forward, 2), OPERANDS)?;
            Ok::<_, String>(plans.choices())
        };
        let name = "chosen by this library\n\
                    Forward 2x4x9x9 to 8 by 3 stride 2 padding 1 dilation 1 groups 1 bf16";
        assert_eq!(chosen(&[varying, greedy, slow, good]).unwrap(), format!("{name}: 3\n"));
        // One whose bits vary is better than none, and says so.
        assert_eq!(chosen(&[varying, greedy]).unwrap(), format!("{name}: 1 (its bits vary)\n"));
        let error = chosen(&[greedy]).unwrap_err();
        let found = "[2 with 1073741825 bytes, 0 cannot]";
        assert!(error.contains("no algorithm") && error.contains(found), "{error}");
    }

    #[test]
    fn a_choice_of_before_is_taken_again_where_it_can_be() {
        let chosen = |preferred: &str| {
            let candidates = [candidate(1, 1.0, 0), candidate(2, 2.0, 0)];
            let mut plans = Plans::new(Recorder::new(&Rc::default(), &candidates));
            let outdated = plans.prefer(preferred)?;
            plans.run(&convolution(Direction::Forward, 2), OPERANDS)?;
            Ok::<_, String>((plans.choices(), outdated))
        };
        let fastest = chosen("").unwrap().0;
        assert!(fastest.ends_with("bf16: 1\n"), "{fastest}");
        let slower = fastest.replace("bf16: 1", "bf16: 2");
        assert_eq!(chosen(&slower).unwrap(), (slower.clone(), None));
        let noted = slower.replace("bf16: 2", "bf16: 2 (its bits vary)");
        assert_eq!(chosen(&noted).unwrap(), (slower.clone(), None));
        // A checkpoint from before choices named their library.
        let headless = slower.replace("chosen by this library\n", "");
        assert_eq!(chosen(&headless).unwrap(), (slower.clone(), None));
        // Another shape's, and one that is not there.
        for other in [slower.replace("2x4", "3x4"), fastest.replace("bf16: 1", "bf16: 7")] {
            assert_eq!(chosen(&other).unwrap(), (fastest.clone(), None), "{other}");
        }
        let elsewhere = slower.replace("this library", "that one");
        let outdated =
            OutdatedChoices { chosen_by: "that one".into(), here: "this library".into() };
        assert_eq!(chosen(&elsewhere).unwrap(), (fastest, Some(outdated)));
        let error = chosen("Forward of something").unwrap_err();
        assert_eq!(error, "`Forward of something` is no choice of an algorithm");
    }

    #[test]
    fn without_a_usable_algorithm_the_convolution_is_named() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let mut plans = Plans::new(Recorder::new(&calls, &[]));
        let error = plans.run(&convolution(Direction::Forward, 2), OPERANDS).unwrap_err();
        let expected = format!(
            "{NAME}: no algorithm works with at most {WORKSPACE_LIMIT} bytes of workspace; found: []"
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn an_error_of_the_library_names_the_convolution_and_the_algorithm() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let mut plans = Plans::new(Recorder::new(&calls, &[candidate(BROKEN, 1.0, 0)]));
        let forward = convolution(Direction::Forward, 2);
        let expected = format!("{NAME} by 99: CUDNN_STATUS_EXECUTION_FAILED");
        assert_eq!(plans.run(&forward, OPERANDS).unwrap_err(), expected);
        assert_eq!(plans.run_planned(&forward, OPERANDS).unwrap_err(), expected);
    }
}
