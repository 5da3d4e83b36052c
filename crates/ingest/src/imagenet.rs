//! The archives of ImageNet as they are distributed, read in place.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::{
    devkit::Devkit,
    digest::DataDigest,
    error::{IngestError, Remedy},
    index::{Index, Place, Stamp},
    source::{EncodedSample, Payload, SampleKey, Source},
    store::{ByteRange, read_exact},
    walk::{Promise, Section, Walk, promise},
    writer::IndexFiles,
};

const HINT_TRAIN: &str = "give ILSVRC2012_img_train.tar, a tar of one n*.tar for each class";
const HINT_VALIDATION: &str = "give ILSVRC2012_img_val.tar with the devkit it belongs to";

/// ImageNet without unpacking: a tar of class tars, or the tar of the validation images.
///
/// Samples have the numbers that [`crate::ImageFolder`] gives them once they are unpacked.
#[derive(Debug)]
pub struct ImageNet {
    archive: PathBuf,
    file: File,
    classes: Vec<String>,
    index: Index,
}

/// Called with the bytes read so far and the total.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl ImageNet {
    /// Opens the training archive. Its headers are read once, which an index file beside it saves
    /// the next time.
    ///
    /// # Errors
    /// If the archive is missing, truncated or another one.
    pub fn train(
        archive: &Path,
        index_files: IndexFiles,
        progress: Progress<'_>,
    ) -> Result<Self, IngestError> {
        let file = File::open(archive).map_err(IngestError::io("open", archive))?;
        let walk = Walk { shard: archive, remedy: Remedy::Download };
        let parts = class_tars(walk, &file)?;
        let classes = parts.iter().map(|(class, ..)| class.clone()).collect();
        let total = parts.iter().map(|(_, _, n_bytes)| n_bytes).sum();
        let scan = || {
            let (mut index, mut done) = (Index::default(), 0);
            for (label, (class, offset, n_bytes)) in (0_u32..).zip(&parts) {
                let images = images(walk, Section::part(&file, *offset, *n_bytes))?;
                if images.is_empty() {
                    return Err(unfit(
                        archive,
                        format!("has no images in {class}.tar"),
                        HINT_TRAIN,
                    ));
                }
                push_all(&mut index, archive, images.iter().map(|image| (image, label)))?;
                done += n_bytes;
                progress(done, total);
            }
            Ok(index)
        };
        let stamp = stamp(&file, archive, &[])?;
        let index = indexed(archive, index_files, &stamp, scan)?;
        Ok(Self { archive: archive.to_owned(), file, classes, index })
    }

    /// Opens the archive of the validation images; `devkit` is `ILSVRC2012_devkit_t12.tar.gz`.
    ///
    /// # Errors
    /// If a file is missing, truncated or another one.
    pub fn validation(
        archive: &Path,
        devkit: &Path,
        index_files: IndexFiles,
    ) -> Result<Self, IngestError> {
        let Devkit { classes, labels } = Devkit::open(devkit)?;
        let file = File::open(archive).map_err(IngestError::io("open", archive))?;
        let scan = || {
            let walk = Walk { shard: archive, remedy: Remedy::Download };
            let images = images(walk, Section::whole(&file, archive)?)?;
            if images.len() != labels.len() {
                let (got, expected) = (images.len(), labels.len());
                let problem = format!("has {got} images, but the devkit has labels for {expected}");
                return Err(unfit(archive, problem, HINT_VALIDATION));
            }
            // By class and then by name, as in folders.
            let mut numbered: Vec<_> = images.iter().zip(labels.iter().copied()).collect();
            numbered.sort_by_key(|(_, label)| *label);
            let mut index = Index::default();
            push_all(&mut index, archive, numbered.into_iter())?;
            Ok(index)
        };
        let label_bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let stamp = stamp(&file, archive, &label_bytes)?;
        let index = indexed(archive, index_files, &stamp, scan)?;
        Ok(Self { archive: archive.to_owned(), file, classes, index })
    }

    /// WordNet ids of the classes, in the order of the labels.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }
}

