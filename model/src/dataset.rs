//! Labelled images from a folder: Fashion-MNIST's files, or a folder a class.

use std::path::{Path, PathBuf};

use crate::idx::{IdxError, IdxImages, load_labels};
use crate::image::{Picture, PictureError};
use crate::limits;

/// Which half of an IDX data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`.
    Test,
    /// `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`.
    Train,
}

/// Labelled images. IDX images are held in memory, those of class folders read one at a time.
#[derive(Clone, Debug)]
pub struct Dataset {
    items: Items,
    classes: Vec<String>,
}

#[derive(Clone, Debug)]
enum Items {
    Idx { images: IdxImages, labels: Vec<u8> },
    Files(Vec<(PathBuf, usize)>),
}

/// A refused data set, or an image of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The folder could not be listed.
    #[error("cannot list {path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither IDX files nor class folders with images.
    #[error(
        "{path} is no data set: expected {expected} (also .gz) beside its labels, or a folder a \
         class with .png or .jpg files"
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// The IDX file that was looked for.
        expected: &'static str,
    },
    /// An IDX file is wrong.
    #[error("{path}: {source}")]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdxError,
    },
    /// An image is wrong.
    #[error("{path}: {source}")]
    Picture {
        /// The file, or the folder of an IDX data set.
        path: PathBuf,
        /// What is wrong.
        source: PictureError,
    },
    /// There are more or fewer labels than images.
    #[error("{path}: {labels} labels for {images} images")]
    Labels {
        /// The label file.
        path: PathBuf,
        /// Images.
        images: usize,
        /// Labels.
        labels: usize,
    },
    /// The name of a class folder is no class of the model.
    #[error("{path} is named like no class of the model; expected a label, or a number in front")]
    UnknownClass {
        /// The folder.
        path: PathBuf,
    },
    /// More images than the limit.
    #[error("{path} has more than {limit} images")]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

impl Dataset {
    /// Opens a folder with IDX files of the split, or else with one folder a class.
    ///
    /// If every folder's name begins with a number (`0`, `3-dress`, `7_boat`), that number is
    /// the class. Otherwise the class is the position of the name among `labels`, the model's
    /// class names, with `/` written as `-` or `_`; without `labels` it is the position among the
    /// sorted names.
    ///
    /// # Errors
    /// [`DatasetError`] names the file or the folder.
    pub fn open(
        folder: &Path,
        split: Split,
        labels: Option<&[String]>,
    ) -> Result<Self, DatasetError> {
        let model_labels = labels;
        let (images, labels) = match split {
            Split::Test => ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
            Split::Train => ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        };
        match (plain_or_gz(folder, images), plain_or_gz(folder, labels)) {
            (Some(images), Some(labels)) => Self::idx(&images, &labels),
            _ => Self::class_folders(folder, images, model_labels),
        }
    }

    fn idx(images_path: &Path, labels_path: &Path) -> Result<Self, DatasetError> {
        let refused = |path: &Path, source| DatasetError::Idx { path: path.to_owned(), source };
        let images = IdxImages::load(images_path).map_err(|e| refused(images_path, e))?;
        let labels = load_labels(labels_path).map_err(|e| refused(labels_path, e))?;
        if images.len() != labels.len() {
            let (images, labels) = (images.len(), labels.len());
            return Err(DatasetError::Labels { path: labels_path.to_owned(), images, labels });
        }
        let count = labels.iter().max().map_or(0, |&last| usize::from(last) + 1);
        let classes = (0..count).map(|class| class.to_string()).collect();
        Ok(Self { items: Items::Idx { images, labels }, classes })
    }

