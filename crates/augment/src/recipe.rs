//! The augmentations of the papers: which transforms, in which order, with which numbers.

use moco_rng::Stream;

use crate::decode::{MAX_SIDE, Part};
use crate::fast_jitter;
use crate::flip::flip_planes;
use crate::gaussian_blur::blur_planes;
use crate::grayscale::gray_planes;
use crate::planes::{Planes, through_planes};
use crate::random_resized_crop::resized_crop_as;
use crate::{
    AugmentError, ColorJitter, CropBox, Fidelity, JitterDraw, RandomResizedCrop, RgbImage,
    center_crop, resize_shorter_side,
};

const P_GRAYSCALE: f64 = 0.2;
const P_JITTER: f64 = 0.8;
const P_BLUR: f64 = 0.5;
const P_FLIP: f64 = 0.5;
const BLUR_SIGMA: (f64, f64) = (0.1, 2.0);
const JITTER_STRONG_HUE: ColorJitter =
    ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.4 };
const JITTER: ColorJitter = ColorJitter { hue: 0.1, ..JITTER_STRONG_HUE };

/// Makes one view of an image; implement it to train on other views than a [`Recipe`]'s.
pub trait Augmentation: Send + Sync {
    /// One view, [`image_size`](Self::image_size) pixels square. All randomness comes from `stream`, so the
    /// same stream gives the same view.
    ///
    /// # Errors
    /// Whatever keeps the view from being made; [`Recipe`] has no such case for a valid image.
    fn view(&self, image: &RgbImage, stream: Stream) -> Result<RgbImage, AugmentError>;

    /// One view for each of `streams` of the image in a file, decoded once.
    ///
    /// The views are those of [`view`](Self::view) on the decoded image.
    ///
    /// # Errors
    /// Those of [`RgbImage::decode`] and [`view`](Self::view).
    fn views(&self, file: &[u8], streams: Vec<Stream>) -> Result<Vec<RgbImage>, AugmentError> {
        let image = RgbImage::decode(file)?;
        streams.into_iter().map(|stream| self.view(&image, stream)).collect()
    }

    /// The same view before the steps that need not be done here: a GPU can do them to a whole batch.
    ///
    /// [`Square::finish`] makes it the view. An augmentation that knows no such steps has its views as
    /// squares.
    ///
    /// # Errors
    /// Those of [`view`](Self::view).
    fn square(&self, image: &RgbImage, stream: Stream) -> Result<Square, AugmentError> {
        Ok(Square { image: self.view(image, stream)?, steps: Vec::new() })
    }

    /// One square for each of `streams`, as [`views`](Self::views) has views.
    ///
    /// # Errors
    /// Those of [`RgbImage::decode`] and [`square`](Self::square).
    fn squares(&self, file: &[u8], streams: Vec<Stream>) -> Result<Vec<Square>, AugmentError> {
        let image = RgbImage::decode(file)?;
        streams.into_iter().map(|stream| self.square(&image, stream)).collect()
    }

    /// Side of the view in pixels.
    fn image_size(&self) -> u32;
}

/// The numbers of a recipe that are not fixed by its kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecipeConfig {
    /// Side of the view in pixels.
    pub image_size: u32,
    /// Least and greatest share of the area that a random crop keeps; not used by `Eval`.
    pub crop_scale: (f64, f64),
    /// Which transforms in which order.
    pub kind: RecipeKind,
}

/// The transforms of a recipe, in the order in which they act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeKind {
    /// MoCo v1: random resized crop, grayscale p 0.2, jitter (0.4, 0.4, 0.4, 0.4) always, flip p 0.5.
    V1,
    /// MoCo v2: random resized crop, jitter (0.4, 0.4, 0.4, 0.1) p 0.8, grayscale p 0.2, Gaussian blur
    /// with sigma from 0.1 to 2 p 0.5, flip p 0.5.
    V2,
    /// The official CIFAR-10 notebook: random resized crop, flip p 0.5, jitter (0.4, 0.4, 0.4, 0.1) p 0.8,
    /// grayscale p 0.2.
    Cifar,
    /// Training of a linear classifier: random resized crop, flip p 0.5.
    LinearTrain,
    /// Evaluation: shorter side to `resize`, central crop. Draws nothing.
    Eval {
        /// Shorter side in pixels before the crop.
        resize: u32,
    },
}

/// The augmentation of one of the papers.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    config: RecipeConfig,
    fidelity: Fidelity,
}

