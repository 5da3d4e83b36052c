//! Images in a folder for each class, numbered as torchvision's `ImageFolder` numbers them.

use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
};

use crate::{
    digest::DataDigest,
    error::{IngestError, Remedy},
    index::{Index, Place},
    source::{EncodedSample, Payload, SampleKey, Source},
    store::{ByteRange, read_exact},
    walk::{MEMBER_BYTES_MAX, Promise, promise},
};

/// `class/name.JPEG`: classes sorted by name, and within a class the files by folder and name.
///
/// Files that are no images are passed over, as torchvision does. Hidden folders and those of systems, such
/// as `.ipynb_checkpoints`, `@eaDir` and `lost+found`, are no classes, unlike there. Images of a format that is not decoded
/// here are an error, because leaving them out would number the others differently.
#[derive(Debug)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    index: Index,
}

impl ImageFolder {
    /// Lists the files below `root`; their bytes are not looked at.
    ///
    /// # Errors
    /// If a folder cannot be listed, there are no classes, or a class has no images.
    pub fn open(root: &Path) -> Result<Self, IngestError> {
        let mut classes: Vec<String> = Vec::new();
        for (name, path) in entries(root)? {
            if !is_of_system(&name) && inspect(&path)?.is_dir() {
                classes.push(name);
            }
        }
        classes.sort_unstable();
        let unfit = |path: PathBuf, problem| Err(IngestError::FolderUnfit { path, problem });
        if classes.is_empty() {
            return unfit(root.to_owned(), "has no folders of classes");
        }
        let mut index = Index::default();
        for (label, class) in (0_u32..).zip(&classes) {
            let mut files = Vec::new();
            list(&root.join(class), class, &mut files)?;
            if files.is_empty() {
                return unfit(root.join(class), "has no images");
            }
            files.sort_unstable();
            for (folder, file, size) in files {
                let name = format!("{folder}/{file}");
                let place = Place { name: &name, offset: 0, size, label: Some(label) };
                let full = || IngestError::IndexTooLarge { path: root.to_owned() };
                index.push(place).ok_or_else(full)?;
            }
        }
        Ok(Self { root: root.to_owned(), classes, index })
    }

    /// Names of the classes, in the order of the labels.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }
}

impl Source for ImageFolder {
    fn len(&self) -> u64 {
        self.index.len() as u64
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let name = self.index.find(sample_index)?.name.to_owned();
        let path = self.root.join(&name);
        let file = open_image(&path)?;
        let got = file.metadata().map_err(IngestError::io("inspect", &path))?.len();
        if got == 0 || got > MEMBER_BYTES_MAX {
            return Err(IngestError::ImageSize { path, got, limit: MEMBER_BYTES_MAX });
        }
        let all = ByteRange { offset: 0, n_bytes: got };
        let image = read_exact(&file, &path, all, Remedy::Download)?;
        let key = SampleKey { shard: self.root.display().to_string(), name };
        Ok(EncodedSample { key, sample_index, payload: Payload::Encoded(image) })
    }

    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        Ok(self.index.find(sample_index)?.label)
    }

    fn digest(&self) -> Option<DataDigest> {
        Some(DataDigest::of_images(self.index.iter().map(|image| (image.name, image.size))))
    }

    fn n_classes(&self) -> Option<u32> {
        u32::try_from(self.classes.len()).ok()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }
}

/// Opens an image that was listed. What is no regular file by now is not opened: a pipe would wait for
/// somebody to write to it.
fn open_image(path: &Path) -> Result<File, IngestError> {
    let unusable = |problem: String| IngestError::ImageFile { path: path.to_owned(), problem };
    let file = match fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(unusable("it is no regular file".to_owned())),
        Ok(_) => File::open(path),
        Err(error) => Err(error),
    };
    file.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => unusable(source.to_string()),
        _ => IngestError::io("open", path)(source),
    })
}

