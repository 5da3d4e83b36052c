//! Which algorithm a convolution library uses for which shape: measured once, then kept.
//!
//! Algorithms that give the same bits each time are taken, so that a step repeated on a device repeats its
//! result; where there is none, one whose bits vary, which is told with the choice. What was chosen can be told and asked for again, since a second measurement may
//! prefer another algorithm, whose bits differ. All convolutions share one workspace, as large as the
//! neediest, so that none is allocated once each shape was seen.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use super::Convolution;
use super::convolution::Direction;
use crate::Conv2dSpec;
use crate::conv::Geometry;
use crate::device::BITS_VARY;

/// Workspace that algorithms may ask for at most. ResNet-50's fastest at 256 images of 224² ask for less.
const WORKSPACE_LIMIT: usize = 1 << 30;

/// What a convolution library offers.
pub(crate) trait Library {
    /// Memory on the device, given back when dropped.
    type Workspace;
    /// What describes a convolution to the library.
    type Descriptors;
    /// How it names an algorithm.
    type Algorithm: Copy;

    /// Describes a convolution.
    fn describe(&self, convolution: &Convolution) -> Result<Self::Descriptors, String>;

    /// Memory of so many bytes.
    fn workspace(&self, bytes: usize) -> Result<Self::Workspace, String>;

    /// Runs every algorithm once and tells about each.
    fn measure(
        &self,
        what: &Self::Descriptors,
        operands: Operands,
        workspace: &Self::Workspace,
    ) -> Result<Vec<Candidate<Self::Algorithm>>, String>;

    /// An algorithm as a number that means the same in another process.
    fn number(&self, algorithm: Self::Algorithm) -> u32;

    /// Computes by an algorithm that `measure` told of.
    fn run(
        &self,
        what: &Self::Descriptors,
        algorithm: Self::Algorithm,
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

/// What was measured of an algorithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate<A> {
    pub(crate) algorithm: A,
    /// Whether it can compute this; else the rest means nothing.
    pub(crate) works: bool,
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

type Key = (Direction, Geometry, &'static str);

/// A key for people and files.
fn name((direction, geometry, dtype): &Key) -> String {
    let Geometry { n, c, h, w, co, k, spec, .. } = geometry;
    let Conv2dSpec { stride, padding, dilation, groups } = spec;
    format!(
        "{direction:?} {n}x{c}x{h}x{w} to {co} by {k} stride {stride} padding {padding} \
         dilation {dilation} groups {groups} {dtype}"
    )
}

/// The plans so far and the workspace.
pub(crate) struct Plans<L: Library> {
    library: L,
    plans: BTreeMap<Key, Plan<L>>,
    /// Algorithms that are taken where they can be, whatever is faster.
    preferred: BTreeMap<String, u32>,
    workspace: Shared<L>,
}

/// The workspace and its size. Recorded work holds the one that it was recorded with.
type Shared<L> = Option<(usize, Rc<<L as Library>::Workspace>)>;

impl<L: Library> Plans<L> {
    pub(crate) fn new(library: L) -> Self {
        Self { library, plans: BTreeMap::new(), preferred: BTreeMap::new(), workspace: None }
    }

    /// The algorithm of each shape so far, a line each.
    pub(crate) fn choices(&self) -> String {
        let line = |(key, plan): (&Key, &Plan<L>)| {
            let note = if plan.deterministic { "" } else { BITS_VARY };
            format!("{}: {}{note}\n", name(key), self.library.number(plan.algorithm))
        };
        self.plans.iter().map(line).collect()
    }

    /// Takes these choices again for shapes that are yet to come.
    pub(crate) fn prefer(&mut self, choices: &str) -> Result<(), String> {
        for line in choices.lines() {
            let parsed = line
                .trim_end_matches(BITS_VARY)
                .rsplit_once(": ")
                .and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
            let (name, number) =
                parsed.ok_or_else(|| format!("`{line}` is no choice of an algorithm"))?;
            self.preferred.insert(name, number);
        }
        Ok(())
    }

    /// Computes a convolution, after measuring if this is the first of its shape.
    pub(crate) fn run(
        &mut self,
        convolution: &Convolution,
        operands: Operands,
    ) -> Result<(), String> {
        let Convolution { direction, geometry, dtype } = *convolution;
        let key = (direction, geometry, dtype.as_str());
        let Self { library, plans, preferred, workspace } = self;
        let plan = match plans.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let preferred = preferred.get(&name(&key)).copied();
                place.insert(measure((library, preferred), workspace, convolution, operands)?)
            }
        };
        compute(library, plan, operands, workspace.as_ref())
    }

    /// Computes a convolution whose shape was computed before.
    pub(crate) fn run_planned(
        &self,
        convolution: &Convolution,
        operands: Operands,
    ) -> Result<(), String> {
        let Convolution { direction, geometry, dtype } = *convolution;
        let plan = self.plans.get(&(direction, geometry, dtype.as_str())).ok_or_else(|| {
            format!("{convolution:?} was never computed before the recording, which cannot measure")
        })?;
        compute(&self.library, plan, operands, self.workspace.as_ref())
    }

    /// The workspace that the next convolution would use.
    pub(crate) fn workspace(&self) -> Option<Rc<L::Workspace>> {
        self.workspace.as_ref().map(|(_, workspace)| Rc::clone(workspace))
    }
}

fn compute<L: Library>(
    library: &L,
    plan: &Plan<L>,
    operands: Operands,
    workspace: Option<&(usize, Rc<L::Workspace>)>,
) -> Result<(), String> {
    let workspace = workspace.map(|(_, workspace)| &**workspace);
    let workspace = workspace.filter(|_| plan.workspace_bytes > 0);
    library.run(&plan.what, plan.algorithm, operands, workspace)
}

/// Makes a plan, and the workspace as large as it needs.
fn measure<L: Library>(
    (library, preferred): (&L, Option<u32>),
    workspace: &mut Shared<L>,
    convolution: &Convolution,
    operands: Operands,
) -> Result<Plan<L>, String> {
    let what = library.describe(convolution)?;
    // The old workspace and the large one at a time would be a peak that the run never needs again.
    let before = workspace.take().map_or(0, |(bytes, _)| bytes);
    let large = library.workspace(WORKSPACE_LIMIT)?;
    let candidates = library.measure(&what, operands, &large);
    drop(large);
    let candidates = candidates?;
    let usable = || candidates.iter().filter(|candidate| candidate.is_usable());
    let known = usable().find(|candidate| Some(library.number(candidate.algorithm)) == preferred);
    let same_bits = || fastest(usable().filter(|candidate| candidate.deterministic));
    let chosen = known.or_else(same_bits).or_else(|| fastest(usable())).ok_or_else(|| {
        let found: Vec<_> = candidates.iter().map(|candidate| told(library, candidate)).collect();
        format!(
            "no algorithm computes {convolution:?} with at most {WORKSPACE_LIMIT} bytes of \
             workspace; found: [{}]",
            found.join(", ")
        )
    })?;
    let wanted = chosen.workspace_bytes.max(before);
    if wanted > 0 {
        *workspace = Some((wanted, Rc::new(library.workspace(wanted)?)));
    }
    let Candidate { algorithm, workspace_bytes, deterministic, .. } = *chosen;
    Ok(Plan { what, algorithm, workspace_bytes, deterministic })
}

impl<A> Candidate<A> {
    fn is_usable(&self) -> bool {
        self.works && self.workspace_bytes <= WORKSPACE_LIMIT
    }
}

/// What keeps a candidate from being used.
fn told<L: Library>(library: &L, candidate: &Candidate<L::Algorithm>) -> String {
    let number = library.number(candidate.algorithm);
    if candidate.works {
        format!("{number} with {} bytes", candidate.workspace_bytes)
    } else {
        format!("{number} cannot")
    }
}

fn fastest<'a, A>(candidates: impl Iterator<Item = &'a Candidate<A>>) -> Option<&'a Candidate<A>> {
    candidates.min_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds))
}

