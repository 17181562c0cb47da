"""Heat maps below the faces of a page: the evidence for a class."""

import dataclasses

import numpy as np

from fer_jax.report import figures
from fer_jax.report.elements import element

REMARKS = {
    "grad_cam": "Below each face is the evidence for the predicted class by Grad-CAM (Selvaraju et al. 2017)",
    "occlusion": "Below each face is how far covering a patch lowers the predicted class's probability: occlusion "
    "(Zeiler and Fergus 2014)",
}


@dataclasses.dataclass(frozen=True)
class Heat:
    """Faces overlaid with the heat map of their predicted class.

    method: a key of REMARKS; overlays: {row of the evaluation: uint8 [H, W, 3]}.
    """

    method: str
    overlays: dict[int, np.ndarray]


def remark(heat):
    """Returns one sentence that explains the heat maps."""
    return f"{REMARKS[heat.method]}; yellow is the maximum of a face, no colour is none."


def below(tile, overlay, description):
    """Inserts an overlay between the face and the captions of a tile from `elements.face`; returns the tile."""
    picture = element("img", src=figures.face(overlay), alt=description, width=96, height=96, class_="heat")
    tile.insert(1, picture)
    return tile
