//! Counts what shards hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
};

use serde_json::Value;

use crate::{
    error::IngestError,
    index::Index,
    scan::{Kind, LabelKind, Scan, split_name},
    walk::{Section, Walk, extension},
};

/// Totals of the shards read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Images.
    pub n_samples: u64,
    /// Bytes of all images.
    pub image_bytes: u64,
    /// Bytes of the smallest image; 0 without images.
    pub smallest: u64,
    /// Bytes of the largest image.
    pub largest: u64,
    /// Images of each label.
    pub labels: BTreeMap<u32, u64>,
    /// Images without a label.
    pub n_unlabeled: u64,
    /// Images with metadata.
    pub n_metadata: u64,
    /// Images of each hashtag.
    pub hashtags: BTreeMap<String, u64>,
    /// Members that are no images and say nothing of one, by extension.
    pub left_out: BTreeMap<String, u64>,
}

impl Survey {
    pub(crate) fn add(
        &mut self,
        scan: &Scan<'_>,
        file: &File,
        index: &Index,
    ) -> Result<(), IngestError> {
        let keys: BTreeSet<&str> = index.iter().map(|place| place.name).collect();
        for place in index.iter() {
            self.smallest =
                if self.n_samples == 0 { place.size } else { self.smallest.min(place.size) };
            self.largest = self.largest.max(place.size);
            self.n_samples += 1;
            self.image_bytes += place.size;
            match place.label {
                Some(label) => *self.labels.entry(label).or_default() += 1,
                None => self.n_unlabeled += 1,
            }
        }
        let walk = Walk { shard: scan.shard, remedy: scan.remedy };
        walk.members(Section::whole(file, scan.shard)?, &mut |member, content| {
            match split_name(member.name) {
                (key, Kind::Image) if keys.contains(key) => {}
                (key, Kind::Label(LabelKind::Json)) if keys.contains(key) => {
                    self.n_metadata += 1;
                    let metadata = scan.json(member, content)?;
                    for hashtag in hashtags(&metadata) {
                        *self.hashtags.entry(hashtag.to_owned()).or_default() += 1;
                    }
                }
                (key, Kind::Label(_)) if keys.contains(key) => {}
                _ => {
                    let name = member.name.rsplit('/').next().unwrap_or(member.name);
                    let extension = extension(name).to_ascii_lowercase();
                    *self.left_out.entry(extension).or_default() += 1;
                }
            }
            Ok(())
        })
    }
}

/// The texts in `{"hashtags": ["cat", "#dog"]}`, without the sign.
fn hashtags(metadata: &Value) -> impl Iterator<Item = &str> {
    let texts = metadata.get("hashtags").and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(Value::as_str).map(|text| text.trim_start_matches('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageFormat, Manifest, ShardPlace, ShardSet, ShardWriter, Split};

    #[test]
    fn images_labels_and_hashtags_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(folder.path(), "train", 2).unwrap();
        let images = [
            ("a", 10, Some(1), Some("{\"hashtags\": [\"cat\", \"#dog\"]}")),
            ("b", 30, None, Some("{\"caption\": \"a cat\"}")),
            ("c", 20, Some(1), None),
            ("d", 40, Some(0), Some("{\"hashtags\": [\"cat\"]}")),
        ];
        for (key, n_bytes, label, metadata) in images {
            writer.push(key, ImageFormat::Jpeg, &vec![1; n_bytes], label).unwrap();
            if let Some(json) = metadata {
                writer.push_metadata(json.as_bytes()).unwrap();
            }
        }
        let mut manifest = Manifest {
            classes: ["a", "b"].map(str::to_owned).to_vec(),
            train: writer.finish().unwrap(),
            ..Manifest::default()
        };
        let place = ShardPlace::Folder(folder.path().to_owned());
        let set = ShardSet::lazy(place.clone(), &manifest, Split::Train).unwrap();
        let mut survey = Survey::default();
        for shard_idx in 0..set.entries().len() {
            set.survey(shard_idx, &mut survey).unwrap();
        }
        let expected = Survey {
            n_samples: 4,
            image_bytes: 100,
            smallest: 10,
            largest: 40,
            labels: [(0, 1), (1, 2)].into(),
            n_unlabeled: 1,
            n_metadata: 3,
            hashtags: [("cat".to_owned(), 2), ("dog".to_owned(), 1)].into(),
            left_out: BTreeMap::new(),
        };
        assert_eq!(survey, expected);
        let message = set.survey(2, &mut survey).unwrap_err().to_string();
        assert_eq!(message, "shard 2 was asked for, but the data set has 2");

        manifest.train[1].blake3 = "0".repeat(64);
        let set = ShardSet::lazy(place, &manifest, Split::Train).unwrap();
        let message = set.survey(1, &mut survey).unwrap_err().to_string();
        assert!(message.contains("train-000001.tar has the wrong checksum"), "{message}");
    }
}
