//! Prints the events of a run.

use std::collections::BTreeSet;

use moco::{Alarm, HealthReport};
use moco_ops::OutdatedChoices;
use moco_telemetry::{format_bytes, format_count, format_duration};
use moco_train::{DataComparison, Event, Extension, LogLine, Parent, Summary, Trio};

use crate::console::Console;

/// Prints a run's events on the console; `log` gets every line too, also those that a terminal overwrites.
pub fn watch<'a>(
    console: &'a mut Console,
    is_stopping: &'a (dyn Fn() -> bool + Sync),
    log: &'a mut (dyn FnMut(&str) + Send),
) -> impl FnMut(&Event<'_>) + Send + 'a {
    let mut reported: BTreeSet<Alarm> = BTreeSet::new();
    let mut told_stop = false;
    let mut total = 0;
    move |event| {
        match event {
            Event::Started {
                global_step,
                total_steps,
                steps_per_epoch,
                n_images,
                n_parameters,
            } => {
                total = *total_steps;
                let line = format!(
                    "plan   {} steps of {} an epoch on {} images, {} parameters{}",
                    format_count(*total_steps),
                    format_count(*steps_per_epoch),
                    format_count(*n_images),
                    format_count(*n_parameters as u64),
                    if *global_step > 0 {
                        format!("; continuing from step {}", format_count(*global_step))
                    } else {
                        String::new()
                    },
                );
                log(&line);
                console.line(&line);
                console.start(*global_step, *total_steps);
            }
            Event::Stepped { global_step } => console.advance(*global_step),
            Event::Log(line) => {
                let text = log_line(line);
                log(&format!("{}/{total}  {text}", line.statistics.global_step));
                console.status(line.statistics.global_step, &text);
                for alarm in &line.health.alarms {
                    if reported.insert(*alarm) {
                        let text = format!(
                            "warning: step {}: {}",
                            line.statistics.global_step,
                            alarm.message()
                        );
                        log(&text);
                        console.line(&text);
                    }
                }
            }
            Event::Saving { global_step } => {
                log(&format!("step {global_step}: saving a checkpoint"))
            }
            Event::Stages { epoch, stages, bottleneck } => {
                for stage in *stages {
                    log(&format!(
                        "epoch {epoch}: stage {:<9} {:>9} items, busy {:.1} s, waiting {:.1} s in, {:.1} s out",
                        stage.stage,
                        stage.items,
                        stage.busy_secs,
                        stage.waiting_in_secs,
                        stage.waiting_out_secs,
                    ));
                }
                log(&format!("epoch {epoch}: the bottleneck was {}", bottleneck.unwrap_or("none")));
            }
            Event::Skipped { global_step, n_bad_samples, sample } => {
                let text = format!(
                    "warning: step {global_step}: skipped bad sample {n_bad_samples}: {sample}"
                );
                log(&text);
                // The log has them all; a screen full of them would hide the rest.
                if n_bad_samples.is_power_of_two() {
                    console.line(&text);
                }
            }
            Event::BitsVary { convolutions } => {
                let text = format!(
                    "warning: this run cannot be reproduced bit for bit: the device computes {} convolutions by algorithms whose bits vary",
                    convolutions.len(),
                );
                convolutions.iter().for_each(|convolution| log(convolution));
                log(&text);
                console.line(&text);
            }
            Event::Evaluating { what } => {
                console.finish();
                let text = format!("evaluating the {what}");
                log(&text);
                console.line(&text);
            }
            event => {
                if let Some(text) = plain_line(event) {
                    log(&text);
                    console.line(&text);
                }
            }
        }
        if is_stopping() && !told_stop {
            told_stop = true;
            let text = "stopping after this step; saving (Ctrl-C again leaves without saving)";
            log(text);
            console.line(text);
        }
    }
}

/// The line of an event that only is one.
fn plain_line(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Monitor { global_step, knn } => format!("step {global_step}: kNN {knn:.1} %"),
        Event::Rejected { path, reason } => {
            format!("warning: {} was passed over: {reason}", path.display())
        }
        Event::DataCompared(comparison) => data_line(comparison),
        Event::MetricsDamaged { path, lines } => {
            let shown: Vec<String> = lines.iter().take(5).map(usize::to_string).collect();
            let more = if lines.len() > shown.len() { " and more" } else { "" };
            format!(
                "warning: {} damaged lines of {} were left out: {}{more}",
                lines.len(),
                path.display(),
                shown.join(", "),
            )
        }
        Event::Extended { extension, lr_before, lr_after } => {
            let Extension { at_step, from_steps, to_steps } = extension;
            let rate = if lr_before == lr_after {
                format!("stays {lr_after:.6}")
            } else {
                format!("jumps from {lr_before:.6} at step {at_step} to {lr_after:.6} at the next")
            };
            format!(
                "extend {from_steps} steps become {to_steps}: the schedule is computed over the new total, and the learning rate {rate}"
            )
        }
        Event::Forked(parent) => fork_line(parent),
        Event::ChosenAnew { outdated: OutdatedChoices { chosen_by, here } } => format!(
            "warning: the algorithms of convolutions are measured again, and bits may differ: the checkpoint has those of {chosen_by}, and here is {here}"
        ),
        _ => return None,
    })
}

fn data_line(comparison: &DataComparison) -> String {
    match comparison {
        DataComparison::Same { digest } => {
            let blind = if digest.contains("by name and size") {
                "; content that changed while its size stayed is not seen"
            } else {
                ""
            };
            format!("data   as in the checkpoint: {digest}{blind}")
        }
        DataComparison::Accepted { difference } => format!("warning: accepted: {difference}"),
        DataComparison::NotInCheckpoint => {
            "data   not compared: the checkpoint is from before runs had a digest of their data; \
             the next one has it"
                .to_owned()
        }
        DataComparison::NotKnown => {
            "data   not compared: this source of images has no digest".to_owned()
        }
    }
}

