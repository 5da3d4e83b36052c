//! The verdict on a run in words: its phase and its alarms, in at most two lines of 80 columns.

use std::fmt;

use moco::{Finding, HealthReport, Phase};

/// Where the run is, with the two bounds of the loss.
pub(crate) fn write_phase(
    f: &mut fmt::Formatter<'_>,
    loss: f64,
    health: &HealthReport,
) -> fmt::Result {
    let (chance, floor) = (health.chance_loss, health.floor_loss);
    match health.phase {
        Phase::Filling => write!(
            f,
            "phase  filling the queue ({} %): the loss rises, top-1 falls, as they should",
            health.queue_filled_percent
        ),
        Phase::AtChance => {
            write!(f, "phase  at chance: loss {loss:.2} of {chance:.2} (floor {floor:.2})")
        }
        Phase::Learning => write!(
            f,
            "phase  learning: loss {loss:.2} between floor {floor:.2} and chance {chance:.2}"
        ),
        Phase::NearFloor => {
            write!(f, "phase  near the floor: loss {loss:.2} of {floor:.2} (chance {chance:.2})")
        }
    }
}

/// An alarm in two lines: what was seen and when, and what to do.
pub(crate) fn write_alarm(
    f: &mut fmt::Formatter<'_>,
    place: Option<(u64, Phase)>,
    finding: &Finding,
) -> fmt::Result {
    match place {
        None => write!(f, "alarm  start")?,
        Some((global_step, phase)) => {
            write!(f, "alarm  step {global_step}, {}", in_words(phase))?;
        }
    }
    write!(f, ": {}\n       {}", finding.what, finding.alarm.hint())
}

/// A phase as a part of a sentence.
fn in_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Filling => "filling",
        Phase::AtChance => "at chance",
        Phase::Learning => "learning",
        Phase::NearFloor => "near floor",
    }
}

#[cfg(test)]
mod tests {
    use moco::Alarm;

    use super::*;
    use crate::event::Event;

    fn health(phase: Phase) -> HealthReport {
        HealthReport {
            queue_filled_percent: 40,
            chance_loss: 6.931,
            floor_loss: 2.151,
            phase,
            findings: Vec::new(),
            is_collapsed: false,
        }
    }

    #[test]
    fn each_phase_and_an_alarm_have_their_words() {
        for (phase, expected) in [
            (
                Phase::Filling,
                "phase  filling the queue (40 %): the loss rises, top-1 falls, as they should",
            ),
            (Phase::AtChance, "phase  at chance: loss 6.00 of 6.93 (floor 2.15)"),
            (Phase::Learning, "phase  learning: loss 6.00 between floor 2.15 and chance 6.93"),
            (Phase::NearFloor, "phase  near the floor: loss 6.00 of 2.15 (chance 6.93)"),
        ] {
            let health = health(phase);
            assert_eq!(Event::Phase { loss: 6.0, health: &health }.to_string(), expected);
        }
        let what = "batch norm leaks: regrouped, top-1 75 to 30 %".to_owned();
        let finding = Finding { alarm: Alarm::BnLeak, what };
        let alarm = |global_step| Event::Alarm { global_step, finding: &finding }.to_string();
        assert_eq!(
            alarm(Some((75, Phase::Learning))),
            "alarm  step 75, learning: batch norm leaks: regrouped, top-1 75 to 30 %\n       \
             shuffle over more groups: moco.shuffle_bn, encoder.bn_groups"
        );
        assert_eq!(
            alarm(None),
            "alarm  start: batch norm leaks: regrouped, top-1 75 to 30 %\n       \
             shuffle over more groups: moco.shuffle_bn, encoder.bn_groups"
        );
    }

    /// With the longest words that a rule has, after a million steps.
    #[test]
    fn a_verdict_fits_two_lines_of_eighty_columns() {
        for phase in [Phase::Filling, Phase::AtChance, Phase::Learning, Phase::NearFloor] {
            for alarm in Alarm::ALL {
                let finding = Finding { alarm, what: "x".repeat(47) };
                let global_step = Some((1_250_000, phase));
                let text = Event::Alarm { global_step, finding: &finding }.to_string();
                assert_eq!(text.lines().count(), 2);
                assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            }
        }
    }
}