impl Source for ImageNet {
    fn len(&self) -> u64 {
        self.index.len() as u64
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let Place { name, offset, size, .. } = self.index.find(sample_index)?;
        if size == 0 {
            let (shard, key) = (self.archive.clone(), name.to_owned());
            return Err(IngestError::ImageEmpty { shard, key, offset });
        }
        let range = ByteRange { offset, n_bytes: size };
        let image = read_exact(&self.file, &self.archive, range, Remedy::Download)?;
        let archive = self.archive.file_name().unwrap_or(self.archive.as_os_str());
        let shard = archive.to_string_lossy().into_owned();
        let key = SampleKey { shard, name: name.to_owned() };
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

/// Name, offset and length of each member that matters, sorted by name.
type Parts = Vec<(String, u64, u64)>;

fn class_tars(walk: Walk<'_>, file: &File) -> Result<Parts, IngestError> {
    let mut parts = Parts::new();
    walk.members(Section::whole(file, walk.shard)?, &mut |member, _| {
        let Some(class) = member.name.strip_suffix(".tar").filter(|class| !class.contains('/'))
        else {
            let problem = format!("holds {:?}, which is no tar of a class", member.name);
            return Err(unfit(walk.shard, problem, HINT_TRAIN));
        };
        parts.push((class.to_owned(), member.offset, member.size));
        Ok(())
    })?;
    if parts.is_empty() {
        return Err(unfit(walk.shard, "is empty".to_owned(), HINT_TRAIN));
    }
    sorted(walk, parts)
}

fn images(walk: Walk<'_>, section: Section<'_>) -> Result<Parts, IngestError> {
    let mut parts = Parts::new();
    walk.members(section, &mut |member, _| {
        let extension = member.name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match promise(extension) {
            Promise::Image => {
                walk.check_size(member)?;
                parts.push((member.name.to_owned(), member.offset, member.size));
                Ok(())
            }
            Promise::OtherImage => {
                Err(walk.refused(member.name, "images end in .jpg, .jpeg or .png"))
            }
            Promise::Nothing => Ok(()),
        }
    })?;
    sorted(walk, parts)
}

fn sorted(walk: Walk<'_>, mut parts: Parts) -> Result<Parts, IngestError> {
    parts.sort_unstable();
    match parts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            let (shard, key) = (walk.path(), pair[0].0.clone());
            Err(IngestError::DuplicateKey { shard, key, what: "member" })
        }
        None => Ok(parts),
    }
}

/// The names go in without their extensions, which saves some megabytes.
fn push_all<'a>(
    index: &mut Index,
    archive: &Path,
    images: impl Iterator<Item = (&'a (String, u64, u64), u32)>,
) -> Result<(), IngestError> {
    for ((name, offset, size), label) in images {
        let name = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        let place = Place { name, offset: *offset, size: *size, label: Some(label) };
        let full = || IngestError::IndexTooLarge { path: archive.to_owned() };
        index.push(place).ok_or_else(full)?;
    }
    Ok(())
}

