//! A thousand files against what the pinned Pillow made of them (`golden/generate.py`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::corpus::{Origin, sample};
use crate::verdict::{Class, JPEG_REASONS, Outcome, PNG_REASONS, class, ours, parts_agree};

const OUTCOMES: &str = include_str!("../golden/outcomes.json");
const DEVIATIONS: &str = include_str!("../../../docs/deviations.md");

#[test]
fn a_thousand_files_are_decoded_as_pillow_does_or_refused_for_a_listed_reason() {
    let golden: Value = serde_json::from_str(OUTCOMES).unwrap();
    let seed = golden["seed"].as_u64().unwrap();
    let outcomes = golden["outcomes"].as_str().unwrap().split(' ').map(|outcome| match outcome {
        "-" => Outcome::Refused("by Pillow".into()),
        digits => Outcome::Pixels(digits.into()),
    });
    let mut counts: BTreeMap<(Class, Origin), usize> = BTreeMap::new();
    for (number, pillow) in (0..).zip(outcomes) {
        let sample = sample(seed, number);
        let ours = ours(&sample.bytes);
        let class = class(&sample, &ours, &pillow);
        assert!(class.is_allowed(), "file {number}: {class:?}; here {ours:?}, Pillow {pillow:?}");
        assert!(parts_agree(&sample.bytes), "file {number}: a part is not a part of the whole");
        *counts.entry((class, sample.origin)).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<usize>(), 1000);
    // The files say something: most sound ones are decoded, and of the damaged ones some in each way.
    for (class, origin, least) in [
        (Class::SameBits, Origin::Jpeg, 300),
        (Class::SameBits, Origin::Png, 150),
        (Class::SameBits, Origin::DamagedJpeg, 60),
        (Class::SameBits, Origin::DamagedPng, 4),
        (Class::BothRefuse, Origin::DamagedJpeg, 60),
        (Class::BothRefuse, Origin::DamagedPng, 30),
        (Class::Listed, Origin::DamagedJpeg, 30),
    ] {
        let count = counts.get(&(class, origin)).copied().unwrap_or(0);
        assert!(count >= least, "{class:?} {origin:?}: {count} of at least {least}");
    }
}

#[test]
fn each_reason_is_in_the_list_of_deviations() {
    for reason in JPEG_REASONS.iter().chain(PNG_REASONS) {
        assert!(DEVIATIONS.contains(&format!("`{reason}`")), "{reason}");
    }
}