fn fork_line(Parent { run, run_id, step }: &Parent) -> String {
    let id = run_id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
    format!("fork   encoders and queue of step {step} of {run}{id}; momentum buffers begin at zero")
}

fn log_line(line: &LogLine) -> String {
    let left = |left| format!("  {} left", format_duration(left));
    format!(
        "loss {:.3}  top-1 {:.0} %  {:.0} images/s{}  wait {:.0} %  ({})",
        line.statistics.loss,
        line.statistics.pretext_top1,
        line.images_per_second,
        line.time_left.map_or(String::new(), left),
        line.data_wait_percent,
        verdict(&line.health),
    )
}

fn verdict(health: &HealthReport) -> String {
    let bounds = format!("chance {:.2}, floor {:.2}", health.chance_loss, health.floor_loss);
    match health.queue_filled_percent {
        100 => bounds,
        percent => format!("{bounds}; queue {percent} % filled: a rising loss is expected"),
    }
}

/// The table at the end of a run.
#[must_use]
pub fn summary_table(summary: &Summary) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    let row = |name: &str, get: fn(&Trio) -> Option<f64>| {
        format!("{name:<16} {:>8} {:>8}", number(get(&summary.knn)), number(get(&summary.linear)))
    };
    let memory = summary.peak_memory_bytes.map_or("unknown".to_owned(), format_bytes);
    let on_device = summary.peak_device_memory_bytes;
    let on_device =
        on_device.map_or(String::new(), |bytes| format!(", {} on the device", format_bytes(bytes)));
    let cost = format!(
        "{} steps, {:.0} images/s, {} in all, {memory} at most{on_device}",
        format_count(summary.steps),
        summary.images_per_second,
        format_duration(std::time::Duration::from_secs_f64(summary.wall_seconds.max(0.0))),
    );
    if [&summary.knn, &summary.linear].into_iter().all(|trio| *trio == Trio::default()) {
        return format!("no accuracy was measured; {cost}");
    }
    let (n_neighbors, temperature) = (summary.knn_n_neighbors, summary.knn_temperature);
    [
        format!("{:<16} {:>8} {:>8}", "accuracy in %", "kNN", "linear"),
        row("raw pixels", |trio| trio.pixels),
        row("random encoder", |trio| trio.random),
        row("trained encoder", |trio| trio.trained),
        String::new(),
        format!("kNN: {n_neighbors} neighbors, temperature {temperature}; {cost}"),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use moco::StepStatistics;

    use super::*;

    fn summary() -> Summary {
        Summary {
            knn: Trio { pixels: Some(13.04), random: Some(20.0), trained: Some(65.46) },
            knn_n_neighbors: 200,
            knn_temperature: 0.1,
            linear: Trio { pixels: None, random: Some(28.0), trained: Some(80.0) },
            steps: 1500,
            images_per_second: 812.4,
            wall_seconds: 192.0,
            peak_memory_bytes: Some(512 << 20),
            peak_device_memory_bytes: Some(3 << 30),
            final_checkpoint: "checkpoints/step-0000001500.safetensors".into(),
            run_id: None,
            parent: None,
            extensions: Vec::new(),
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_extractor() {
        let table = summary_table(&summary());
        assert!(table.contains("raw pixels           13.0        -"), "{table}");
        assert!(table.contains("trained encoder      65.5     80.0"), "{table}");
        assert!(table.contains("200 neighbors, temperature 0.1"), "{table}");
        assert!(table.ends_with("512 MiB at most, 3.0 GiB on the device"), "{table}");
        let (knn, linear) = (Trio::default(), Trio::default());
        assert_eq!(
            summary_table(&Summary { knn, linear, ..summary() }),
            "no accuracy was measured; 1 500 steps, 812 images/s, 3 min 12 s in all, 512 MiB at most, 3.0 GiB on the device"
        );
    }

    #[test]
    fn algorithms_that_are_measured_anew_are_told() {
        let mut console = Console::new(crate::ConsoleKind::Plain);
        let mut lines = Vec::new();
        {
            let mut log = |line: &str| lines.push(line.to_owned());
            let [chosen_by, here] = ["A", "B"].map(String::from);
            let outdated = OutdatedChoices { chosen_by, here };
            watch(&mut console, &|| false, &mut log)(&Event::ChosenAnew { outdated: &outdated });
        }
        let expected = "warning: the algorithms of convolutions are measured again, and bits may differ: the checkpoint has those of A, and here is B";
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_warning_is_told_once() {
        let mut console = Console::new(crate::ConsoleKind::Plain);
        let mut lines = Vec::new();
        {
            let mut log = |line: &str| lines.push(line.to_owned());
            let mut watch = watch(&mut console, &|| false, &mut log);
            let health = HealthReport {
                queue_filled_percent: 40,
                chance_loss: 6.93,
                floor_loss: 2.1,
                alarms: BTreeSet::from([Alarm::BnLeak]),
            };
            for global_step in [25, 50] {
                let line = LogLine {
                    statistics: StepStatistics {
                        global_step,
                        loss: 6.0,
                        pretext_top1: 10.0,
                        pretext_top5: 20.0,
                        positive_cosine: 0.5,
                        negative_cosine: 0.0,
                    },
                    epoch: 0,
                    lr: 0.1,
                    images_per_second: 100.0,
                    data_wait_percent: 1.0,
                    bad_samples: 0,
                    time_left: None,
                    health: health.clone(),
                };
                watch(&Event::Log(&line));
            }
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("warning")).count(), 1, "{lines:?}");
        assert!(lines[0].contains("queue 40 % filled: a rising loss is expected"), "{lines:?}");
    }
}