    fn class_folders(
        folder: &Path,
        expected: &'static str,
        labels: Option<&[String]>,
    ) -> Result<Self, DatasetError> {
        let mut names: Vec<(String, PathBuf)> = list(folder)?
            .into_iter()
            .filter(|path| path.is_dir())
            .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
            .collect();
        names.sort();
        let numbers: Option<Vec<usize>> = names.iter().map(|(name, _)| leading(name)).collect();
        let classes_of = match (numbers, labels) {
            (Some(numbers), _) => numbers,
            (None, Some(labels)) => {
                let class = |(name, path): &(String, PathBuf)| {
                    let place = labels.iter().position(|label| is_named(name, label));
                    place.ok_or_else(|| DatasetError::UnknownClass { path: path.clone() })
                };
                names.iter().map(class).collect::<Result<_, _>>()?
            }
            (None, None) => (0..names.len()).collect(),
        };
        let mut files = Vec::new();
        for ((_, path), &class) in names.iter().zip(&classes_of) {
            let mut images = list(path)?;
            images.retain(|image| is_image(image));
            images.sort();
            files.extend(images.into_iter().map(|image| (image, class)));
            if files.len() > limits::DATASET_ITEMS {
                let (path, limit) = (folder.to_owned(), limits::DATASET_ITEMS);
                return Err(DatasetError::TooMany { path, limit });
            }
        }
        if files.is_empty() {
            return Err(DatasetError::NoImages { path: folder.to_owned(), expected });
        }
        let count = classes_of.iter().max().map_or(0, |last| last + 1);
        let mut classes: Vec<String> = (0..count).map(|class| class.to_string()).collect();
        for ((name, _), &class) in names.into_iter().zip(&classes_of) {
            classes[class] = name;
        }
        Ok(Self { items: Items::Files(files), classes })
    }

    /// Images.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Idx { labels, .. } => labels.len(),
            Items::Files(files) => files.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes: of their folders, or their numbers.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// An image with its class; `None` beyond the last.
    ///
    /// # Errors
    /// [`DatasetError::Picture`] if the file is not an image.
    pub fn get(&self, index: usize) -> Option<Result<(Picture, usize), DatasetError>> {
        match &self.items {
            Items::Idx { images, labels } => {
                let (pixels, &label) = (images.get(index)?, labels.get(index)?);
                let picture = Picture::gray(images.width, images.height, pixels);
                let refused = |source| DatasetError::Picture { path: PathBuf::new(), source };
                Some(picture.map_err(refused).map(|picture| (picture, usize::from(label))))
            }
            Items::Files(files) => {
                let (path, class) = files.get(index)?;
                let refused = |source| DatasetError::Picture { path: path.clone(), source };
                Some(Picture::load(path).map_err(refused).map(|picture| (picture, *class)))
            }
        }
    }

    /// Every image with its class, in order: that of the IDX file, or of class and file name.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Picture, usize), DatasetError>> + '_ {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

fn plain_or_gz(folder: &Path, name: &str) -> Option<PathBuf> {
    let candidates = [folder.join(name), folder.join(format!("{name}.gz"))];
    candidates.into_iter().find(|path| path.is_file())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let io = |source| DatasetError::Io { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(io)?.take(limits::DATASET_ITEMS + 1);
    let paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>().map_err(io)?;
    if paths.len() > limits::DATASET_ITEMS {
        let (path, limit) = (folder.to_owned(), limits::DATASET_ITEMS);
        return Err(DatasetError::TooMany { path, limit });
    }
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["png", "jpg", "jpeg"].iter().any(|known| known.eq_ignore_ascii_case(extension))
    })
}

/// Whether a folder is named like a label, in which it cannot have a slash.
fn is_named(folder: &str, label: &str) -> bool {
    ["/", "-", "_"].iter().any(|slash| folder == label.replace('/', slash))
}

