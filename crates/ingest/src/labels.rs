//! Labels of test images by the names of their classes.

use std::{path::Path, sync::Arc};

use crate::{
    digest::DataDigest,
    error::IngestError,
    source::{EncodedSample, Source},
};

/// A source with other numbers for its classes.
struct Relabeled {
    source: Arc<dyn Source>,
    /// The new number of each class.
    labels: Vec<u32>,
    /// Names of the classes by their new numbers.
    names: Vec<String>,
}

/// `test` with the labels that `train` gives to classes of the same names; `place` is where the test images
/// are, for the error. Classes that only `train` has are fine. Where classes have no names, both
/// sources have one numbering, and `test` is given back as it is.
///
/// # Errors
/// If `test` has classes that `train` lacks.
pub fn with_labels_of(
    train: &dyn Source,
    test: Arc<dyn Source>,
    place: &Path,
) -> Result<Arc<dyn Source>, IngestError> {
    let (known, names) = (train.class_names(), test.class_names());
    if known == names || known.is_empty() || names.is_empty() {
        return Ok(test);
    }
    let label_of = |name: &String| {
        let place = known.iter().position(|known| known == name);
        place.and_then(|label| u32::try_from(label).ok())
    };
    let labels: Vec<Option<u32>> = names.iter().map(label_of).collect();
    let pairs = names.iter().zip(&labels);
    let unknown: Vec<String> =
        pairs.filter(|(_, label)| label.is_none()).map(|(name, _)| name.clone()).collect();
    if !unknown.is_empty() {
        let (path, known) = (place.to_owned(), known.to_vec());
        return Err(IngestError::UnknownClasses { path, unknown, known });
    }
    let (labels, names) = (labels.into_iter().flatten().collect(), known.to_vec());
    Ok(Arc::new(Relabeled { source: test, labels, names }))
}

impl Source for Relabeled {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        self.source.read(sample_index)
    }

    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        let label = self.source.label(sample_index)?;
        Ok(label.and_then(|label| self.labels.get(label as usize).copied()))
    }

    fn digest(&self) -> Option<DataDigest> {
        self.source.digest()
    }

    fn n_classes(&self) -> Option<u32> {
        u32::try_from(self.names.len()).ok()
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn left_out(&self) -> Option<String> {
        self.source.left_out()
    }

    fn shard_sizes(&self) -> Vec<u64> {
        self.source.shard_sizes()
    }

    fn max_window_shards(&self) -> usize {
        self.source.max_window_shards()
    }

    fn will_read(&self, sample_index: u64) -> Result<(), IngestError> {
        self.source.will_read(sample_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageFolder, Layout, OnBadSample};

    fn folder(classes: &[&str]) -> (tempfile::TempDir, Arc<dyn Source>) {
        let folder = tempfile::tempdir().unwrap();
        for class in classes {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            for image in ["1.jpg", "2.jpg"] {
                std::fs::write(folder.path().join(class).join(image), class).unwrap();
            }
        }
        let source =
            Arc::new(ImageFolder::open(folder.path(), Layout::Classes, OnBadSample::Fail).unwrap());
        (folder, source)
    }

    fn matched(train: &[&str], test: &[&str]) -> Result<Arc<dyn Source>, IngestError> {
        let ((_train, train), (_test, test)) = (folder(train), folder(test));
        with_labels_of(train.as_ref(), test, Path::new("photos/test"))
    }

    #[test]
    fn a_class_has_the_label_of_its_name() {
        for (train, test, expected) in [
            (&["a", "b", "c"][..], &["a", "b", "c"][..], &[0, 0, 1, 1, 2, 2][..]),
            (&["a", "b", "c", "d"], &["b", "d"], &[1, 1, 3, 3]),
            (&["a", "b", "c"], &["c"], &[2, 2]),
        ] {
            let source = matched(train, test).unwrap();
            let labels: Vec<u32> =
                (0..source.len()).map(|i| source.label(i).unwrap().unwrap()).collect();
            assert_eq!(labels, expected);
            assert_eq!(source.n_classes(), Some(train.len() as u32));
            assert_eq!(source.class_names(), train);
        }
        let ((_train, train), (folder, _)) = (folder(&["a", "b"]), folder(&["b"]));
        std::fs::write(folder.path().join("b/note.txt"), "").unwrap();
        let test =
            Arc::new(ImageFolder::open(folder.path(), Layout::Classes, OnBadSample::Fail).unwrap());
        let source = with_labels_of(train.as_ref(), test, Path::new("test")).unwrap();
        assert_eq!(source.left_out().as_deref(), Some("1 × other file (b/note.txt)"));
        let source = matched(&["a", "b"], &["b"]).unwrap();
        assert_eq!((source.shard_sizes(), source.max_window_shards()), (vec![2], usize::MAX));
        assert!(source.will_read(1).is_ok() && source.will_read(2).is_err());
    }

    #[test]
    fn classes_that_training_lacks_are_listed() {
        let message = matched(&["a", "b"], &["a", "aa\u{1b}[31m", "c"]).err().unwrap().to_string();
        assert_eq!(
            message,
            "the test images in photos/test have 2 classes that the training images lack: \
             \"aa\\u{1b}[31m\", \"c\"; the training images have 2: \"a\", \"b\"; classes are matched by \
             name: remove or rename those folders, or add training images of these classes"
        );
        let many: Vec<String> = (100..130).map(|class| class.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let message = matched(&["a"], &many).err().unwrap().to_string();
        assert!(message.contains("lack: \"100\", \"101\""), "{message}");
        assert!(message.contains("\"119\" and 10 more; the training images have 1: "), "{message}");
    }
}
