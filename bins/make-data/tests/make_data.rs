//! The shards that are written are those of the committed manifest.

use std::process::Command;

#[test]
fn writes_what_the_manifest_says_and_finds_a_changed_byte() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data-manifests/textures.toml");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_make-data"));
        command.current_dir(folder.path()).args(["--out", "data"]).args(arguments).output().unwrap()
    };
    let output = run(&[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("5 000 training and 1 000 held-out images of 16 classes"), "{stdout}");
    assert!(run(&["--verify", manifest]).status.success());
    let shard = folder.path().join("data/train-000000.tar");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let output = run(&["--verify", manifest]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("train-000000.tar"));
}