impl Recipe {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`AugmentError::Recipe`] names the field that is out of range.
    pub fn new(config: RecipeConfig) -> Result<Self, AugmentError> {
        let side = "from 1 to 20000";
        let check_side = |key, value: u32| {
            let valid = (1..=MAX_SIDE).contains(&value);
            if valid { Ok(()) } else { Err(invalid(key, side, value)) }
        };
        check_side("image_size", config.image_size)?;
        if let RecipeKind::Eval { resize } = config.kind {
            check_side("resize", resize)?;
        } else {
            let (low, high) = config.crop_scale;
            // Written so that NaN fails.
            if !(low > 0.0 && low <= high && high <= 1.0) {
                let expected = "two shares of the area with 0 < least <= greatest <= 1";
                return Err(invalid("crop_scale", expected, format!("({low}, {high})")));
            }
        }
        Ok(Self { config, fidelity: Fidelity::Exact })
    }

    /// The same recipe, exact or fast.
    #[must_use]
    pub fn with_fidelity(self, fidelity: Fidelity) -> Self {
        Self { fidelity, ..self }
    }

    /// How closely the views follow Pillow; a new recipe is exact.
    #[must_use]
    pub fn fidelity(&self) -> Fidelity {
        self.fidelity
    }

    /// The parameters that the recipe was built from.
    #[must_use]
    pub fn config(&self) -> &RecipeConfig {
        &self.config
    }

    /// Draws every parameter of one view of an image of this size, without touching pixels.
    #[must_use]
    pub fn draw(&self, width: u32, height: u32, mut stream: Stream) -> DrawnView {
        let RecipeConfig { image_size, crop_scale, kind } = self.config;
        let frame = match kind {
            RecipeKind::Eval { resize } => Frame::CenterCrop { resize },
            _ => {
                let crop = RandomResizedCrop::with_scale(crop_scale);
                Frame::ResizedCrop(crop.draw(width, height, &mut stream))
            }
        };
        DrawnView {
            source: (width, height),
            image_size,
            frame,
            steps: draw_steps(kind, &mut stream),
        }
    }
}

fn invalid(key: &'static str, expected: &'static str, got: impl std::fmt::Display) -> AugmentError {
    AugmentError::Recipe { key, expected, got: got.to_string() }
}

/// The steps after the crop that take part, in their order.
fn draw_steps(kind: RecipeKind, stream: &mut Stream) -> Vec<Step> {
    let gray = |stream: &mut Stream| stream.bernoulli(P_GRAYSCALE).then_some(Step::Grayscale);
    let flip = |stream: &mut Stream| stream.bernoulli(P_FLIP).then_some(Step::Flip);
    let jitter =
        |stream: &mut Stream| stream.bernoulli(P_JITTER).then(|| Step::Jitter(JITTER.draw(stream)));
    let blur = |stream: &mut Stream| {
        let (low, high) = BLUR_SIGMA;
        stream.bernoulli(P_BLUR).then(|| Step::Blur { sigma: stream.range(low, high) })
    };
    // An array is evaluated left to right, so each line reads as the order of draws and of steps.
    let steps = match kind {
        RecipeKind::V1 => {
            [gray(stream), Some(Step::Jitter(JITTER_STRONG_HUE.draw(stream))), flip(stream), None]
        }
        RecipeKind::V2 => [jitter(stream), gray(stream), blur(stream), flip(stream)],
        RecipeKind::Cifar => [flip(stream), jitter(stream), gray(stream), None],
        RecipeKind::LinearTrain => [flip(stream), None, None, None],
        RecipeKind::Eval { .. } => [None; 4],
    };
    steps.into_iter().flatten().collect()
}

impl Augmentation for Recipe {
    fn view(&self, image: &RgbImage, stream: Stream) -> Result<RgbImage, AugmentError> {
        Ok(self.square(image, stream)?.finish(self.fidelity))
    }

    fn views(&self, file: &[u8], streams: Vec<Stream>) -> Result<Vec<RgbImage>, AugmentError> {
        let squares = self.squares(file, streams)?.into_iter();
        Ok(squares.map(|square| square.finish(self.fidelity)).collect())
    }

    fn square(&self, image: &RgbImage, stream: Stream) -> Result<Square, AugmentError> {
        self.draw(image.width(), image.height(), stream).cut(image, self.fidelity)
    }

    // Only the pixels that some view shows are computed.
    fn squares(&self, file: &[u8], streams: Vec<Stream>) -> Result<Vec<Square>, AugmentError> {
        let mut drawn = Vec::new();
        let part = RgbImage::decode_part(file, self.fidelity, |width, height| {
            drawn = streams.into_iter().map(|stream| self.draw(width, height, stream)).collect();
            drawn.iter().map(|view| view.frame.region(width, height)).reduce(|a, b| a.union(&b))
        })?;
        drawn.into_iter().map(|view| view.cut_from_part(&part, self.fidelity)).collect()
    }

    fn image_size(&self) -> u32 {
        self.config.image_size
    }
}

/// Every parameter of one view.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnView {
    /// Width and height of the images this can be applied to.
    pub source: (u32, u32),
    /// Side of the view in pixels.
    pub image_size: u32,
    /// How the square is cut out of the image.
    pub frame: Frame,
    /// The steps applied to the square, first to last; a step that was not drawn is absent.
    pub steps: Vec<Step>,
}

