//! Learning-rate schedules as pure functions of the step, so a resume needs no schedule state.

/// How the learning rate changes. `base_lr` below is the highest rate: that at step 0, or after a warm-up.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// The rate never changes.
    Constant,
    /// `0.5·(1 + cos(π·epoch/epochs))`, epoch from 0, constant within an epoch
    /// (MoCo v2; official `main_moco.py:488-497`).
    CosinePerEpoch,
    /// `0.5·(1 + cos(π·step/steps))`, step from 0.
    CosinePerStep,
    /// Times `gamma` at the start of each epoch in `milestones` (MoCo v1: 120 and 160, × 0.1).
    Steps {
        /// Epochs, from 0, at which the rate falls; ascending.
        milestones: Vec<u32>,
        /// Factor at each milestone.
        gamma: f64,
    },
    /// Times `gamma` each `every_steps` steps (MoCo v1 on Instagram-1B: × 0.9 every 62.5k).
    Exponential {
        /// Steps between two falls.
        every_steps: u64,
        /// Factor at each fall.
        gamma: f64,
    },
    /// A linear rise from `base_lr`/n to `base_lr` over the n steps of the first epochs, then another schedule
    /// (SimCLR; official `model_util.py`, `learning_rate_schedule`, which begins at 0 and so wastes a step).
    /// Where the other one is constant within an epoch, so is the rise, and n counts epochs.
    ///
    /// The cosines then fall over what is left of the run, as in SimCLR; milestones and `every_steps` count
    /// from the start of the run, as in Goyal et al. 2017, §5.1.
    Warmup {
        /// Length of the rise; at least 1.
        epochs: u64,
        /// The schedule after it; no other warm-up.
        then: Box<Schedule>,
    },
}

/// How far a run is and how long it will be; what a schedule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Optimizer updates done so far.
    pub global_step: u64,
    /// Optimizer updates of the whole run; at least 1.
    pub total_steps: u64,
    /// Optimizer updates in an epoch; at least 1.
    pub steps_per_epoch: u64,
}

impl Progress {
    /// The current epoch, from 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.global_step / self.steps_per_epoch
    }
}

impl Schedule {
    /// The learning rate of the next step.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "step counts stay far below 2^53")]
    pub fn lr(&self, base_lr: f64, at: Progress) -> f64 {
        if let Self::Warmup { epochs, then } = self {
            return then.lr_after_warmup(base_lr, at, *epochs);
        }
        let cosine = |done: u64, all: u64| {
            0.5 * (1.0 + (std::f64::consts::PI * done as f64 / all.max(1) as f64).cos())
        };
        let factor = match self {
            Self::Constant => 1.0,
            Self::CosinePerEpoch => cosine(at.epoch(), at.total_steps.div_ceil(at.steps_per_epoch)),
            Self::CosinePerStep => cosine(at.global_step, at.total_steps),
            Self::Steps { milestones, gamma } => milestones
                .iter()
                .filter(|milestone| at.epoch() >= u64::from(**milestone))
                .fold(1.0, |factor, _| factor * gamma),
            Self::Exponential { every_steps, gamma } => {
                gamma.powf((at.global_step / every_steps.max(&1)) as f64)
            }
            // Answered above.
            Self::Warmup { .. } => 1.0,
        };
        base_lr * factor
    }

