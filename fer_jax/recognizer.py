"""Recognizes the emotions of faces in pictures: `fer_jax.load()` returns a `Recognizer`."""

import dataclasses
import functools
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import calibration, ops, portable
from fer_jax import views as views_lib
from fer_jax.errors import InputError
from fer_jax.runtime import timing

SIZES = (1, 8, 32, 128)  # of batches: the last batch is padded to one of these, so that few programs are compiled
THRESHOLD = 0.5
EXPLAINED_PX = 192  # the side of a face with its heat map


@dataclasses.dataclass(frozen=True)
class FacePrediction:
    """The prediction for a face.

    box: (x, y, width, height) in pixels of the picture, and score: both of the detector; None if the whole picture was
    given as a face. probs: {class: probability}. top: the two most probable classes as (class, probability).
    uncertain: whether the first of them is below the threshold.
    """

    box: tuple[float, float, float, float] | None
    score: float | None
    probs: dict[str, float]
    top: tuple[tuple[str, float], ...]
    uncertain: bool

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top[0][0]


@dataclasses.dataclass(frozen=True)
class PicturePrediction:
    """The predictions for the faces of a picture.

    source: the path, if any; size: (width, height) in pixels, None if the picture could not be read; faces: best
    detection first, () if no face was found; error: why the picture could not be read, or None.
    """

    source: str | None
    size: tuple[int, int] | None
    faces: tuple[FacePrediction, ...]
    error: str | None = None


class Member(NamedTuple):
    """One network of a recognizer. classes: the order of its outputs; weight: its weight in the mean."""

    model: object
    variables: dict
    classes: tuple[str, ...]
    weight: float = 1.0


