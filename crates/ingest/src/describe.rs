//! Describes shards that others made.

use std::path::Path;

use crate::{
    error::{IngestError, Remedy},
    manifest::ShardEntry,
    scan::{Kind, LabelKind, Scan, split_name},
    shards::checksum,
    sidecar,
    store::open_shard,
    walk::{Section, Walk},
};

/// What a manifest must say of the shard `file` in the folder `root`, whose labels are below `n_classes`;
/// with 0 they are not looked at.
///
/// # Errors
/// If the shard cannot be read, or a reader would refuse it.
pub fn describe_shard(
    root: &Path,
    file: &str,
    n_classes: usize,
) -> Result<ShardEntry, IngestError> {
    let (path, remedy) = (root.join(file), Remedy::Remake);
    let opened = open_shard(&path, remedy)?;
    let bytes = opened.metadata().map_err(IngestError::io("inspect", &path))?.len();
    let index = Scan { shard: &path, remedy, n_classes }.index(&opened)?;
    let (samples, blake3) = (index.len() as u64, checksum(&path)?);
    Ok(ShardEntry { file: file.to_owned(), samples, bytes, blake3 })
}

/// The highest label in a shard: a number in a `.cls` or under `label` or `cls` in JSON, or, if there is
/// none, in texts that are all numbers. `None` if texts are captions and there is nothing else.
///
/// # Errors
/// If the shard cannot be read.
pub fn labels_of_shard(root: &Path, file: &str) -> Result<Option<u32>, IngestError> {
    let (path, remedy) = (root.join(file), Remedy::Remake);
    let opened = open_shard(&path, remedy)?;
    // Any label is in range.
    let scan = Scan { shard: &path, remedy, n_classes: usize::MAX };
    let (mut labels, mut texts, mut has_captions) = (None, None, false);
    let walk = Walk { shard: &path, remedy };
    walk.members(Section::whole(&opened, &path)?, &mut |member, content| {
        match split_name(member.name).1 {
            Kind::Label(LabelKind::Cls) => {
                labels = labels.max(Some(scan.label(member.name, content)?));
            }
            Kind::Label(LabelKind::Json) => {
                // Where there are no classes, nobody reads it.
                let metadata = scan.json(member, content).ok();
                let label = metadata.and_then(|metadata| sidecar::label(&metadata)?.ok());
                labels = labels.max(label);
            }
            Kind::Label(LabelKind::Txt) => match scan.label(member.name, content) {
                Ok(label) => texts = texts.max(Some(label)),
                Err(_) => has_captions = true,
            },
            Kind::Image | Kind::OtherImage | Kind::Other => {}
        }
        Ok(())
    })?;
    Ok(labels.or(texts.filter(|_| !has_captions)))
}
