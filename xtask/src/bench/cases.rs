//! The cases of `bench step`, with the floating-point operations of each.

/// A case in the words of `bench --help`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Floating-point operations of its convolutions and matrix products; 0 where memory is what counts.
    pub(crate) operations: f64,
}

/// Steps that the bar is set for.
const STEPS: [(&str, &str, usize, usize); 5] = [
    ("resnet18", "cifar", 32, 32),
    ("resnet18", "imagenet", 64, 32),
    ("resnet18", "imagenet", 112, 32),
    ("resnet50", "imagenet", 64, 16),
    ("resnet50", "imagenet", 224, 8),
];

/// Layers of the steps above: n, c, size, c_out, kernel, stride.
const CONVOLUTIONS: [[usize; 6]; 12] = [
    [32, 64, 32, 64, 3, 1],
    [32, 128, 16, 128, 3, 1],
    [32, 256, 8, 256, 3, 1],
    [32, 512, 4, 512, 3, 1],
    [32, 512, 2, 512, 3, 1],
    [32, 64, 32, 128, 3, 2],
    [8, 3, 224, 64, 7, 2],
    [8, 256, 56, 64, 1, 1],
    [8, 64, 56, 256, 1, 1],
    [8, 512, 7, 2048, 1, 1],
    [8, 2048, 7, 512, 1, 1],
    [8, 1024, 14, 2048, 1, 2],
];

/// Training steps.
pub(crate) fn steps() -> Vec<Case> {
    let case = |(arch, stem, size, batch): (&str, &str, usize, usize)| Case {
        name: format!("step {arch} {stem} {size} {batch}"),
        operations: to_f64(batch) * step_operations(arch, stem, size),
    };
    STEPS.into_iter().map(case).collect()
}

/// Single operations.
pub(crate) fn ops() -> Vec<Case> {
    let mut cases = Vec::new();
    for [n, c, size, c_out, k, stride] in CONVOLUTIONS {
        let operations = to_f64(n) * conv_operations([c, c_out, k], size.div_ceil(stride));
        // The gradient of an image is never asked for.
        for pass in ["forward", "dx", "dw"].into_iter().filter(|pass| c > 3 || *pass != "dx") {
            let name = format!("conv {n} {c} {size} {c_out} {k} {stride} {pass}");
            cases.push(Case { name, operations });
        }
    }
    for op in ["bn", "bn_add"] {
        for pass in ["forward", "backward"] {
            for [n, c, size] in [[32, 64, 32], [8, 256, 56]] {
                cases.push(Case { name: format!("{op} {n} {c} {size} {pass}"), operations: 0.0 });
            }
        }
    }
    for pass in ["forward", "backward"] {
        cases.push(Case { name: format!("max_pool 8 64 112 {pass}"), operations: 0.0 });
    }
    for (n, k) in [(64, 1024), (256, 65536)] {
        // q·queue for the loss and p·queueᵀ for the gradient.
        let operations = 4.0 * to_f64(n) * to_f64(k) * 128.0;
        cases.push(Case { name: format!("info_nce {n} {k}"), operations });
    }
    for op in ["sgd", "ema"] {
        cases.push(Case { name: format!("{op} 11000000"), operations: 0.0 });
    }
    cases
}

/// Of one image: a multiplication and an addition for each weight and output pixel.
fn conv_operations([c, c_out, k]: [usize; 3], size_out: usize) -> f64 {
    2.0 * to_f64(c * c_out * k * k * size_out * size_out)
}

/// Of one image: forward, and twice as much backward but for the image's gradient.
fn step_operations(arch: &str, stem: &str, size: usize) -> f64 {
    let (k, mut size) = if stem == "cifar" { (3, size) } else { (7, size.div_ceil(2)) };
    let of_stem = conv_operations([3, 64, k], size);
    let mut all = 0.0;
    if stem != "cifar" {
        size = size.div_ceil(2);
    }
    let (blocks, expansion) =
        if arch == "resnet50" { ([3, 4, 6, 3], 4) } else { ([2, 2, 2, 2], 1) };
    let mut c = 64;
    for (stage, n_blocks) in blocks.into_iter().enumerate() {
        let planes = 64 << stage;
        for block in 0..n_blocks {
            let before = size;
            if stage > 0 && block == 0 {
                size = size.div_ceil(2);
            }
            all += if expansion == 1 {
                conv_operations([c, planes, 3], size) + conv_operations([planes, planes, 3], size)
            } else {
                conv_operations([c, planes, 1], before)
                    + conv_operations([planes, planes, 3], size)
                    + conv_operations([planes, planes * expansion, 1], size)
            };
            if c != planes * expansion || before != size {
                all += conv_operations([c, planes * expansion, 1], size);
            }
            c = planes * expansion;
        }
    }
    3.0 * all + 2.0 * of_stem
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn to_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiply-adds of the whole network as published with torchvision's models, without the classifier.
    #[test]
    fn operations_are_the_published_ones() {
        for (arch, giga_multiply_adds, of_stem, classifier) in [
            ("resnet18", 1.814, 0.118_013_952, 512.0 * 1000.0),
            ("resnet50", 4.089, 0.118_013_952, 2048.0 * 1000.0),
        ] {
            let forward = (step_operations(arch, "imagenet", 224) / 2.0 / 1e9 + of_stem) / 3.0;
            let expected = giga_multiply_adds - classifier / 1e9;
            assert!((forward - expected).abs() < 2e-3, "{arch}: {forward}");
        }
    }
}