class Recognizer:
    """Trained networks that predict the emotions of faces and pictures.

    name: of the loaded model. classes: names in the order of `probs`. image_shape: (H, W, C) of a face. views,
    temperature: how probabilities are averaged and scaled. facts: of a model file, else {}. members: the networks;
    variables: of each of them, on the device.
    """

    def __init__(self, name, members, image_shape, *, views="none", temperature=1.0, facts=None):
        views_lib.check(views)
        self.name, self.classes, self.image_shape = name, tuple(members[0].classes), tuple(image_shape)
        self.views, self.temperature, self.facts = views, temperature, facts or {}
        self.members = members
        self.variables = [jax.device_put(member.variables) for member in members]
        self._mean_probs = ops.jit(self.mean_probs)
        self._detectors = {}

    @property
    def title(self) -> str:
        """The name without the folder that a run or an ensemble is in, for files and pages that are shared."""
        return pathlib.PurePath(self.name).name

    def mean_probs(self, variables, images, *, at_once=False):
        """Returns the mean probabilities of the members, [B, K] float32, before the temperature.

        A function to transform by JAX. variables: `self.variables`; images: uint8 [B, H, W, C]; at_once: as in
        `views.make_logits`.
        """
        total = 0.0
        for member, mine in zip(self.members, variables, strict=True):
            apply_fn = functools.partial(member.model.apply, mine, train=False)
            logits_fn = views_lib.make_logits(apply_fn, self.views, at_once=at_once)
            probs = jax.nn.softmax(logits_fn(images))
            columns = [jax.lax.index_in_dim(probs, member.classes.index(name), axis=1) for name in self.classes]
            total += member.weight * jnp.concatenate(columns, axis=1).astype(jnp.float32)
        return total

    def calibrated_probs(self, images):
        """Returns what `probs` returns, [B, K], for uint8 [B, H, W, C]: a function to transform by JAX, for exports."""
        probs = self.mean_probs(self.variables, images, at_once=True)
        if self.temperature == 1:
            return probs
        # As calibration.apply does, in float32.
        return jax.nn.softmax(jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny)) / self.temperature)

    def probs(self, faces, *, progress: str | None = None) -> np.ndarray:
        """Returns the probabilities [N, K] float32 of faces, uint8 [N, H, W, C] of `image_shape`.

        RGB faces are converted to grey for a model of grey faces. progress: the name of a progress bar; None: no bar.

        Raises:
          InputError: faces of another shape or type.
        """
        faces = self.convert(np.asarray(faces))
        found = []
        batches = [faces[first : first + SIZES[-1]] for first in range(0, len(faces), SIZES[-1])]
        if progress:
            batches = timing.watched(batches, progress, faces=len(faces), batch_size=SIZES[-1])
        for batch in batches:
            size = next(size for size in SIZES if size >= len(batch))
            padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
            found.append(np.asarray(self._mean_probs(self.variables, padded))[: len(batch)])
        probs = np.concatenate([np.zeros((0, len(self.classes)), np.float32), *found])
        return probs if self.temperature == 1 else calibration.apply(probs, self.temperature)

    def convert(self, faces) -> np.ndarray:
        """Returns faces, uint8 [N, H, W, 1 or 3], with the channels of `image_shape`.

        Raises:
          InputError: faces of another shape or type.
        """
        height, width, channels = self.image_shape
        if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[1:3] != (height, width):
            raise InputError(
                f"{self.name} takes faces uint8 [N, {height}, {width}, {channels}]; they are {faces.dtype} "
                f"{list(faces.shape)}"
            )
        if faces.shape[3] == channels:
            return faces
        if faces.shape[3] == 3:
            return np.stack([_grey(face) for face in faces]) if len(faces) else faces[..., :1]
        return np.repeat(faces, channels, axis=3)

    def predict(self, images, faces="detect", *, align=True, threshold=THRESHOLD) -> list[PicturePrediction]:
        """Returns a prediction for each picture, in their order.

        images: a path, a PIL picture or an array uint8 [H, W], [H, W, 1] or [H, W, 3] (RGB), or a list of these.
        faces: 'given' uses each picture as one face; 'detect' finds faces with the best available detector; or the name
        of a detector (`fer_jax.faces`). align: rotate faces until the eyes are level, if the detector finds eyes.
        threshold: see FacePrediction.

        Raises:
          InputError: an unknown detector, or images of another type. An unreadable picture does not raise; its
            prediction has an `error`.
        """
        read = [_read(image) for image in (images if isinstance(images, list | tuple) else [images])]
        good = [pixels for _, pixels, error in read if error is None]
        found = iter(self.predict_pixels(good, faces, align=align, threshold=threshold))
        return [
            PicturePrediction(source, None, (), error) if error else dataclasses.replace(next(found), source=source)
            for source, _, error in read
        ]

    def predict_pixels(self, pixels, faces="detect", *, align=True, threshold=THRESHOLD) -> list[PicturePrediction]:
        """Returns a prediction for each picture, uint8 [H, W, 3]; options as in `predict`."""
        found = self.find_faces(pixels, faces)
        crops = self.crop(pixels, found, align=align)
        probs = iter(self.probs(np.stack(crops)) if crops else ())
        return [
            PicturePrediction(
                None,
                (picture.shape[1], picture.shape[0]),
                tuple(self.name_face(face, next(probs), threshold) for face in boxes),
            )
            for picture, boxes in zip(pixels, found, strict=True)
        ]

    def explain(self, image, faces="detect", *, align=True, method="auto", side_px=EXPLAINED_PX) -> list[np.ndarray]:
        """Returns the faces of a picture, each overlaid with a heat map of the evidence for its predicted class.

        image, faces, align: as in `predict`, and in the same order. method: as in `explain.choose`. Views and
        temperature are not used.

        Returns:
          uint8 [side_px, side_px, 3] each.

        Raises:
          InputError: as `predict`, and for an unreadable picture.
        """
        _, pixels, error = _read(image)
        if error:
            raise InputError(error)
        return self.explain_faces(
            pixels, self.find_faces([pixels], faces)[0], align=align, method=method, side_px=side_px
        )

    def explain_faces(self, pixels, found, *, align=True, method="auto", side_px=192) -> list[np.ndarray]:
        """Returns the faces that `find_faces` found in a picture, uint8 [H, W, 3], like `explain`."""
        from fer_jax import explain

        if not found:
            return []
        crops, large = (
            self.crop([pixels], [found], align=align, size_px=size) for size in (self.image_shape[0], side_px)
        )
        crops = self.convert(np.stack(crops))
        labels = [self.classes[number] for number in self.probs(crops).argmax(axis=1)]
        heat = 0.0
        for member, variables in zip(self.members, self.variables, strict=True):
            chosen = explain.choose(member.model, variables, self.image_shape, method)
            numbers = np.array([member.classes.index(label) for label in labels])
            heat += member.weight * explain.METHODS[chosen](member.model, variables, crops, numbers)
        return [explain.overlay(*pair) for pair in zip(large, explain.rescale(heat), strict=True)]

    def find_faces(self, pixels, faces="detect") -> list[list]:
        """Returns the detected faces (`faces.Face`) of each picture, best first; [None] if the picture is a face."""
        return [[None] for _ in pixels] if faces == "given" else self.detector(faces).detect(pixels)

    def crop(self, pixels, found, *, align=True, size_px=None) -> list[np.ndarray]:
        """Returns the crops of all faces that `find_faces` found, uint8 [size_px, size_px, 3].

        size_px: None: as in `image_shape`.
        """
        from fer_jax import faces as faces_lib

        height, width = (size_px, size_px) if size_px else self.image_shape[:2]
        return [
            _resize(picture, (width, height)) if face is None else faces_lib.crop(picture, face, height, align=align)
            for picture, boxes in zip(pixels, found, strict=True)
            for face in boxes
        ]

    def detector(self, name="detect"):
        """Returns the detector of a name, which is loaded once. Raises InputError as `faces.make_detector`."""
        from fer_jax import faces as faces_lib

        name = "auto" if name == "detect" else name
        if name not in self._detectors:
            self._detectors[name] = faces_lib.make_detector(name)
        return self._detectors[name]

    def name_face(self, face, probs, threshold) -> FacePrediction:
        """Returns the prediction of a face that `find_faces` found, from its probabilities [K]."""
        named = {name: float(share) for name, share in zip(self.classes, probs, strict=True)}
        top = tuple(sorted(named.items(), key=lambda item: -item[1])[:2])
        box, score = (None, None) if face is None else (tuple(map(float, face.box)), float(face.score))
        return FacePrediction(box, score, named, top, top[0][1] < threshold)


