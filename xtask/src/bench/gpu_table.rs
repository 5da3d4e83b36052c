//! The table of `bench gpu`: the reports of both sides.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::median::median;

/// The program that computes the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Ours,
    Eager,
    Compiled,
}

impl Side {
    pub(super) const ALL: [Self; 3] = [Self::Ours, Self::Eager, Self::Compiled];
    const PEERS: [Self; 2] = [Self::Eager, Self::Compiled];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Eager => "eager",
            Self::Compiled => "torch.compile",
        }
    }
}

/// A number of a report, by its place; several places are added up.
struct Quantity {
    name: &'static str,
    places: &'static [&'static str],
    /// Times this, as the table and the results show it.
    scale: f64,
}

const PHASES: [&str; 5] = [
    "/phases_ms/query_forward",
    "/phases_ms/key_forward",
    "/phases_ms/loss",
    "/phases_ms/backward",
    "/phases_ms/optimizer",
];

const GIB: f64 = 1.0 / (1024.0 * 1024.0 * 1024.0);

const QUANTITIES: [Quantity; 9] = [
    Quantity { name: "images a second", places: &["/images_per_second"], scale: 1.0 },
    Quantity { name: "step, ms", places: &["/step_ms"], scale: 1.0 },
    Quantity { name: "query forward, ms", places: &[PHASES[0]], scale: 1.0 },
    Quantity { name: "key forward, ms", places: &[PHASES[1]], scale: 1.0 },
    Quantity { name: "loss, ms", places: &[PHASES[2]], scale: 1.0 },
    Quantity { name: "backward, ms", places: &[PHASES[3]], scale: 1.0 },
    Quantity { name: "optimizer, ms", places: &[PHASES[4]], scale: 1.0 },
    Quantity { name: "sum of the phases, ms", places: &PHASES, scale: 1.0 },
    Quantity { name: "peak memory, GiB", places: &["/peak_memory_bytes"], scale: GIB },
];

/// Rates of ours that have no peer but the rate of ours on views that are on the device already.
const FEEDS: [Quantity; 2] = [
    Quantity {
        name: "images a second through the pipeline",
        places: &["/feed/images_per_second"],
        scale: 1.0,
    },
    Quantity {
        name: "images a second, only the pipeline",
        places: &["/feed/alone_images_per_second"],
        scale: 1.0,
    },
];

/// The reports of all trials, and why a side has none.
#[derive(Debug, Default)]
pub(super) struct Reports {
    reports: BTreeMap<Side, Vec<Value>>,
    failures: BTreeMap<Side, String>,
}

impl Reports {
    pub(super) fn take(&mut self, side: Side, report: anyhow::Result<Value>) {
        match report {
            Ok(report) => self.reports.entry(side).or_default().push(report),
            Err(error) => {
                self.failures.insert(side, format!("{error:#}"));
            }
        }
    }

    pub(super) fn has_failed(&self, side: Side) -> bool {
        self.failures.contains_key(&side)
    }

    /// `None` if each side ran.
    pub(super) fn failures(&self) -> Option<String> {
        let listed = self.failures.iter().map(|(side, why)| format!("{} ({why})", side.name()));
        let listed: Vec<String> = listed.collect();
        (!listed.is_empty()).then(|| listed.join(", "))
    }