/// The number a folder's name begins with, if nothing but a separator follows it.
fn leading(name: &str) -> Option<usize> {
    let end = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    let separated = name[end..].chars().next().is_none_or(|c| matches!(c, '-' | '_' | ' ' | '.'));
    // Numbers are positions in a list of names, so they are capped like the number of images.
    let number = name[..end].parse().ok().filter(|&number| number < limits::DATASET_CLASSES);
    number.filter(|_| separated)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    fn idx(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let words = std::iter::once(&magic).chain(sizes);
        words.flat_map(|word| word.to_be_bytes()).chain(data.iter().copied()).collect()
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
    }

    fn png(side: u32) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::DynamicImage::new_luma8(side, side);
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn labels(dataset: &Dataset) -> Vec<usize> {
        dataset.iter().map(|item| item.unwrap().1).collect()
    }

    #[test]
    fn idx_files_give_images_with_labels() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, "t10k-images-idx3-ubyte", &idx(0x803, &[2, 1, 2], &[1, 2, 3, 4]));
        write(folder, "t10k-labels-idx1-ubyte", &idx(0x801, &[2], &[9, 4]));
        let dataset = Dataset::open(folder, Split::Test, None).unwrap();
        assert_eq!((dataset.len(), dataset.classes().len()), (2, 10));
        assert_eq!(labels(&dataset), [9, 4]);
        assert_eq!(dataset.get(1).unwrap().unwrap().0.size(), (2, 1));
        assert!(dataset.get(2).is_none());
        let other = Dataset::open(folder, Split::Train, None).unwrap_err();
        assert!(matches!(other, DatasetError::NoImages { .. }), "{other}");

        write(folder, "t10k-labels-idx1-ubyte", &idx(0x801, &[1], &[9]));
        let error = Dataset::open(folder, Split::Test, None).unwrap_err();
        assert!(matches!(error, DatasetError::Labels { images: 2, labels: 1, .. }), "{error}");
        write(folder, "t10k-labels-idx1-ubyte", &[0, 0, 8]);
        let error = Dataset::open(folder, Split::Test, None).unwrap_err();
        assert!(matches!(error, DatasetError::Idx { .. }), "{error}");
    }

    #[test]
    fn class_folders_are_ordered_by_name_or_number() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["cat/b.png", "cat/a.PNG", "ant/x.png", "ant/readme.txt"] {
            write(folder, name, &png(2));
        }
        let dataset = Dataset::open(folder, Split::Test, None).unwrap();
        assert_eq!(labels(&dataset), [0, 1, 1]);
        assert_eq!(dataset.classes(), ["ant", "cat"]);

        let label = |name: &str| name.to_owned();
        let known = [label("dog"), label("ant"), label("cat")];
        let dataset = Dataset::open(folder, Split::Test, Some(&known)).unwrap();
        assert_eq!(labels(&dataset), [1, 2, 2]);
        let error = Dataset::open(folder, Split::Test, Some(&known[..2])).unwrap_err();
        assert!(
            matches!(&error, DatasetError::UnknownClass { path } if path.ends_with("cat")),
            "{error}"
        );
        assert!(is_named("T-shirt-top", "T-shirt/top") && !is_named("top", "T-shirt/top"));

        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["10-boot/a.png", "3_dress/b.png"] {
            write(folder, name, &png(2));
        }
        let dataset = Dataset::open(folder, Split::Test, None).unwrap();
        assert_eq!(labels(&dataset), [10, 3]);
        assert_eq!(dataset.classes()[10], "10-boot");
        assert_eq!(dataset.classes()[4], "4");

        write(folder, "10-boot/a.png", b"no image");
        let dataset = Dataset::open(folder, Split::Test, None).unwrap();
        let error = dataset.get(0).unwrap().unwrap_err();
        assert!(matches!(error, DatasetError::Picture { .. }), "{error}");
    }

    #[test]
    fn folders_without_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Dataset::open(folder.path(), Split::Test, None).unwrap_err();
        assert!(matches!(error, DatasetError::NoImages { .. }), "{error}");
        let error = Dataset::open(&folder.path().join("absent"), Split::Test, None).unwrap_err();
        assert!(matches!(error, DatasetError::Io { .. }), "{error}");
        assert_eq!(leading("99999999999999999999-x"), None);
        assert_eq!((leading("3d"), leading("3 d"), leading("d3")), (None, Some(3), None));
    }
}
