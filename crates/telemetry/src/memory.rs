//! Peak memory of this process.

use std::path::Path;

use crate::error::TelemetryError;

/// The peak resident memory of this process so far, as Linux counts it (`VmHWM`).
///
/// # Errors
/// The system has no `/proc/self/status`, or the file has no such line.
pub fn peak_memory_bytes() -> Result<u64, TelemetryError> {
    let path = Path::new("/proc/self/status");
    let status = std::fs::read_to_string(path).map_err(TelemetryError::io("read", path))?;
    parse_peak(&status).map_err(|got| TelemetryError::NoPeakMemory { path: path.to_owned(), got })
}

/// The error is the line that was found instead.
fn parse_peak(status: &str) -> Result<u64, String> {
    let Some(value) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else {
        return Err("no such line".to_owned());
    };
    let kibibytes = value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
    kibibytes.and_then(|n| n.checked_mul(1024)).ok_or_else(|| format!("`VmHWM:{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_parsed_or_quoted() {
        let status = "Name:\tmoco\nVmPeak:\t  999 kB\nVmHWM:\t  123456 kB\nVmRSS:\t  1 kB\n";
        assert_eq!(parse_peak(status), Ok(123_456 * 1024));
        for (status, got) in [
            ("", "no such line"),
            ("VmPeak: 1 kB", "no such line"),
            ("VmHWM: 12 MB", "`VmHWM: 12 MB`"),
            ("VmHWM: -3 kB", "`VmHWM: -3 kB`"),
            ("VmHWM: 18446744073709551615 kB", "`VmHWM: 18446744073709551615 kB`"),
        ] {
            assert_eq!(parse_peak(status), Err(got.to_owned()));
        }
        let error = TelemetryError::NoPeakMemory {
            path: "/proc/self/status".into(),
            got: "`VmHWM: 12 MB`".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "/proc/self/status has no line like `VmHWM: 12 kB`, got `VmHWM: 12 MB`"
        );
    }

    #[test]
    fn touching_memory_raises_the_peak() {
        const GROWTH: usize = 64 << 20;
        let before = peak_memory_bytes().unwrap();
        let touched = std::hint::black_box(vec![1_u8; GROWTH]);
        let after = peak_memory_bytes().unwrap();
        assert!(after >= GROWTH as u64 && after >= before, "{before} then {after}");
        drop(touched);
    }
}
