//! Steps that a GPU replays from a captured graph, against eager steps: the same bits.

use candle_core::{DType, Device, Tensor};
use moco::{CapturedSteps, Moco, MocoState, PendingStep, StepStatistics};

use crate::gpu_cases::{CASES, Case, LR, moco, numbers, views};

/// Enough for the queue to wrap, within the keys of a step.
const STEPS: u64 = 7;

/// The state of a model and all statistics that it returned.
#[derive(Debug, PartialEq)]
struct Bits {
    state: Vec<(String, Vec<f64>)>,
    statistics: Vec<StepStatistics>,
}

fn lr(step: u64) -> f64 {
    LR / (step + 1) as f64
}

/// The state in memory of its own, on the host, as in a checkpoint.
fn saved(moco: &Moco) -> MocoState {
    let copy = |x: Tensor| x.to_device(&Device::Cpu).unwrap().copy().unwrap();
    moco.state().unwrap().into_iter().map(|(name, x)| (name, copy(x))).collect()
}

/// Statistics are read after the last step: those of each have memory of their own.
fn bits(moco: &Moco, pending: &[PendingStep]) -> Bits {
    let state = saved(moco).into_iter().map(|(name, x)| (name, numbers(&x))).collect();
    let statistics = pending.iter().map(|step| step.read().unwrap()).collect();
    Bits { state, statistics }
}

fn eager(case: &Case, dtype: DType, device: &Device) -> Bits {
    let mut moco = moco(case, DType::F32, device);
    let step = |step| moco.step(&views(case, step, dtype, device), lr(step)).unwrap().statistics;
    let pending: Vec<PendingStep> = (0..STEPS).map(step).collect();
    bits(&moco, &pending)
}

fn repeated(case: &Case, dtype: DType, device: &Device) -> Bits {
    let mut moco = moco(case, DType::F32, device);
    let mut recorded = CapturedSteps::default();
    let step =
        |step| recorded.step(&mut moco, &views(case, step, dtype, device), lr(step)).unwrap();
    let pending: Vec<PendingStep> = (0..STEPS).map(step).collect();
    bits(&moco, &pending)
}

/// As [`repeated`], but a checkpoint is loaded on the way, into the same model and into a new one, and
/// other code computes with f_q.
fn interrupted(case: &Case, dtype: DType, device: &Device) -> Bits {
    let mut moco_a = moco(case, DType::F32, device);
    let mut recorded = CapturedSteps::default();
    let mut pending = Vec::new();
    let mut run = |moco: &mut Moco, recorded: &mut CapturedSteps, steps: std::ops::Range<u64>| {
        for step in steps {
            let views = views(case, step, dtype, device);
            pending.push(recorded.step(moco, &views, lr(step)).unwrap());
        }
    };
    run(&mut moco_a, &mut recorded, 0..3);
    let state = saved(&moco_a);
    moco_a.load_state(&state, 3).unwrap();
    run(&mut moco_a, &mut recorded, 3..4);
    let im_q = views(case, 0, dtype, device).im_q;
    let encoder_q = moco_a.encoder_q_mut().encoder_mut();
    encoder_q.features(&im_q, moco_encoders::Mode::Eval).unwrap();
    run(&mut moco_a, &mut recorded, 4..5);
    let state = saved(&moco_a);
    let mut moco_b = moco(case, DType::F32, device);
    moco_b.load_state(&state, 5).unwrap();
    run(&mut moco_b, &mut recorded, 5..STEPS);
    bits(&moco_b, &pending)
}

#[cfg(not(feature = "device-tests"))]
mod emulated {
    use moco::QueuePrecision;
    use moco_encoders::{Arch, HeadKind, RunningStats, Stem};
    use moco_ops::emulate;

    use super::*;