/// Folder, name and size of each image below `path`, which is called `folder`.
fn list(
    path: &Path,
    folder: &str,
    files: &mut Vec<(String, String, u64)>,
) -> Result<(), IngestError> {
    for (name, path) in entries(path)? {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let found = inspect(&path)?;
        match promise(extension) {
            _ if is_of_system(&name) && found.is_dir() => {}
            _ if found.is_dir() => list(&path, &format!("{folder}/{name}"), files)?,
            // A file that is too large for the index is too large to be read, which says so.
            Promise::Image => {
                files.push((folder.to_owned(), name, found.len().min(u64::from(u32::MAX))));
            }
            Promise::OtherImage => return Err(IngestError::ImageExtension { path }),
            Promise::Nothing => {}
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, IngestError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
        let entry = entry.map_err(IngestError::io("list", folder))?;
        let path = entry.path();
        match entry.file_name().into_string() {
            Ok(name) => found.push((name, path)),
            Err(_) => {
                let problem = "has a name that is not UTF-8";
                return Err(IngestError::FolderUnfit { path, problem });
            }
        }
    }
    Ok(found)
}

/// Whether a folder of this name holds what a system or a program keeps beside images: hidden folders, and
/// those of file servers, archives, trash and file systems.
fn is_of_system(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "@Recently-Snapshot",
        "@Recycle",
        "@eaDir",
        "System Volume Information",
        "__MACOSX",
        "lost+found",
    ];
    name.starts_with('.') || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Follows links, as torchvision does.
fn inspect(path: &Path) -> Result<Metadata, IngestError> {
    fs::metadata(path).map_err(IngestError::io("inspect", path))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file.as_bytes()).unwrap();
        }
        folder
    }

    /// What `torchvision.datasets.ImageFolder` of torchvision 0.29.2 gives for these files.
    #[test]
    fn samples_are_numbered_as_torchvision_numbers_them() {
        let files = [
            "b/2.JPEG",
            "b/10.png",
            "b/a/1.jpg",
            "b/a-x/1.jpg",
            "b/A.jpeg",
            "a/z.JPG",
            "a/note.txt",
            "C/1.jpg",
            "top.jpg",
        ];
        let expected = [
            ("C/1.jpg", 0),
            ("a/z.JPG", 1),
            ("b/10.png", 2),
            ("b/2.JPEG", 2),
            ("b/A.jpeg", 2),
            ("b/a/1.jpg", 2),
            ("b/a-x/1.jpg", 2),
        ];
        let folder = folder(&files);
        let set = ImageFolder::open(folder.path()).unwrap();
        assert_eq!(
            (set.classes(), set.n_classes()),
            (&["C", "a", "b"].map(str::to_owned)[..], Some(3))
        );
        assert_eq!(set.len(), 7);
        for (sample_index, (name, label)) in (0..).zip(expected) {
            let sample = set.read(sample_index).unwrap();
            assert_eq!(sample.key.name, name);
            assert_eq!(sample.payload, Payload::Encoded(name.as_bytes().to_vec()));
            assert_eq!(set.label(sample_index).unwrap(), Some(label));
        }
        let message = set.read(7).unwrap_err().to_string();
        assert_eq!(message, "sample 7 was asked for, but the data set has 7");
    }

    #[test]
    fn hidden_and_system_folders_are_no_classes() {
        let set = |files: &[&str]| ImageFolder::open(folder(files).path()).unwrap();
        let plain = set(&["a/1.jpg", "b/2.jpg", "b/deep/3.jpg"]);
        for of_system in [
            ".ipynb_checkpoints",
            ".git",
            "@eaDir",
            "lost+found",
            "__MACOSX",
            "$RECYCLE.BIN",
            "System Volume Information",
            "#recycle",
        ] {
            // At the top with and without images, and within a class.
            let [top, deep] = ["1.jpg", "b/1.jpg"].map(|rest| format!("{of_system}/{rest}"));
            let [empty, inner] =
                [format!("{of_system}/x.txt"), format!("b/{of_system}/4-checkpoint.jpg")];
            let set = set(&["a/1.jpg", "b/2.jpg", "b/deep/3.jpg", &top, &deep, &empty, &inner]);
            assert_eq!(set.classes(), ["a", "b"], "{of_system}");
            assert_eq!(set.index, plain.index, "{of_system}");
        }
        assert_eq!(set(&["@home/1.jpg", "lost/1.jpg"]).classes(), ["@home", "lost"]);
    }

    #[test]
    fn what_is_no_folder_of_images_is_named() {
        let expected = "expected class/name.JPEG with a folder for each class";
        let no_classes = format!(" has no folders of classes; {expected}");
        let cases: [(&[&str], &str); 4] = [
            (&[], &no_classes),
            (&["1.jpg"], &no_classes),
            (
                &["a/1.jpg", "b/note.txt"],
                "/b has no images; expected class/name.JPEG with a folder for each class",
            ),
            (
                &["a/1.jpg", "a/2.BMP"],
                "/a/2.BMP is refused: images end in .jpg, .jpeg or .png; convert or remove it",
            ),
        ];
        for (files, expected) in cases {
            let folder = folder(files);
            let message = ImageFolder::open(folder.path()).unwrap_err().to_string();
            assert_eq!(message, format!("{}{expected}", folder.path().display()));
        }
        let message = ImageFolder::open(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(message, "cannot list /nowhere");
    }

    #[test]
    fn an_image_without_bytes_is_the_fault_of_one_sample() {
        let folder = folder(&["a/1.jpg", "a/2.jpg"]);
        let path = folder.path().join("a/1.jpg");
        fs::write(&path, b"").unwrap();
        let set = ImageFolder::open(folder.path()).unwrap();
        let error = set.read(0).unwrap_err();
        let expected = format!(
            "{} is no image that can be read: it has 0 bytes, expected 1 to 67108864; remove it",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(error.is_of_one_sample() && set.read(1).is_ok());
        File::options().write(true).open(&path).unwrap().set_len(MEMBER_BYTES_MAX + 1).unwrap();
        assert!(set.read(0).unwrap_err().to_string().contains("it has 67108865 bytes"));
        fs::remove_file(&path).unwrap();
        let error = set.read(0).unwrap_err();
        let reason = "No such file or directory (os error 2)";
        let expected = format!(
            "{} is no image that can be read: {reason}; repair or remove it",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        let (path, reason) = (path.display().to_string(), reason.to_owned());
        let expected = crate::BadSample { sample_index: 5, path, reason };
        assert_eq!(error.bad_sample(5), Some(expected));
    }
}