/// The index from its file, or by a scan; an index of another state of the archive is made again.
fn indexed(
    archive: &Path,
    index_files: IndexFiles,
    stamp: &Stamp,
    scan: impl FnOnce() -> Result<Index, IngestError>,
) -> Result<Index, IngestError> {
    if index_files == IndexFiles::Absent {
        return scan();
    }
    let mut name = archive.as_os_str().to_owned();
    name.push(".idx");
    let path = PathBuf::from(name);
    match Index::load(&path, stamp) {
        Ok(Some(index)) => return Ok(index),
        Ok(None) | Err(IngestError::IndexUnfit { .. }) => {}
        Err(error) => return Err(error),
    }
    let index = scan()?;
    match index.save(&path, stamp) {
        // Archives are often shared by people who may only read them.
        Err(IngestError::Io { source, .. }) if is_read_only(&source) => Ok(index),
        saved => saved.map(|()| index),
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Hashing 138 GB would take as long as reading them, so length and time of change stand for the bytes.
fn stamp(file: &File, archive: &Path, labels: &[u8]) -> Result<Stamp, IngestError> {
    let metadata = file.metadata().map_err(IngestError::io("inspect", archive))?;
    let modified = metadata.modified().map_err(IngestError::io("inspect", archive))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&metadata.len().to_le_bytes());
    hasher.update(&since.as_nanos().to_le_bytes());
    hasher.update(labels);
    Ok(*hasher.finalize().as_bytes())
}

fn unfit(archive: &Path, problem: String, hint: &'static str) -> IngestError {
    IngestError::ArchiveUnfit { path: archive.to_owned(), problem, hint }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{OnBadSample, devkit, folder::ImageFolder, folder::Layout};

    fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Two classes, neither they nor their images in order; every image names itself.
    fn train_members() -> Vec<(String, Vec<u8>)> {
        let class = |class: &str, numbers: &[u32]| {
            let image = |number: &u32| {
                let name = format!("{class}_{number}.JPEG");
                (name.clone(), name.repeat(40).into_bytes())
            };
            (format!("{class}.tar"), tar_of(&numbers.iter().map(image).collect::<Vec<_>>()))
        };
        vec![class("n02119789", &[7, 10, 2]), class("n02100735", &[5, 33])]
    }

    fn written(members: &[(String, Vec<u8>)]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("t.tar");
        fs::write(&archive, tar_of(members)).unwrap();
        (folder, archive)
    }

    fn contents(source: &dyn Source) -> Vec<(Payload, Option<u32>)> {
        (0..source.len())
            .map(|i| (source.read(i).unwrap().payload, source.label(i).unwrap()))
            .collect()
    }

    fn train(
        archive: &Path,
        index_files: IndexFiles,
    ) -> (Result<ImageNet, IngestError>, Vec<(u64, u64)>) {
        let mut steps = Vec::new();
        let opened =
            ImageNet::train(archive, index_files, &mut |done, total| steps.push((done, total)));
        (opened, steps)
    }

    #[test]
    fn the_training_archive_equals_its_unpacked_folders() {
        let (folder, archive) = written(&train_members());
        let unpacked = folder.path().join("unpacked");
        for (class, bytes) in train_members() {
            let into = unpacked.join(class.strip_suffix(".tar").unwrap());
            tar::Archive::new(bytes.as_slice()).unpack(into).unwrap();
        }
        let expected = ImageFolder::open(&unpacked, Layout::Classes, OnBadSample::Fail).unwrap();
        for (index_files, n_scans) in
            [(IndexFiles::Absent, 1), (IndexFiles::Beside, 1), (IndexFiles::Beside, 0)]
        {
            let (opened, steps) = train(&archive, index_files);
            let set = opened.unwrap();
            assert_eq!(set.classes(), expected.classes());
            assert_eq!(contents(&set), contents(&expected));
            assert_eq!((set.len(), set.n_classes()), (5, Some(2)));
            assert_eq!(set.read(2).unwrap().key.to_string(), "t.tar/n02119789_10");
            assert_eq!(steps.len(), 2 * n_scans);
            assert!(steps.last().is_none_or(|(done, total)| done == total));
        }
        // Another state of the archive is scanned again.
        let later = tar_of(&train_members()[..1]);
        fs::write(&archive, later).unwrap();
        assert_eq!(train(&archive, IndexFiles::Beside).0.unwrap().len(), 3);
    }

    #[test]
    fn validation_images_are_labeled_by_the_devkit() {
        let image =
            |i: u32| (format!("ILSVRC2012_val_{i:08}.JPEG"), vec![u8::try_from(i).unwrap(); 9]);
        let (folder, archive) = written(&[3, 1, 2].map(image));
        let kit = folder.path().join("kit.tar.gz");
        let write = |truth: &[u8]| {
            devkit::tests::write(
                &kit,
                &[
                    ("d/data/ILSVRC2012_validation_ground_truth.txt", truth),
                    ("d/data/meta.mat", devkit::tests::META_MAT),
                ],
            );
        };
        let open = || ImageNet::validation(&archive, &kit, IndexFiles::Beside);
        for (truth, expected) in [
            (&b"1\n2\n1\n"[..], [(2, 0), (1, 1), (3, 1)]),
            (&b"1\n2\n2\n"[..], [(2, 0), (3, 0), (1, 1)]),
        ] {
            write(truth);
            let expected =
                expected.map(|(byte, label)| (Payload::Encoded(vec![byte; 9]), Some(label)));
            assert_eq!(contents(&open().unwrap()), expected);
        }
        write(b"1\n2\n");
        let message = open().unwrap_err().to_string();
        assert!(
            message.contains("has 3 images, but the devkit has labels for 2; give"),
            "{message}"
        );
    }

    #[test]
    fn other_and_damaged_archives_are_named() {
        let mut empty_image = train_members();
        empty_image[1].1 = tar_of(&[("n02100735_5.JPEG".to_owned(), Vec::new())]);
        let (_folder, archive) = written(&empty_image);
        let error = train(&archive, IndexFiles::Absent).0.unwrap().read(0).unwrap_err();
        assert!(
            error.to_string().contains("no byte of the image \"n02100735_5\" at offset "),
            "{error}"
        );
        assert!(error.is_of_one_sample());

        let one = |name: &str, content: &[u8]| vec![(name.to_owned(), content.to_vec())];
        let inner = |name: &str| tar_of(&one(name, b"1"));
        let cases = [
            (vec![], "t.tar is empty; give ILSVRC2012_img_train.tar"),
            (one("a.JPEG", b"1"), "holds \"a.JPEG\", which is no tar of a class; give ILSVRC"),
            (one("a.tar", &tar_of(&[])), "t.tar has no images in a.tar; give"),
            (one("a.tar", &inner("a.ppm")), "holds the member \"a.ppm\", which is refused: images"),
            (
                one("a.tar", &inner("a.jpg")[..512]),
                "is truncated: 1 bytes needed at offset 1024, got 0",
            ),
            (one("a.tar", &[7; 512]), "has a bad tar header at offset 512; download it again"),
        ];
        for (members, expected) in cases {
            let (_folder, archive) = written(&members);
            let message = train(&archive, IndexFiles::Absent).0.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let (_folder, archive) = written(&train_members());
        let whole = fs::read(&archive).unwrap();
        fs::write(&archive, &whole[..whole.len() - 2000]).unwrap();
        let message = train(&archive, IndexFiles::Absent).0.unwrap_err().to_string();
        assert!(message.contains("t.tar is truncated: "), "{message}");
    }
}
