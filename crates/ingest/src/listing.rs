//! What a folder holds: images, images that cannot be used, and all else.
//!
//! One rule for everything that is found. Files that are images by their names are images, whatever their
//! bytes are. What is an image by its name and cannot be opened or decoded here is unusable. All else is
//! left out: what a system keeps, files that are no images, links that lead back. Everything is counted,
//! and nothing but folders is opened.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use crate::{
    error::IngestError,
    walk::{Promise, extension, promise},
};

/// Names that are shown of a kind.
const SHOWN: usize = 3;

/// An image by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// Path of its folder below the root, empty for the root itself.
    pub(crate) folder: String,
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) size: u64,
}

impl Listed {
    /// Its path below the root.
    pub(crate) fn path(&self) -> String {
        below(&self.folder, &self.name)
    }
}

/// Why something in a folder is no image of the data set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// An image in a format that is not decoded here, with the file's extension.
    OtherFormat(String),
    /// An image that is a link to nothing.
    LinkToNothing,
    /// An image that is a pipe, a socket or a device.
    SpecialFile,
    /// An image or a folder whose name is not UTF-8.
    NameNotUtf8,
    /// An image beside the folders of classes.
    OutsideClasses,
    /// Hidden, or kept by a system or a program beside images.
    OfSystem,
    /// A link to a folder that holds it.
    LinkBack,
    /// A file that is no image by its name.
    NoImage,
}

impl Kind {
    /// Whether somebody would miss it: it looks like an image.
    fn is_unusable_image(&self) -> bool {
        matches!(
            self,
            Self::OtherFormat(_) | Self::LinkToNothing | Self::SpecialFile | Self::NameNotUtf8
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherFormat(extension) => write!(f, ".{extension}"),
            Self::LinkToNothing => f.write_str("link to nothing"),
            Self::SpecialFile => f.write_str("pipe, socket or device"),
            Self::NameNotUtf8 => f.write_str("name that is not UTF-8"),
            Self::OutsideClasses => f.write_str("image in no class"),
            Self::OfSystem => f.write_str("hidden or system file"),
            Self::LinkBack => f.write_str("link back"),
            Self::NoImage => f.write_str("other file"),
        }
    }
}

/// How many there are of a kind, and the names of the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    n: u64,
    names: Vec<String>,
}

/// What a folder holds that is no image of the data set, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    kinds: BTreeMap<Kind, Group>,
}

impl LeftOut {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many files look like images and cannot be used.
    pub(crate) fn n_unusable(&self) -> u64 {
        self.unusable().map(|(_, group)| group.n).sum()
    }

    /// Those of the unusable images, a line a kind.
    pub(crate) fn unusable_table(&self) -> String {
        let row =
            |(kind, group): (&Kind, &Group)| format!("\n{:>7}  {kind} {}", group.n, group.names());
        self.unusable().map(row).collect()
    }

    fn unusable(&self) -> impl Iterator<Item = (&Kind, &Group)> {
        self.kinds.iter().filter(|(kind, _)| kind.is_unusable_image())
    }

    pub(crate) fn add_image_in_no_class(&mut self, image: &Listed) {
        self.add(Kind::OutsideClasses, image.path());
    }

    fn add(&mut self, kind: Kind, path: String) {
        let group = self.kinds.entry(kind).or_default();
        group.n += 1;
        if group.names.len() < SHOWN {
            group.names.push(path);
        }
    }
}

impl Group {
    fn names(&self) -> String {
        let more = if self.n > self.names.len() as u64 { ", …" } else { "" };
        format!("({}{more})", self.names.join(", "))
    }
}

/// In one line: `60 × .heic (a/1.heic, …), 1 × link to nothing (a/2.jpg)`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one =
            |(kind, group): (&Kind, &Group)| format!("{} × {kind} {}", group.n, group.names());
        f.write_str(&self.kinds.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// The contents of one folder.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Images, sorted as torchvision sorts them.
    pub(crate) images: Vec<Listed>,
    /// Folders with the systems' numbers of theirs, sorted by name.
    pub(crate) folders: Vec<(String, FolderId)>,
}

