//! The time of each kernel in eager steps, with the least that it must move and multiply.

use std::collections::BTreeMap;

use anyhow::Context as _;
use moco::{Batch, Moco};
use moco_ops::{Traced, trace};
use serde_json::{Value, json};

use super::setup::{LR, Setup};

/// Steps that are traced; the fastest time of each operation counts, since a host that falls behind shows
/// as time of the operation that it is late with.
const STEPS: usize = 3;

/// Operations of one kernel and shape in a step.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    calls: u64,
    milliseconds: f64,
    bytes: u64,
    flops: u64,
}

/// Rows of a step by operation, kernel and shape, slowest first.
pub(super) fn measure(moco: &mut Moco, views: &Batch, setup: &Setup) -> anyhow::Result<Value> {
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let (done, traced) = trace(&setup.device, || moco.step(views, LR))?;
        done?;
        steps.push(traced);
    }
    Ok(table(&steps, setup)?.into())
}

fn table(steps: &[Vec<Traced>], setup: &Setup) -> anyhow::Result<Vec<Value>> {
    let first = steps.first().context("no step was traced")?;
    let mut rows: BTreeMap<[&str; 3], Row> = BTreeMap::new();
    for (i, traced) in first.iter().enumerate() {
        let times = steps.iter().filter_map(|step| step.get(i)).map(|same| same.milliseconds);
        let fastest = f64::from(times.fold(f32::INFINITY, f32::min));
        let key = [traced.op, traced.kernel.as_str(), traced.shape.as_str()];
        let row =
            rows.entry(key).or_insert(Row { calls: 0, milliseconds: 0.0, bytes: 0, flops: 0 });
        row.calls += 1;
        row.milliseconds += fastest;
        row.bytes += traced.bytes;
        row.flops += flops(traced, setup);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(_, a), (_, b)| b.milliseconds.total_cmp(&a.milliseconds));
    let row = |([op, kernel, shape], row): ([&str; 3], Row)| {
        let Row { calls, milliseconds, bytes, flops } = row;
        json!({
            "op": op, "kernel": kernel, "shape": shape, "calls": calls, "ms": milliseconds,
            "bytes": bytes, "flops": flops,
        })
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Logits and gradient of InfoNCE are products inside a kernel of ours, which a trace does not count.
fn flops(traced: &Traced, setup: &Setup) -> u64 {
    if !traced.kernel.starts_with("info_nce_part") {
        return traced.flops;
    }
    4 * (setup.batch_size * setup.queue_size * super::setup::DIM) as u64
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use moco_encoders::Arch;

    use super::*;

    fn traced(kernel: &str, shape: &str, milliseconds: f32, bytes: u64) -> Traced {
        let (kernel, shape) = (kernel.to_owned(), shape.to_owned());
        Traced { op: "op", kernel, shape, milliseconds, bytes, flops: 3 }
    }

    #[test]
    fn rows_are_added_up_by_kernel_and_shape_from_the_fastest_of_each_operation() {
        let setup = Setup {
            arch: Arch::ResNet10,
            size: 32,
            batch_size: 2,
            queue_size: 8,
            dtype: DType::F32,
            device: candle_core::Device::Cpu,
        };
        let step = |late: f32| {
            vec![
                traced("a", "[1]", 1.0, 5),
                traced("info_nce_part_f32", "[8]", 9.0 + late, 7),
                traced("a", "[1]", 2.0 - late / 2.0, 5),
                traced("a", "[2]", 0.5, 6),
            ]
        };
        let rows = table(&[step(0.0), step(1.0)], &setup).unwrap();
        let brief: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row["kernel"].as_str(),
                    row["calls"].as_u64(),
                    row["ms"].as_f64(),
                    row["bytes"].as_u64(),
                )
            })
            .collect();
        let expected = [
            (Some("info_nce_part_f32"), Some(1), Some(9.0), Some(7)),
            (Some("a"), Some(2), Some(2.5), Some(10)),
            (Some("a"), Some(1), Some(0.5), Some(6)),
        ];
        assert_eq!(brief, expected);
        assert_eq!(rows[0]["flops"], 4 * 2 * 8 * 128);
        assert_eq!(rows[1]["flops"], 6);
        assert!(table(&[], &setup).unwrap_err().to_string().contains("no step"));
    }
}