def load(name_or_path=None, *, checkpoint=None, views=None) -> Recognizer:
    """Loads a shipped model by name, a .safetensors file, the workdir of a run, or the folder of an ensemble.

    name_or_path: None: portable.DEFAULT.
    checkpoint: of a run, 'best' (the default) or 'latest'. views: of fer_jax.views; None: those of the model.

    Raises:
      InputError: there is no such model, or it cannot be read.
    """
    name_or_path = portable.DEFAULT if name_or_path is None else name_or_path
    folder = pathlib.Path(name_or_path).expanduser()
    if folder.is_dir():
        return _load_trained(folder, checkpoint, views)
    if checkpoint is not None:
        raise InputError(f"{name_or_path} has no checkpoints: 'checkpoint' is for the workdir of a run")
    found = portable.load(name_or_path)
    facts = found.facts
    return Recognizer(
        facts["name"],
        [Member(found.model, found.variables, tuple(facts["classes"]))],
        facts["image_shape"],
        views=views or facts["views"],
        temperature=facts["temperature"],
        facts=facts,
    )


def _load_trained(folder, checkpoint, views):
    from fer_jax import members

    models, weights, record = members.load_any(folder, checkpoint)
    found = [
        Member(model.model, model.variables, model.classes, float(weight))
        for model, weight in zip(models, weights, strict=True)
    ]
    return Recognizer(str(folder), found, models[0].image_shape, views=views or record.get("views", "none"))


def _read(image):
    """Reads a path, an array or a PIL picture; returns (path, pixels uint8 [H, W, 3], error)."""
    from fer_jax import pictures

    if isinstance(image, str | os.PathLike):
        try:
            return str(image), pictures.read(image), None
        except InputError as error:
            return str(image), None, str(error)
    if hasattr(image, "convert"):
        return None, pictures.to_rgb(image), None
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise InputError(
            f"a picture must be a path, a PIL picture or an array uint8 [H, W], [H, W, 1] or [H, W, 3]; this is "
            f"{type(image).__name__}, {pixels.dtype} {list(pixels.shape)}"
        )
    return None, np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, None


def _grey(face):
    from PIL import Image

    return np.asarray(Image.fromarray(face).convert("L"))[..., None]


def _resize(picture, size):
    """Resizes a picture to a face of (width, height), as for class folders: Pillow's bicubic, antialiased."""
    from PIL import Image

    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