    #[expect(clippy::cast_precision_loss, reason = "step counts stay far below 2^53")]
    fn lr_after_warmup(&self, base_lr: f64, at: Progress, epochs: u64) -> f64 {
        let n_steps = epochs * at.steps_per_epoch;
        let by_epoch = matches!(self, Self::CosinePerEpoch | Self::Steps { .. });
        if at.global_step < n_steps {
            let (done, all) =
                if by_epoch { (at.epoch(), epochs) } else { (at.global_step, n_steps) };
            return base_lr * (done + 1) as f64 / all as f64;
        }
        match self {
            Self::CosinePerEpoch | Self::CosinePerStep => {
                let global_step = at.global_step - n_steps;
                let total_steps = at.total_steps.saturating_sub(n_steps).max(1);
                self.lr(base_lr, Progress { global_step, total_steps, ..at })
            }
            _ => self.lr(base_lr, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The official numbers: 5004 steps an epoch, 200 epochs, rate 0.03.
    fn imagenet(epoch: u64, step_in_epoch: u64) -> Progress {
        Progress {
            global_step: epoch * 5004 + step_in_epoch,
            total_steps: 200 * 5004,
            steps_per_epoch: 5004,
        }
    }

    #[test]
    fn cosine_per_epoch_is_the_official_curve() {
        let lr = |epoch, step| Schedule::CosinePerEpoch.lr(0.03, imagenet(epoch, step));
        assert!((lr(0, 5003) - 0.03).abs() < 1e-15);
        assert!((lr(100, 0) - 0.015).abs() < 1e-15);
        assert!((lr(199, 5003) - 1.8505e-6).abs() < 1e-9, "{}", lr(199, 5003));
    }

    #[test]
    fn cosine_per_step_moves_within_an_epoch() {
        let lr = |step| Schedule::CosinePerStep.lr(1.0, imagenet(0, step));
        assert!(lr(1) < lr(0) && (lr(0) - 1.0).abs() < 1e-15);
        assert!((Schedule::CosinePerStep.lr(1.0, imagenet(100, 0)) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn steps_fall_at_the_milestones() {
        let schedule = Schedule::Steps { milestones: vec![120, 160], gamma: 0.1 };
        let lr = |epoch, step| schedule.lr(0.03, imagenet(epoch, step));
        for (epoch, step, expected) in
            [(0, 0, 0.03), (119, 5003, 0.03), (120, 0, 0.003), (160, 0, 0.0003), (199, 9, 0.0003)]
        {
            assert!(
                (lr(epoch, step) - expected).abs() < 1e-12,
                "epoch {epoch}: {}",
                lr(epoch, step)
            );
        }
    }

    fn warm(epochs: u64, then: Schedule) -> Schedule {
        Schedule::Warmup { epochs, then: Box::new(then) }
    }

    /// Ten steps an epoch, ten epochs.
    fn short(global_step: u64) -> Progress {
        Progress { global_step, total_steps: 100, steps_per_epoch: 10 }
    }

    #[test]
    fn a_warm_up_rises_by_steps_and_a_cosine_falls_over_the_rest() {
        let lr = |step| warm(2, Schedule::CosinePerStep).lr(0.4, short(step));
        for step in 0..20 {
            let expected = 0.4 * (step + 1) as f64 / 20.0;
            assert!((lr(step) - expected).abs() < 1e-15, "{step}: {}", lr(step));
        }
        // SimCLR's formula: 0.5·(1 + cos(π·(step − 20)/(100 − 20))).
        for step in 20..100 {
            let angle = std::f64::consts::PI * (step - 20) as f64 / 80.0;
            let expected = 0.2 * (1.0 + angle.cos());
            assert!((lr(step) - expected).abs() < 1e-15, "{step}: {}", lr(step));
        }
    }

    #[test]
    fn a_warm_up_of_a_schedule_by_epochs_rises_by_epochs() {
        let cosine = |step| warm(2, Schedule::CosinePerEpoch).lr(0.4, short(step));
        let steps = warm(2, Schedule::Steps { milestones: vec![4, 8], gamma: 0.1 });
        for (step, of_cosine, of_steps) in [
            (0, 0.2, 0.2),
            (9, 0.2, 0.2),
            (10, 0.4, 0.4),
            (20, 0.4, 0.4),
            (39, 0.2 * (1.0 + (std::f64::consts::PI / 8.0).cos()), 0.4),
            // A quarter of what is left; milestones count from the start.
            (40, 0.2 * (1.0 + (std::f64::consts::PI / 4.0).cos()), 0.04),
            (60, 0.2, 0.04),
            (80, 0.2 * (1.0 + (std::f64::consts::PI * 0.75).cos()), 0.004),
        ] {
            assert!((cosine(step) - of_cosine).abs() < 1e-15, "{step}: {}", cosine(step));
            let got = steps.lr(0.4, short(step));
            assert!((got - of_steps).abs() < 1e-15, "{step}: {got}");
        }
    }

    #[test]
    fn a_warm_up_of_the_others_rises_by_steps_and_does_not_move_them() {
        let exponential = Schedule::Exponential { every_steps: 30, gamma: 0.5 };
        for (then, after) in [(Schedule::Constant, [1.0, 1.0]), (exponential, [1.0, 0.5])] {
            let schedule = warm(1, then);
            for (step, expected) in [(0, 0.1), (9, 1.0), (10, after[0]), (30, after[1])] {
                let got = schedule.lr(1.0, short(step));
                assert!((got - expected).abs() < 1e-15, "{schedule:?} {step}: {got}");
            }
        }
        // A run that ends within the rise.
        let at = Progress { global_step: 4, total_steps: 5, steps_per_epoch: 10 };
        assert!((warm(2, Schedule::CosinePerStep).lr(1.0, at) - 0.25).abs() < 1e-15);
    }

    #[test]
    fn exponential_falls_by_iterations() {
        let schedule = Schedule::Exponential { every_steps: 62_500, gamma: 0.9 };
        let lr = |global_step| {
            schedule.lr(0.12, Progress { global_step, total_steps: 1_250_000, steps_per_epoch: 1 })
        };
        assert!((lr(62_499) - 0.12).abs() < 1e-15 && (lr(62_500) - 0.108).abs() < 1e-12);
        assert!((lr(1_249_999) - 0.12 * 0.9_f64.powi(19)).abs() < 1e-12);
    }
}
