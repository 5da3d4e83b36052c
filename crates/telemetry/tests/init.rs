//! The process-wide set-up, in a process of its own.

use std::io::Write;
use std::sync::{Arc, Mutex};

use moco_telemetry::{init_tracing, local_time};

/// A console that keeps what it is given.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().map_err(|error| std::io::Error::other(error.to_string()))?.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn console_and_run_log_get_the_same_bytes_and_a_second_set_up_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.log");
    let refused = init_tracing("info", local_time(), std::io::sink, Some(folder.path()));
    let text = refused.unwrap_err().to_string();
    assert!(text.starts_with(&format!("cannot open {}: ", folder.path().display())), "{text}");

    std::fs::write(&path, "earlier\n").unwrap();
    let screen = Screen::default();
    let console = screen.clone();
    init_tracing("info", local_time(), move || console.clone(), Some(&path)).unwrap();
    tracing::info!(step = 5, "saved");
    tracing::error!("stopped");
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert_eq!(lines[0], "earlier");
    assert!(lines[1].ends_with("  INFO saved step=5"), "{log}");
    assert!(lines[2].ends_with(" ERROR stopped"), "{log}");
    let shown = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
    assert_eq!(format!("earlier\n{shown}"), log);

    let again = init_tracing("info", local_time(), std::io::sink, None).unwrap_err();
    assert_eq!(
        again.to_string(),
        "logging is already set up: a global default trace dispatcher has already been set"
    );
}
