//! The process-wide log, in a process of its own.

use moco_telemetry::start_log;

#[test]
fn the_run_log_continues_where_it_ended_and_a_second_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.log");
    std::fs::write(&path, "earlier\n").unwrap();
    let log = start_log(None, std::io::sink).unwrap();
    tracing::info!("before there is a file");
    log.open(&path).unwrap();
    tracing::info!(step = 5, "saved");
    std::thread::scope(|scope| scope.spawn(|| tracing::error!("stopped")).join().unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "earlier");
    assert_eq!(lines[1].get(19..), Some("  INFO saved step=5"), "{text}");
    assert_eq!(lines[2].get(19..), Some(" ERROR stopped"), "{text}");

    let again = start_log(None, std::io::sink).unwrap_err();
    assert_eq!(
        again.to_string(),
        "logging is already set up: a global default trace dispatcher has already been set"
    );
}
