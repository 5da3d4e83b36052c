//! `bench gpu-items`: every kernel and every kind of library call once, each compared with the CPU.

mod compare;
mod items;
mod side;

use std::time::Instant;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use moco_cli::{Device, Exit, print_result};
use moco_ops::Precision;
use serde_json::{Value, json};

use self::items::{ITEMS, Item};
use self::side::Side;

/// Does each operation once on the device and on the CPU, and prints one JSON object a line: before an item
/// `{"begins": NAME}`, after it `{"item": NAME, "passed": …, "error": …}`. A difference is reported with
/// the tensor, its shape, and the first and the worst number.
///
/// Ends with exit code 1 after an item that left the device unresponsive; `--after NAME` continues with the
/// next one in a separate process.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where to compute: cuda:N, or cpu to try the program out
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// Begins after this item
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// Does the items whose name begins so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    only: String,
    /// Prints the names and does nothing
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let items = chosen(args)?;
    if args.list {
        for item in items {
            print_result(&item.name());
        }
        return Ok(Exit::Done);
    }
    let device = args.device.open(Precision::F32)?;
    let mut all_passed = true;
    for item in items {
        if args.device == Device::Cpu && item.needs_gpu() {
            print_result(&json!({"item": item.name(), "left_out": "needs a GPU"}).to_string());
            continue;
        }
        print_result(&json!({"begins": item.name()}).to_string());
        let report = report(item, &Side::tried(item.dtype, &device));
        all_passed &= report["passed"] == true;
        print_result(&report.to_string());
        device
            .synchronize()
            .with_context(|| format!("the device is lost after {}", item.name()))?;
    }
    Ok(if all_passed { Exit::Done } else { Exit::Failed })
}

fn chosen(args: &Args) -> anyhow::Result<Vec<Item>> {
    let mut items: Vec<Item> = ITEMS.iter().flat_map(|item| item.of_each_type()).collect();
    if let Some(after) = &args.after {
        let at = items.iter().position(|item| item.name() == *after);
        items.drain(..=at.with_context(|| format!("no item `{after}`; --list prints them"))?);
    }
    items.retain(|item| item.name().starts_with(&args.only));
    Ok(items)
}

fn report(item: Item, side: &Side) -> Value {
    let began = Instant::now();
    let compared = (item.work)(&Side::reference(item.dtype))
        .and_then(|expected| Ok((expected, (item.work)(side)?)))
        .and_then(|(expected, got)| compare::all(&got, &expected, item.tolerance()));
    let seconds = began.elapsed().as_secs_f64();
    let (passed, what) = match compared {
        Ok(worst) => (true, json!(worst)),
        Err(error) => (false, json!(format!("{error:#}"))),
    };
    let key = if passed { "worst" } else { "error" };
    json!({"item": item.name(), "passed": passed, "seconds": seconds, key: what})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn args(after: Option<&str>, only: &str) -> Args {
        let after = after.map(str::to_owned);
        Args { device: Device::Cpu, after, only: only.to_owned(), list: false }
    }

    /// A kernel that reads one wrong element is named, with the place.
    #[cfg(feature = "wrong-index")]
    #[test]
    fn a_wrong_index_of_a_kernel_is_found() {
        let item = chosen(&args(None, "relu/f32")).unwrap()[0];
        let reference = (item.work)(&Side::reference(item.dtype)).unwrap();
        let side = Side::tried(item.dtype, &candle_core::Device::Cpu);
        let (got, _) = moco_ops::emulate(|| (item.work)(&side));
        let error =
            compare::all(&got.unwrap(), &reference, item.tolerance()).unwrap_err().to_string();
        // Among numbers 40 to 47 of rows of 37; where two neighbors are negative, ReLU hides it.
        assert!(error.starts_with("y [7, 37]: ") && error.contains("first at [1, "), "{error}");
    }

    /// On the emulator, which runs the device's kernels.
    #[cfg(not(feature = "wrong-index"))]
    #[test]
    fn every_item_passes_and_every_kernel_is_launched() {
        let entries = include_str!("../../../../crates/ops/kernels/entries.inc");
        let names = |prefix: &str| {
            let lines =
                entries.lines().filter_map(|line| line.strip_prefix(prefix)?.strip_suffix(')'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut expected: BTreeSet<String> = names("ENTRY(").into_iter().collect();
        for name in names("TYPED_ENTRY(") {
            expected.extend(["f32", "bf16"].map(|dtype| format!("{name}_{dtype}")));
        }
        assert!(expected.len() > 50, "{expected:?}");
        let mut launched = BTreeSet::new();
        for item in chosen(&args(None, "")).unwrap() {
            // The reference is the CPU's own.
            let reference = (item.work)(&Side::reference(item.dtype)).unwrap();
            let side = Side::tried(item.dtype, &candle_core::Device::Cpu);
            let (got, kernels) = moco_ops::emulate(|| (item.work)(&side));
            launched.extend(kernels);
            let worst = compare::all(&got.unwrap(), &reference, item.tolerance());
            assert!(worst.is_ok(), "{}: {:#}", item.name(), worst.unwrap_err());
        }
        let missing: Vec<&String> = expected.difference(&launched).collect();
        assert!(missing.is_empty(), "no item launches {missing:?}");
        for library in ["Forward", "InputGradient", "WeightGradient", "Product"] {
            assert!(launched.contains(library), "{launched:?}");
        }
    }

    #[test]
    fn items_are_chosen_by_name_and_gone_on_with() {
        let names = |args: &Args| -> Vec<String> {
            chosen(args).unwrap().into_iter().map(Item::name).collect()
        };
        let all = names(&args(None, ""));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let convolutions = names(&args(None, "convolution"));
        assert!(convolutions.len() >= 6 && convolutions.len() < all.len(), "{convolutions:?}");
        assert_eq!(names(&args(Some(&all[2]), "")), all[3..]);
        let error = chosen(&args(Some("no"), "")).unwrap_err().to_string();
        assert_eq!(error, "no item `no`; --list prints them");
    }

    #[test]
    fn a_failure_is_told_with_its_place() {
        let item = ITEMS[0].of_each_type()[0];
        let wrong = Item { work: |side| Ok(vec![("y", side.numbers(1, &[2, 3])?)]), ..item };
        let side = Side::tried(wrong.dtype, &candle_core::Device::Cpu);
        assert_eq!(report(wrong, &side)["passed"], true);
        let failing = Item { work: |_| anyhow::bail!("out of memory"), ..item };
        let report = report(failing, &side);
        assert_eq!((&report["passed"], &report["error"]), (&json!(false), &json!("out of memory")));
    }
}
