//! Prints the events of a run.

use std::time::Duration;

use moco_telemetry::{format_bytes, format_count, format_duration};
use moco_train::{Event, Failed, ImageCounts, LeftOut, Summary, Trio, format_pace};
use tracing::Level;

use crate::console::Console;

/// Prints a run's events on the console; the log has them all, also those that a terminal overwrites.
pub fn watch<'a>(
    console: &'a mut Console,
    is_stopping: &'a (dyn Fn() -> bool + Sync),
) -> impl FnMut(&Event<'_>) + Send + 'a {
    let mut announced_stop = false;
    let mut last = String::new();
    let mut current = String::new();
    move |event| {
        match event {
            Event::Started { global_step, total_steps, .. } => {
                console.line(&shown(event));
                console.start(*global_step, *total_steps);
            }
            Event::Stepped { global_step, images_per_second, time_left } => {
                let text = || format!("{}{last}", format_pace(*images_per_second, *time_left));
                console.beat(*global_step, &text);
            }
            Event::Log { line, .. } => {
                console.status(line.statistics.global_step, &line.to_string());
                let moco::StepStatistics { global_step, loss, pretext_top1, .. } = line.statistics;
                last = format!("  (step {global_step}: loss {loss:.3}, top-1 {pretext_top1:.0} %)");
            }
            Event::Saving { .. } | Event::Stages { .. } => {}
            // The log has them all; a screen full of them would hide the rest.
            Event::Skipped { n_bad_samples, .. } if !n_bad_samples.is_power_of_two() => {}
            // Its two lines say what they are.
            Event::Alarm { .. } => console.line(&event.to_string()),
            Event::Evaluating { .. } => {
                console.finish();
                console.line(&shown(event));
            }
            Event::Measuring { what, done, total, time_left } => {
                if current != *what {
                    current = (*what).to_owned();
                    console.start_quietly(*total);
                }
                console.advance(*done);
                if done < total {
                    let left = time_left.map(format_duration);
                    let left = left.map_or(String::new(), |left| format!(", {left} left"));
                    console.status(*done, &format!("{what}{left}"));
                } else {
                    console.finish();
                }
            }
            _ => console.line(&shown(event)),
        }
        if is_stopping() && !announced_stop {
            announced_stop = true;
            console.report("stopping after this step; saving (Ctrl-C again leaves without saving)");
        }
    }
}

/// An event as a line on the console.
fn shown(event: &Event<'_>) -> String {
    if event.level() == Level::WARN { format!("warning: {event}") } else { event.to_string() }
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
        format_duration(Duration::from_secs_f64(summary.wall_seconds.max(0.0))),
    );
    let notes = notes(summary);
    if [&summary.knn, &summary.linear].into_iter().all(|trio| *trio == Trio::default()) {
        let none = format!("no accuracy was measured; {cost}");
        return [vec![none], notes].concat().join("\n");
    }
    let (n_neighbors, temperature) = (summary.knn_n_neighbors, summary.knn_temperature);
    let table = vec![
        format!("{:<16} {:>8} {:>8}", "accuracy in %", "kNN", "linear"),
        row("raw pixels", |trio| trio.pixels),
        row("random encoder", |trio| trio.random),
        row("trained encoder", |trio| trio.trained),
        String::new(),
        format!("kNN: {n_neighbors} neighbors, temperature {temperature}; {cost}"),
    ];
    [table, notes].concat().join("\n")
}

/// What the accuracies are of, and what is not among them.
fn notes(summary: &Summary) -> Vec<String> {
    let mut notes = Vec::new();
    let images = &summary.images;
    if let Some(counts) = images.trained.or(images.random).or(images.pixels) {
        let ImageCounts { train, test, skipped } = counts;
        let [train, test] = [train, test].map(format_count);
        let skipped = match skipped {
            0 => String::new(),
            n => format!("; {n} more could not be used (bad_samples.txt)"),
        };
        notes.push(format!("of {test} test images, with {train} training images{skipped}"));
    }
    for LeftOut { extractor, reason } in &summary.left_out {
        notes.push(format!("left out: {}: {reason}", extractor.name()));
    }
    for Failed { extractor, measure, reason } in &summary.failed {
        let of = measure.map_or(String::new(), |measure| format!("{} of the ", measure.name()));
        notes.push(format!("failed: {of}{}: {reason}", extractor.name()));
    }
    notes
}

#[cfg(test)]
mod tests {
    use moco_train::{Extractor, Measure};

    use super::*;

    fn summary() -> Summary {
        Summary {
            knn: Trio { pixels: Some(13.04), random: Some(20.0), trained: Some(65.46) },
            knn_n_neighbors: 200,
            knn_temperature: 0.1,
            linear: Trio { pixels: None, random: Some(28.0), trained: Some(80.0) },
            images: Trio::default(),
            failed: Vec::new(),
            left_out: Vec::new(),
            evaluate: None,
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
    fn what_is_missing_stands_below_the_table() {
        let mut summary = summary();
        let counts = ImageCounts { train: 5000, test: 999, skipped: 3 };
        summary.images.trained = Some(counts);
        let reason = || "it is too large".to_owned();
        summary.left_out.push(LeftOut { extractor: Extractor::Pixels, reason: reason() });
        for (extractor, measure) in
            [(Extractor::Trained, Some(Measure::Linear)), (Extractor::Random, None)]
        {
            summary.failed.push(Failed { extractor, measure, reason: reason() });
        }
        let expected = "
of 999 test images, with 5 000 training images; 3 more could not be used (bad_samples.txt)
left out: raw pixels: it is too large
failed: linear classifier of the trained encoder: it is too large
failed: random encoder: it is too large";
        let table = summary_table(&summary);
        assert!(table.ends_with(expected), "{table}");
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
}