    /// The device and the settings.
    pub(super) fn title(&self) -> String {
        let Some(report) = self.reports.values().flatten().next() else {
            return "no side ran".into();
        };
        let text = |name: &str| match &report[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let [arch, size, batch_size, queue_size, precision, device] =
            ["arch", "size", "batch_size", "queue_size", "precision", "device"].map(text);
        format!("{arch} {size} b{batch_size} K{queue_size} {precision} on {device}")
    }

    /// A number of each trial of a side, empty where it has none.
    fn trials(&self, side: Side, Quantity { places, scale, .. }: &Quantity) -> Vec<f64> {
        let of_report = |report: &Value| {
            let numbers = places.iter().map(|place| report.pointer(place)?.as_f64());
            numbers.sum::<Option<f64>>().map(|sum| sum * scale)
        };
        self.reports.get(&side).into_iter().flatten().filter_map(of_report).collect()
    }

    /// Each number of ours against each peer's that has it.
    pub(super) fn rows(&self) -> Vec<Value> {
        let title = self.title();
        let mut rows = Vec::new();
        let mut add = |name: &str, peer: &str, [ours, theirs]: [&[f64]; 2]| {
            if ours.is_empty() || theirs.is_empty() {
                return;
            }
            let (of_ours, of_peer) = (median(ours), median(theirs));
            rows.push(json!({
                "case": format!("{title}: {name} vs {peer}"),
                "ours": of_ours,
                "peer": of_peer,
                "ratio": of_ours / of_peer,
                "ours_trials": ours,
                "peer_trials": theirs,
            }));
        };
        for quantity in &QUANTITIES {
            let ours = self.trials(Side::Ours, quantity);
            for peer in Side::PEERS {
                add(quantity.name, peer.name(), [&ours, &self.trials(peer, quantity)]);
            }
        }
        let pure = self.trials(Side::Ours, &QUANTITIES[0]);
        for feed in &FEEDS {
            add(feed.name, "views on the device", [&self.trials(Side::Ours, feed), &pure]);
        }
        rows
    }

    /// For people; a blank where a side has no such number.
    pub(super) fn table(&self) -> String {
        let mut table = line("", Side::ALL.map(|side| side.name().into()), ["ratio", "ratio"]);
        for quantity in &QUANTITIES {
            let medians = Side::ALL.map(|side| median(&self.trials(side, quantity)));
            let [ours, peers @ ..] = medians;
            let ratios = peers.map(|peer| number(ours / peer, 2));
            let ratios = [&*ratios[0], &*ratios[1]];
            table += &line(quantity.name, medians.map(|middle| number(middle, 2)), ratios);
        }
        let pure = median(&self.trials(Side::Ours, &QUANTITIES[0]));
        for feed in &FEEDS {
            let fed = median(&self.trials(Side::Ours, feed));
            let share = number(100.0 * fed / pure, 1);
            if !share.is_empty() {
                table += &format!("{}: {fed:.1}, {share} % of the above\n", feed.name);
            }
        }
        table += &self.busy_stages();
        for (side, reports) in &self.reports {
            let steps = reports.iter().filter_map(|report| report["step_ms"].as_f64());
            let steps: Vec<String> = steps.map(|ms| format!("{ms:.2}")).collect();
            let losses: Vec<String> = reports
                .iter()
                .map(|report| {
                    format!("{:.3} to {:.3}", of(report, "first_loss"), of(report, "last_loss"))
                })
                .collect();
            let (name, steps, losses) = (side.name(), steps.join(" "), losses.join(", "));
            table += &format!("{name}: step ms {steps}; loss {losses}\n");
        }
        for (side, why) in &self.failures {
            table += &format!("{} did not run: {why}\n", side.name());
        }
        table
    }

    /// How busy each stage of the pipeline is when only the pipeline runs, in the last trial.
    fn busy_stages(&self) -> String {
        let last = self.reports.get(&Side::Ours).and_then(|reports| reports.last());
        let stages = last.and_then(|report| report["feed"]["busy"].as_object());
        let shares = stages
            .into_iter()
            .flatten()
            .filter_map(|(stage, share)| Some(format!("{stage} {:.0} %", 100.0 * share.as_f64()?)));
        let shares: Vec<String> = shares.collect();
        if shares.is_empty() {
            return String::new();
        }
        format!("its stages are busy for {} of their time\n", shares.join(", "))
    }
}

fn of(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or(f64::NAN)
}

fn number(number: f64, decimals: usize) -> String {
    if number.is_finite() { format!("{number:.decimals$}") } else { String::new() }
}

fn line(
    name: &str,
    [ours, eager, compiled]: [String; 3],
    [to_eager, to_compiled]: [&str; 2],
) -> String {
    let line =
        format!("{name:<24}{ours:>10}{eager:>10}{to_eager:>7}{compiled:>15}{to_compiled:>7}");
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report whose times are `ms`, 2 `ms`, … in the order of the phases.
    fn report(ms: f64, memory: &Value) -> Value {
        json!({
            "arch": "resnet50", "size": 224, "batch_size": 256, "queue_size": 65536,
            "precision": "bf16", "device": "G", "step_ms": 10.0 * ms,
            "images_per_second": 256e3 / (10.0 * ms), "peak_memory_bytes": memory,
            "phases_ms": {
                "query_forward": ms, "key_forward": 2.0 * ms, "loss": 3.0 * ms,
                "backward": 4.0 * ms, "optimizer": 5.0 * ms,
            },
            "first_loss": 1.5, "last_loss": 0.25,
        })
    }

    fn reports() -> Reports {
        let mut reports = Reports::default();
        for ms in [4.0, 5.0, 9.0] {
            let mut ours = report(ms, &json!(1_u64 << 31));
            ours["feed"] = json!({
                "images_per_second": 4864.0, "alone_images_per_second": 10240.0, "share": 0.95,
                "busy": {"batch": 0.99, "upload": 0.125},
            });
            reports.take(Side::Ours, Ok(ours));
            reports.take(Side::Eager, Ok(report(2.0 * ms, &json!(1_u64 << 32))));
        }
        reports.take(Side::Compiled, Err(anyhow::anyhow!("exit status: 1")));
        reports
    }

    #[test]
    fn the_table_shows_medians_ratios_and_what_is_missing() {
        let expected = "                              ours     eager  ratio  torch.compile  ratio
images a second            5120.00   2560.00   2.00
step, ms                     50.00    100.00   0.50
query forward, ms             5.00     10.00   0.50
key forward, ms              10.00     20.00   0.50
loss, ms                     15.00     30.00   0.50
backward, ms                 20.00     40.00   0.50
optimizer, ms                25.00     50.00   0.50
sum of the phases, ms        75.00    150.00   0.50
peak memory, GiB              2.00      4.00   0.50
images a second through the pipeline: 4864.0, 95.0 % of the above
images a second, only the pipeline: 10240.0, 200.0 % of the above
its stages are busy for batch 99 %, upload 12 % of their time
ours: step ms 40.00 50.00 90.00; loss 1.500 to 0.250, 1.500 to 0.250, 1.500 to 0.250
eager: step ms 80.00 100.00 180.00; loss 1.500 to 0.250, 1.500 to 0.250, 1.500 to 0.250
torch.compile did not run: exit status: 1
";
        assert_eq!(reports().table(), expected);
    }

    #[test]
    fn rows_compare_what_both_have() {
        let reports = reports();
        let rows = reports.rows();
        let expected = json!({
            "case": "resnet50 224 b256 K65536 bf16 on G: step, ms vs eager",
            "ours": 50.0, "peer": 100.0, "ratio": 0.5,
            "ours_trials": [40.0, 50.0, 90.0], "peer_trials": [80.0, 100.0, 180.0],
        });
        assert_eq!(rows[1], expected);
        // Nine numbers against one peer that ran, and two of the pipeline.
        assert_eq!(rows.len(), 11);
        assert_eq!(rows[9]["ratio"], 0.95);
        assert!(reports.has_failed(Side::Compiled) && !reports.has_failed(Side::Eager));
        assert_eq!(reports.failures().unwrap(), "torch.compile (exit status: 1)");
    }

    #[test]
    fn without_a_device_s_memory_or_any_report_there_are_no_such_rows() {
        let mut reports = Reports::default();
        assert_eq!((reports.title().as_str(), reports.rows().len()), ("no side ran", 0));
        for side in [Side::Ours, Side::Compiled] {
            reports.take(side, Ok(report(1.0, &Value::Null)));
        }
        assert_eq!(reports.rows().len(), 8);
        assert!(reports.table().contains("\npeak memory, GiB\n"), "{}", reports.table());
        assert_eq!(reports.failures(), None);
    }
}