/// Sizes as a library's descriptors take them: `[n, c, h, w]` of x and y, `[c_out, c, k, k]` of the
/// weight, whatever the order in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) x: [i32; 4],
    pub(crate) weight: [i32; 4],
    pub(crate) y: [i32; 4],
    pub(crate) padding: i32,
    pub(crate) stride: i32,
    pub(crate) dilation: i32,
    pub(crate) groups: i32,
}

impl Sizes {
    pub(crate) fn of(g: &Geometry) -> Result<Self, String> {
        let size = |size: usize| {
            i32::try_from(size).map_err(|_too_large| {
                format!("{size} is too large for the library; take fewer images a step")
            })
        };
        let four = |dims: [usize; 4]| {
            // The library counts elements in 32 bits.
            size(dims.iter().product())?;
            let [a, b, c, d] = dims;
            Ok::<_, String>([size(a)?, size(b)?, size(c)?, size(d)?])
        };
        Ok(Self {
            x: four([g.n, g.c, g.h, g.w])?,
            weight: four([g.co, g.c_group(), g.k, g.k])?,
            y: four([g.n, g.co, g.ho, g.wo])?,
            padding: size(g.spec.padding)?,
            stride: size(g.spec.stride)?,
            dilation: size(g.spec.dilation)?,
            groups: size(g.spec.groups)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use candle_core::DType;

    use super::*;

    /// Records what it is asked; answers with the same candidates each time.
    struct Recorder {
        calls: Rc<RefCell<Vec<String>>>,
        candidates: Vec<Candidate<u32>>,
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
            _: Operands,
            workspace: &Memory,
        ) -> Result<Vec<Candidate<u32>>, String> {
            let what = format!("measure {:?} with {}", convolution.direction, workspace.0);
            self.calls.borrow_mut().push(what);
            Ok(self.candidates.clone())
        }

        fn number(&self, algorithm: u32) -> u32 {
            algorithm
        }

        fn run(
            &self,
            convolution: &Convolution,
            algorithm: u32,
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
            Ok(())
        }
    }

    fn candidate(algorithm: u32, milliseconds: f32, workspace_bytes: usize) -> Candidate<u32> {
        Candidate { algorithm, works: true, milliseconds, workspace_bytes, deterministic: true }
    }

    fn convolution(direction: Direction, n: usize) -> Convolution {
        let spec = Conv2dSpec::new(2, 1);
        let geometry = Geometry::new("", [n, 4, 9, 9], [8, 4, 3, 3], spec).unwrap();
        Convolution { direction, geometry, dtype: DType::BF16 }
    }

    const OPERANDS: Operands = Operands { a: 1, b: 2, out: 3 };

    #[test]
    fn a_shape_is_measured_once_and_the_workspace_is_kept() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let candidates = vec![candidate(5, 2.0, 64), candidate(1, 1.0, 4096)];
        let mut plans = Plans::new(Recorder { calls: Rc::clone(&calls), candidates });
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
        let candidates = vec![candidate(1, 1.0, 64)];
        let mut plans = Plans::new(Recorder { calls: Rc::clone(&calls), candidates });
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
        let broken = Candidate { works: false, ..candidate(0, 0.1, 0) };
        let varying = Candidate { deterministic: false, ..candidate(1, 0.2, 0) };
        let greedy = candidate(2, 0.3, WORKSPACE_LIMIT + 1);
        let (good, slow) = (candidate(3, 0.4, 7), candidate(4, 0.5, 0));
        let chosen = |candidates: Vec<Candidate<u32>>| {
            let mut plans = Plans::new(Recorder { calls: Rc::default(), candidates });
            plans.run(&convolution(Direction::Forward, 2), OPERANDS)?;
            Ok::<_, String>(plans.choices())
        };
        let name = "Forward 2x4x9x9 to 8 by 3 stride 2 padding 1 dilation 1 groups 1 bf16";
        let all = vec![broken, varying, greedy, slow, good];
        assert_eq!(chosen(all.clone()).unwrap(), format!("{name}: 3\n"));
        // One whose bits vary is better than none, and says so.
        assert_eq!(chosen(all[..3].to_vec()).unwrap(), format!("{name}: 1 (its bits vary)\n"));
        let error = chosen(vec![broken, greedy]).unwrap_err();
        let found = "[0 cannot, 2 with 1073741825 bytes]";
        assert!(error.contains("no algorithm") && error.contains(found), "{error}");
    }

    #[test]
    fn a_choice_of_before_is_taken_again_where_it_can_be() {
        let chosen = |preferred: &str| {
            let candidates = vec![
                candidate(1, 1.0, 0),
                candidate(2, 2.0, 0),
                Candidate { works: false, ..candidate(3, 0.5, 0) },
            ];
            let mut plans = Plans::new(Recorder { calls: Rc::default(), candidates });
            plans.prefer(preferred)?;
            plans.run(&convolution(Direction::Forward, 2), OPERANDS)?;
            Ok::<_, String>(plans.choices())
        };
        let fastest = chosen("").unwrap();
        assert!(fastest.ends_with("bf16: 1\n"), "{fastest}");
        let slower = fastest.replace("bf16: 1", "bf16: 2");
        assert_eq!(chosen(&slower).unwrap(), slower);
        let noted = slower.replace("bf16: 2", "bf16: 2 (its bits vary)");
        assert_eq!(chosen(&noted).unwrap(), slower);
        // Another shape's, one that is not there, and one that does not work here.
        for other in ["2x4", "bf16: 7", "bf16: 3"] {
            let preferred = if other == "2x4" {
                slower.replace("2x4", "3x4")
            } else {
                fastest.replace("bf16: 1", other)
            };
            assert_eq!(chosen(&preferred).unwrap(), fastest, "{preferred}");
        }
        let error = chosen("Forward of something").unwrap_err();
        assert!(error.contains("`Forward of something` is no choice"), "{error}");
    }

    #[test]
    fn without_a_usable_algorithm_the_convolution_is_named() {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let mut plans = Plans::new(Recorder { calls, candidates: Vec::new() });
        let error = plans.run(&convolution(Direction::Forward, 2), OPERANDS).unwrap_err();
        assert!(error.contains("no algorithm") && error.contains("Forward"), "{error}");
    }

    #[test]
    fn descriptors_have_logical_sizes() {
        let sizes = Sizes::of(&convolution(Direction::Forward, 2).geometry).unwrap();
        assert_eq!((sizes.x, sizes.weight, sizes.y), ([2, 4, 9, 9], [8, 4, 3, 3], [2, 8, 5, 5]));
        assert_eq!((sizes.padding, sizes.stride, sizes.dilation, sizes.groups), (1, 2, 1, 1));
        let mut huge = convolution(Direction::Forward, 2).geometry;
        huge.n = 1 << 31;
        assert!(Sizes::of(&huge).unwrap_err().contains("too large"));
        // Each dimension fits, all of them together do not.
        huge.n = 1 << 24;
        assert!(Sizes::of(&huge).unwrap_err().contains("take fewer images a step"));
    }
}