/// How the square of a view is cut out of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// This box, resized ([`resized_crop`](crate::resized_crop)).
    ResizedCrop(CropBox),
    /// [`resize_shorter_side`], then [`center_crop()`].
    CenterCrop {
        /// Shorter side in pixels before the crop.
        resize: u32,
    },
}

/// One transform of a square, with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// See [`JitterDraw::apply`].
    Jitter(JitterDraw),
    /// See [`grayscale()`](crate::grayscale()).
    Grayscale,
    /// See [`gaussian_blur()`](crate::gaussian_blur()).
    Blur {
        /// Standard deviation in pixels.
        sigma: f64,
    },
    /// See [`flip_horizontal`](crate::flip_horizontal).
    Flip,
}

impl DrawnView {
    /// Makes the view.
    ///
    /// # Errors
    /// [`AugmentError::OtherSource`] if the image is not of the size this was drawn for, and the errors of
    /// [`Frame::apply`].
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage, AugmentError> {
        self.apply_as(image, Fidelity::Exact)
    }

    /// Makes the view, exact or fast.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    pub fn apply_as(&self, image: &RgbImage, fidelity: Fidelity) -> Result<RgbImage, AugmentError> {
        Ok(self.clone().cut(image, fidelity)?.finish(fidelity))
    }

    /// Cuts the square out and leaves the steps to be done.
    fn cut(self, image: &RgbImage, fidelity: Fidelity) -> Result<Square, AugmentError> {
        let got = (image.width(), image.height());
        if got != self.source {
            return Err(AugmentError::OtherSource { expected: self.source, got });
        }
        let image = self.frame.apply_as(image, self.image_size, fidelity)?;
        Ok(Square { image, steps: self.steps })
    }

    /// The same from the part of the image that the frame needs.
    fn cut_from_part(self, part: &Part, fidelity: Fidelity) -> Result<Square, AugmentError> {
        if part.size != self.source {
            return Err(AugmentError::OtherSource { expected: self.source, got: part.size });
        }
        let frame = self.frame.within(&part.region);
        let image = frame.apply_as(&part.pixels, self.image_size, fidelity)?;
        Ok(Square { image, steps: self.steps })
    }
}

/// A view that is cut out and not finished: its steps are still to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Square {
    /// The pixels before the steps.
    pub image: RgbImage,
    /// The steps that turn them into the view, first to last.
    pub steps: Vec<Step>,
}

impl Square {
    /// Does the steps.
    #[must_use]
    pub fn finish(self, fidelity: Fidelity) -> RgbImage {
        let mut view = self.image;
        if !self.steps.is_empty() {
            through_planes(&mut view, |planes| {
                for step in &self.steps {
                    step.apply_planes(planes, fidelity);
                }
            });
        }
        view
    }
}

impl Frame {
    /// Cuts a square of `size` pixels out.
    ///
    /// # Errors
    /// [`AugmentError::CropOutside`] or [`AugmentError::TooLarge`]; a drawn frame meets the latter only in
    /// evaluation, for an image thousands of times longer than wide.
    pub fn apply(&self, image: &RgbImage, size: u32) -> Result<RgbImage, AugmentError> {
        self.apply_as(image, size, Fidelity::Exact)
    }

    fn apply_as(
        &self,
        image: &RgbImage,
        size: u32,
        fidelity: Fidelity,
    ) -> Result<RgbImage, AugmentError> {
        match self {
            Self::ResizedCrop(crop) => resized_crop_as(image, crop, size, fidelity),
            Self::CenterCrop { resize } => {
                Ok(center_crop(&resize_shorter_side(image, *resize)?, size))
            }
        }
    }

    /// The pixels of an image of this size that count.
    fn region(&self, width: u32, height: u32) -> CropBox {
        match self {
            Self::ResizedCrop(crop) => *crop,
            Self::CenterCrop { .. } => CropBox::whole(width, height),
        }
    }

    /// The same frame in the part of the image inside `region`.
    fn within(&self, region: &CropBox) -> Self {
        match self {
            Self::ResizedCrop(crop) => Self::ResizedCrop(CropBox {
                top: crop.top - region.top,
                left: crop.left - region.left,
                ..*crop
            }),
            Self::CenterCrop { .. } => *self,
        }
    }
}

impl Step {
    /// Changes the square in place.
    pub fn apply(&self, image: &mut RgbImage) {
        self.apply_as(image, Fidelity::Exact);
    }

    /// Changes the square in place, exact or fast.
    pub fn apply_as(&self, image: &mut RgbImage, fidelity: Fidelity) {
        through_planes(image, |planes| self.apply_planes(planes, fidelity));
    }

    fn apply_planes(&self, planes: &mut Planes, fidelity: Fidelity) {
        match self {
            Self::Jitter(draw) => match fidelity {
                Fidelity::Exact => draw.apply_planes(planes),
                Fidelity::Fast => fast_jitter::jitter(draw, planes),
            },
            Self::Grayscale => gray_planes(planes),
            Self::Blur { sigma } => blur_planes(planes, *sigma),
            Self::Flip => flip_planes(planes),
        }
    }
}
