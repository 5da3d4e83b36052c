//! Images in folders, numbered as torchvision's `ImageFolder` numbers them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    bad_samples::OnBadSample,
    digest::DataDigest,
    error::{IngestError, Remedy},
    index::{Index, Place},
    listing::{LeftOut, Listed, folder_id, list, list_all},
    source::{EncodedSample, Payload, SampleKey, Source},
    store::{ByteRange, read_exact},
    walk::MEMBER_BYTES_MAX,
};

/// What the folders below the root mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Those of the first level are classes; a folder without folders has images without classes.
    Classes,
    /// Nothing: all images at any depth, without classes.
    Unlabeled,
}

/// `class/name.JPEG`: classes sorted by name, and within a class the files by folder and name; or images
/// without classes.
///
/// Files that are no images are left out, as torchvision does, and so is what is hidden or kept by a system,
/// unlike there. Images that cannot be used are left out too where the policy has room for them.
#[derive(Debug)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    index: Index,
    left_out: LeftOut,
}

impl ImageFolder {
    /// Lists the files below `root`; their bytes are not looked at.
    ///
    /// # Errors
    /// If a folder cannot be listed, there are no images, a class has none, or there are more images that
    /// look unusable than the policy allows: formats that are not decoded, links to nothing, pipes, names
    /// that are not UTF-8. The message counts all of them.
    pub fn open(
        root: &Path,
        layout: Layout,
        on_bad_sample: OnBadSample,
    ) -> Result<Self, IngestError> {
        let mut left_out = LeftOut::default();
        let mut above = vec![folder_id(root)?];
        let mut images: Vec<(Option<u32>, Vec<Listed>)> = Vec::new();
        let mut classes = Vec::new();
        let contents = match layout {
            Layout::Unlabeled => None,
            Layout::Classes => Some(list(root, "", &mut left_out)?),
        };
        match contents {
            Some(contents) if !contents.folders.is_empty() => {
                contents.images.iter().for_each(|image| left_out.add_image_in_no_class(image));
                for (label, (class, id)) in (0_u32..).zip(contents.folders) {
                    above.push(id);
                    let path = root.join(&class);
                    images.push((Some(label), list_all(&path, &class, &mut above, &mut left_out)?));
                    above.pop();
                    classes.push(class);
                }
            }
            Some(contents) => images.push((None, contents.images)),
            None => images.push((None, list_all(root, "", &mut above, &mut left_out)?)),
        }
        refuse_unusable(root, &left_out, on_bad_sample)?;
        let is_empty = |(_, images): &(Option<u32>, Vec<Listed>)| images.is_empty();
        if images.iter().all(is_empty) {
            return Err(IngestError::FolderEmpty {
                path: root.to_owned(),
                left_out: left_out.to_string(),
            });
        }
        let empty = classes.iter().zip(&images).filter(|(_, images)| is_empty(images));
        let empty: Vec<String> = empty.map(|(class, _)| class.clone()).collect();
        if !empty.is_empty() {
            return Err(IngestError::ClassesEmpty { path: root.to_owned(), classes: empty });
        }
        let mut index = Index::default();
        for (label, images) in &images {
            for image in images {
                let Listed { size, .. } = *image;
                let place = Place { name: &image.path(), offset: 0, size, label: *label };
                let full = || IngestError::IndexTooLarge { path: root.to_owned() };
                index.push(place).ok_or_else(full)?;
            }
        }
        Ok(Self { root: root.to_owned(), classes, index, left_out })
    }

    /// How many files look like images, cannot be used and were left out.
    #[must_use]
    pub fn n_unusable(&self) -> u64 {
        self.left_out.n_unusable()
    }

    /// The path of an image below the root.
    ///
    /// # Errors
    /// If the index is out of range.
    pub fn name(&self, sample_index: u64) -> Result<&str, IngestError> {
        Ok(self.index.find(sample_index)?.name)
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
        let image = read_exact(&file, &path, all, Remedy::Remake)?;
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
        u32::try_from(self.classes.len()).ok().filter(|n| *n > 0)
    }

