//! Verifies shards on a web server of which a fifth of the requests fail.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use moco_ingest::{ImageFormat, Manifest, ShardWriter};

#[test]
fn shards_on_a_server_are_verified_through_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::new(&folder.path().join("out"), "train", 2).unwrap();
    for i in 0..9_u8 {
        writer.push(&format!("{i}"), ImageFormat::Jpeg, &[i; 5000], None).unwrap();
    }
    let manifest = Manifest { train: writer.finish().unwrap(), ..Manifest::default() };
    manifest.save(&folder.path().join("m.toml")).unwrap();

    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/ingest/tests/remote/faults.py");
    let mut server = Command::new("python3");
    server.arg(script).arg(folder.path().join("out")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let verify = |mode: &str| {
        let root = format!("http://127.0.0.1:{}/{mode}", port.trim());
        let mut command = Command::new(env!("CARGO_BIN_EXE_shard"));
        let arguments =
            ["verify", "m.toml", "--cache", "cache", "--cache-bytes", "40000", "--root"];
        let output = command.current_dir(folder.path()).args(arguments).arg(root).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, stdout, stderr) = verify("flaky");
    assert_eq!((code, stdout.as_str()), (Some(0), "train: 5 of 5 shards are right\n"), "{stderr}");
    std::fs::remove_file(folder.path().join("out/train-000000.tar")).unwrap();
    let (code, stdout, stderr) = verify("good");
    assert_eq!((code, stdout.as_str()), (Some(3), "train: 4 of 5 shards are right\n"), "{stderr}");
    assert!(stderr.contains("wrong: shard train-000000.tar is missing from http://"), "{stderr}");
    // The server ends with its standard input.
    drop(server.stdin.take());
    server.wait().unwrap();
}
