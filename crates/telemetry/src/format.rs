//! Durations, counts and sizes for people.

use std::time::Duration;

/// A duration in its two largest units: `0.8 s`, `42 s`, `4 min 12 s`, `3 h 5 min`, `2 d 4 h`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    // Rounded before it is split, so that 59.7 s becomes a minute and not 60 s.
    let tenths = round_div(duration.as_nanos(), 100_000_000);
    let secs = round_div(duration.as_nanos(), 1_000_000_000);
    let mins = round_div(duration.as_nanos(), 60_000_000_000);
    let hours = round_div(duration.as_nanos(), 3_600_000_000_000);
    if tenths < 100 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else if secs < 60 {
        format!("{secs} s")
    } else if secs < 3_600 {
        format!("{} min {} s", secs / 60, secs % 60)
    } else if mins < 24 * 60 {
        format!("{} h {} min", mins / 60, mins % 60)
    } else {
        format!("{} d {} h", hours / 24, hours % 24)
    }
}

fn round_div(n: u128, unit: u128) -> u128 {
    (n + unit / 2) / unit
}

/// A count with its digits in groups of three: `1 281 167`.
#[must_use]
pub fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A size in binary units with two to four digits: `200 B`, `1.5 KiB`, `64 MiB`, `3.1 GiB`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit_bytes = 1024_u128;
    let bytes = u128::from(bytes);
    for unit in UNITS {
        let tenths = round_div(bytes * 10, unit_bytes);
        let whole = round_div(bytes, unit_bytes);
        if tenths < 100 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        if whole < 1024 {
            return format!("{whole} {unit}");
        }
        unit_bytes *= 1024;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (millis, expected) in [
            (0, "0.0 s"),
            (49, "0.0 s"),
            (50, "0.1 s"),
            (800, "0.8 s"),
            (9_940, "9.9 s"),
            (9_950, "10 s"),
            (59_499, "59 s"),
            (59_500, "1 min 0 s"),
            (252_000, "4 min 12 s"),
            (3_599_499, "59 min 59 s"),
            (3_599_500, "1 h 0 min"),
            (11_100_000, "3 h 5 min"),
            (86_369_999, "23 h 59 min"),
            (86_370_000, "1 d 0 h"),
            (187_200_000, "2 d 4 h"),
            (8_640_000_000, "100 d 0 h"),
        ] {
            assert_eq!(format_duration(Duration::from_millis(millis)), expected, "{millis} ms");
        }
        assert_eq!(format_duration(Duration::MAX), "213503982334601 d 7 h");
    }

    #[test]
    fn counts() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1 000"),
            (50_000, "50 000"),
            (1_281_167, "1 281 167"),
            (u64::MAX, "18 446 744 073 709 551 615"),
        ] {
            assert_eq!(format_count(count), expected);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (64 << 20, "64 MiB"),
            (3_328_599_655, "3.1 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), expected, "{bytes}");
        }
    }
}