    fn left_out(&self) -> Option<String> {
        (!self.left_out.is_empty()).then(|| self.left_out.to_string())
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

/// Refuses a folder that holds more images that cannot be used than may be left out.
fn refuse_unusable(
    root: &Path,
    left_out: &LeftOut,
    on_bad_sample: OnBadSample,
) -> Result<(), IngestError> {
    let n = left_out.n_unusable();
    if n <= on_bad_sample.budget() {
        return Ok(());
    }
    let (path, table) = (root.to_owned(), left_out.unusable_table());
    Err(IngestError::FolderUnusable { path, n, table })
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
        let set = open(folder.path(), Layout::Classes, 0).unwrap();
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

    fn open(root: &Path, layout: Layout, budget: u64) -> Result<ImageFolder, IngestError> {
        let policy = match budget {
            0 => OnBadSample::Fail,
            budget => OnBadSample::Skip { budget },
        };
        ImageFolder::open(root, layout, policy)
    }

    fn names(set: &ImageFolder) -> Vec<&str> {
        (0..set.len()).map(|i| set.name(i).unwrap()).collect()
    }

    #[test]
    fn hidden_and_system_folders_are_no_classes() {
        let set = |files: &[&str]| open(folder(files).path(), Layout::Classes, 0).unwrap();
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
        let none = |besides: &str| {
            format!(
                "ROOT holds no images{besides}; expected files that end in .jpg, .png, .webp, .bmp, .tif or .gif, in a \
                 folder for each class or, with data.source = \"unlabeled_folder\", anywhere"
            )
        };
        let empty = |classes: &str| {
            format!(
                "ROOT has no image in {classes}; remove the empty folders, or take all images without classes by \
                 data.source = \"unlabeled_folder\""
            )
        };
        let table = "\n      2  .heic (a/2.HEIC, b/3.heic)\n      1  .ppm (b/4.ppm)";
        let unusable = format!(
            "ROOT holds 3 images that cannot be used:{table}\n  convert or remove them, or leave them out by \
             data.on_bad_sample = \"skip\" and data.bad_sample_budget = 100 or more (`shard make`: --skip-bad 3); \
             `cargo xtask doctor ROOT` says what else the folder holds, and which images are broken"
        );
        let cases: [(&[&str], String); 5] = [
            (&[], none("")),
            (
                &["note.txt", "a/.x.jpg"],
                none(" (1 × hidden or system file (a/.x.jpg), 1 × other file (note.txt))"),
            ),
            (&["a/1.jpg", "b/note.txt"], empty("\"b\"")),
            (&["a/x", "b/1.jpg", "c/x"], empty("\"a\", \"c\"")),
            (&["a/1.jpg", "a/2.HEIC", "b/3.heic", "b/4.ppm"], unusable),
        ];
        for (files, expected) in cases {
            let folder = folder(files);
            let message = open(folder.path(), Layout::Classes, 0).unwrap_err().to_string();
            assert_eq!(message.replace(&folder.path().display().to_string(), "ROOT"), expected);
        }
        let message = open(Path::new("/nowhere"), Layout::Classes, 0).unwrap_err().to_string();
        assert_eq!(message, "cannot list /nowhere");
    }

    #[test]
    fn images_without_classes_are_taken_from_a_flat_folder_or_from_any_depth() {
        let flat = folder(&["b.jpg", "a.webp", "note.txt"]);
        let set = open(flat.path(), Layout::Classes, 0).unwrap();
        assert_eq!((names(&set), set.n_classes()), (vec!["a.webp", "b.jpg"], None));
        assert_eq!([set.label(0).unwrap(), set.label(1).unwrap()], [None; 2]);

        let deep = folder(&["z.jpg", "2024/may/1.jpg", "2024/2.gif", "empty/note.txt"]);
        let set = open(deep.path(), Layout::Unlabeled, 0).unwrap();
        assert_eq!(names(&set), ["z.jpg", "2024/2.gif", "2024/may/1.jpg"]);
        assert_eq!((set.classes().len(), set.label(2).unwrap()), (0, None));
        fs::remove_dir_all(deep.path().join("empty")).unwrap();
        let set = open(deep.path(), Layout::Classes, 0).unwrap();
        assert_eq!(
            (names(&set), set.classes()),
            (vec!["2024/2.gif", "2024/may/1.jpg"], &["2024".to_owned()][..])
        );
        assert_eq!(set.left_out().as_deref(), Some("1 × image in no class (z.jpg)"));
    }

    /// Everything that folders of people hold besides images. A pipe must not be opened.
    #[test]
    fn one_rule_counts_all_that_is_no_image() {
        use std::os::unix::{ffi::OsStrExt as _, fs::symlink};
        let folder = folder(&[
            "a/1.jpg",
            "a/2.JFIF",
            "a/3.jpe",
            "a/4.tiff",
            "a/x.jpg/5.bmp",
            "a/._1.jpg",
            "a/.DS_Store",
            "a/Thumbs.db",
            "a/DESKTOP.INI",
            "a/noext",
            "a/note.txt",
            ".ipynb_checkpoints/1.jpg",
            "@eaDir/1.jpg",
            "lost+found/1.jpg",
        ]);
        let at = |name: &str| folder.path().join(name);
        symlink("u@host.123:456", at("a/.#note.txt")).unwrap();
        symlink("/nonexistent/x.jpg", at("a/annex.jpg")).unwrap();
        symlink("loop.png", at("a/loop.png")).unwrap();
        symlink("/nonexistent/x.txt", at("a/gone.txt")).unwrap();
        symlink(".", at("a/self")).unwrap();
        symlink("..", at("a/up")).unwrap();
        symlink("../a/1.jpg", at("a/link.jpg")).unwrap();
        let name = |bytes| std::ffi::OsStr::from_bytes(bytes).to_owned();
        fs::write(at("a").join(name(b"gr\xf6\xdfe.jpg")), "x").unwrap();
        fs::write(at("a").join(name(b"gr\xf6\xdfe.txt")), "x").unwrap();
        fs::create_dir(folder.path().join(name(b"\xf6"))).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("a/pipe.jpg")).status().unwrap();
        assert!(made.success());

        let message = open(folder.path(), Layout::Classes, 0).unwrap_err().to_string();
        let expected = "holds 5 images that cannot be used:\n      2  link to nothing (a/annex.jpg, a/loop.png)\n      1  \
                        pipe, socket or device (a/pipe.jpg)\n      2  name that is not UTF-8 (\u{fffd}, \
                        a/gr\u{fffd}\u{fffd}e.jpg)\n";
        assert!(message.contains(expected), "{message}");
        open(folder.path(), Layout::Classes, 4).unwrap_err();
        let set = open(folder.path(), Layout::Classes, 5).unwrap();
        let expected =
            ["a/1.jpg", "a/2.JFIF", "a/3.jpe", "a/4.tiff", "a/link.jpg", "a/x.jpg/5.bmp"];
        assert_eq!((names(&set), set.classes()), (expected.to_vec(), &["a".to_owned()][..]));
        assert_eq!(
            set.left_out().unwrap().replace(", …", "").split(" (").next(),
            Some("2 × link to nothing")
        );
        let left_out = set.left_out().unwrap();
        for part in [
            "1 × pipe, socket or device (a/pipe.jpg)",
            "8 × hidden or system file (",
            "2 × link back (a/self, a/up)",
            "4 × other file (",
        ] {
            assert!(left_out.contains(part), "{part}: {left_out}");
        }
        // A file that became a pipe after it was listed is no more opened.
        fs::rename(at("a/pipe.jpg"), at("a/1.jpg")).unwrap();
        let error = set.read(0).unwrap_err();
        assert_eq!(error.bad_sample(0).unwrap().reason, "it is no regular file");
    }

    #[test]
    fn an_image_without_bytes_is_the_fault_of_one_sample() {
        let folder = folder(&["a/1.jpg", "a/2.jpg"]);
        let path = folder.path().join("a/1.jpg");
        fs::write(&path, b"").unwrap();
        let set = open(folder.path(), Layout::Classes, 0).unwrap();
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