/// The system's numbers of a folder, the same by whichever way it is reached.
pub(crate) type FolderId = (u64, u64);

/// The number of a folder.
///
/// # Errors
/// If it is not there.
pub(crate) fn folder_id(path: &Path) -> Result<FolderId, IngestError> {
    fs::metadata(path).map(|found| id(&found)).map_err(IngestError::io("list", path))
}

fn id(found: &Metadata) -> FolderId {
    (found.dev(), found.ino())
}

/// Lists all images below `path`, which is called `folder` and lies below the folders `above`, itself
/// included.
pub(crate) fn list_all(
    path: &Path,
    folder: &str,
    above: &mut Vec<FolderId>,
    left_out: &mut LeftOut,
) -> Result<Vec<Listed>, IngestError> {
    let Contents { mut images, folders } = list(path, folder, left_out)?;
    for (name, id) in folders {
        let inner = below(folder, &name);
        if above.contains(&id) {
            left_out.add(Kind::LinkBack, inner);
            continue;
        }
        above.push(id);
        images.extend(list_all(&path.join(&name), &inner, above, left_out)?);
        above.pop();
    }
    images.sort_unstable();
    Ok(images)
}

/// Lists one folder. Links are followed, as torchvision does.
pub(crate) fn list(
    path: &Path,
    folder: &str,
    left_out: &mut LeftOut,
) -> Result<Contents, IngestError> {
    let mut contents = Contents::default();
    let entries: Result<Vec<_>, _> = fs::read_dir(path).and_then(Iterator::collect);
    let mut entries = entries.map_err(IngestError::io("list", path))?;
    // The order of images and of folders, and of the names that are shown.
    entries.sort_by_cached_key(fs::DirEntry::file_name);
    for entry in entries {
        let found = match fs::metadata(entry.path()) {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_loop(&error) => Err(()),
            Err(source) => return Err(IngestError::io("inspect", entry.path())(source)),
        };
        let name = match entry.file_name().into_string() {
            Ok(name) => name,
            Err(bytes) => {
                let name = bytes.to_string_lossy().into_owned();
                let is_folder = found.is_ok_and(|found| found.is_dir());
                let is_missed = is_folder || promise(extension(&name)) != Promise::Nothing;
                let kind = if is_missed { Kind::NameNotUtf8 } else { Kind::NoImage };
                left_out.add(kind, below(folder, &name));
                continue;
            }
        };
        let kind = match (promise(extension(&name)), found) {
            _ if is_of_system(&name) => Kind::OfSystem,
            (_, Ok(found)) if found.is_dir() => {
                contents.folders.push((name, id(&found)));
                continue;
            }
            (Promise::Nothing, _) => Kind::NoImage,
            (_, Err(())) => Kind::LinkToNothing,
            (_, Ok(found)) if !found.is_file() => Kind::SpecialFile,
            (Promise::OtherImage, Ok(_)) => {
                Kind::OtherFormat(extension(&name).to_ascii_lowercase())
            }
            (Promise::Image, Ok(found)) => {
                // What is too large for the index is too large to be read, which says so.
                let size = found.len().min(u64::from(u32::MAX));
                contents.images.push(Listed { folder: folder.to_owned(), name, size });
                continue;
            }
        };
        left_out.add(kind, below(folder, &name));
    }
    Ok(contents)
}

/// A link that leads to itself, which the system gives up to follow.
fn is_loop(error: &io::Error) -> bool {
    const ELOOP: i32 = 40;
    error.raw_os_error() == Some(ELOOP)
}

fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Whether a file or folder of this name is what a system or a program keeps beside images: hidden ones,
/// and those of file servers, archives, trash, file systems and image viewers.
fn is_of_system(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "@Recently-Snapshot",
        "@Recycle",
        "@eaDir",
        "System Volume Information",
        "Thumbs.db",
        "__MACOSX",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
    ];
    name.starts_with('.') || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}