    /// With the operations that `CASES[0]` has not, and fewer layers than `CASES[1]`.
    const SMALL: Case = Case {
        arch: Arch::ResNet10,
        stem: Stem::ImageNet,
        side: 24,
        head: HeadKind::Mlp,
        symmetric: false,
        running: RunningStats::First,
        queue_precision: QueuePrecision::Bf16,
    };

    #[test]
    fn repeated_steps_leave_the_bits_of_told_ones() {
        for (case, dtype) in [(&CASES[0], DType::F32), (&SMALL, DType::BF16)] {
            emulate(|| {
                let expected = eager(case, dtype, &Device::Cpu);
                assert_ne!(expected.statistics[0].loss, expected.statistics[1].loss);
                assert_eq!(repeated(case, dtype, &Device::Cpu), expected);
            });
        }
    }

    #[test]
    fn a_recording_is_made_anew_where_tensors_may_be_others() {
        emulate(|| {
            let expected = eager(&SMALL, DType::F32, &Device::Cpu);
            assert_eq!(interrupted(&SMALL, DType::F32, &Device::Cpu), expected);
        });
    }

    /// A recording is of one model's tensors.
    #[test]
    fn two_models_may_take_turns() {
        emulate(|| {
            let mut models = [0, 1].map(|_| moco(&SMALL, DType::F32, &Device::Cpu));
            let mut recorded = CapturedSteps::default();
            let mut pending = [Vec::new(), Vec::new()];
            for step in 0..STEPS {
                let views = views(&SMALL, step, DType::F32, &Device::Cpu);
                for (model, pending) in models.iter_mut().zip(&mut pending) {
                    pending.push(recorded.step(model, &views, lr(step)).unwrap());
                }
            }
            let [first, second] = [0, 1].map(|model| bits(&models[model], &pending[model]));
            assert_eq!(first, second);
            assert_eq!(first, eager(&SMALL, DType::F32, &Device::Cpu));
        });
    }

    /// Nothing is left out of a repetition or computed by the host.
    #[test]
    fn every_repetition_launches_a_whole_step() {
        let launched_in = |steps: u64| {
            let mut moco = moco(&SMALL, DType::F32, &Device::Cpu);
            let mut recorded = CapturedSteps::default();
            let step = |step| {
                let views = views(&SMALL, step, DType::F32, &Device::Cpu);
                recorded.step(&mut moco, &views, lr(step)).unwrap();
            };
            emulate(|| (0..steps).for_each(step)).1
        };
        let eager = launched_in(1);
        assert!(eager.len() > 100);
        assert_eq!(launched_in(3), [&eager[..]; 3].concat());
    }

    #[test]
    fn a_cpu_is_told_that_it_cannot() {
        let mut moco = moco(&CASES[0], DType::F32, &Device::Cpu);
        let mut recorded = CapturedSteps::default();
        let views = views(&CASES[0], 0, DType::F32, &Device::Cpu);
        recorded.step(&mut moco, &views, LR).unwrap();
        let error = recorded.step(&mut moco, &views, LR).unwrap_err().to_string();
        assert!(error.contains("recording: no kernels for tensors on"), "{error}");
        assert_eq!(moco.global_step(), 1);
    }
}

/// With tensors in the memory of the first CUDA device, as a CUDA graph.
#[cfg(feature = "device-tests")]
mod on_device {
    use moco_ops::{ConvBackend, Precision, open_cuda, peak_device_memory_bytes};

    use super::*;

    #[test]
    fn repeated_steps_leave_the_bits_of_told_ones() {
        for (precision, dtype) in [(Precision::F32, DType::F32), (Precision::Bf16, DType::BF16)] {
            let device = open_cuda(0, precision, ConvBackend::Auto).unwrap();
            for case in &CASES {
                let expected = eager(case, dtype, &device);
                assert_eq!(repeated(case, dtype, &device), expected, "{:?}", case.arch);
                assert_eq!(interrupted(case, dtype, &device), expected, "{:?}", case.arch);
            }
            assert!(peak_device_memory_bytes(&device).unwrap().unwrap() > 0);
        }
    }
}
