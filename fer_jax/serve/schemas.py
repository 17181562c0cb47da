"""The JSON that the service answers with."""

from typing import Annotated, Any, Literal

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class _Exact(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Face(_Exact):
    """A face of a picture, as `fer-jax predict` writes it."""

    box: tuple[float, float, float, float] | None = pydantic.Field(
        description="x, y, width and height in pixels; null with faces=given"
    )
    score: Share | None = pydantic.Field(description="of the detector; null with faces=given")
    track: None = pydantic.Field(description="always null: faces are followed in videos only")
    label: str = pydantic.Field(description="the most probable class")
    top: list[tuple[str, Share]] = pydantic.Field(description="the two most probable classes")
    probs: dict[str, Share]
    uncertain: bool = pydantic.Field(description="whether the first of them is below the threshold")
    explanation: str = pydantic.Field(
        default="", description="with explain=true: the face with its heat map, a PNG as a data URL"
    )


class Picture(_Exact):
    """A picture, as `fer-jax predict` writes it."""

    source: str | None = pydantic.Field(description="the name of the uploaded file")
    frame: None = pydantic.Field(description="always null: of videos only")
    seconds: None = pydantic.Field(description="always null: of videos only")
    size: tuple[int, int] | None = pydantic.Field(description="width and height in pixels")
    faces: list[Face] = pydantic.Field(description="best detection first")
    error: str | None = pydantic.Field(description="why the picture could not be read")


class Pictures(_Exact):
    """The pictures of a batch, in their order."""

    pictures: list[Picture]


class Error(_Exact):
    """Why a request was refused."""

    error: str


class Runtime(_Exact):
    """What computes the probabilities, measured at start."""

    chosen: dict[int, str] = pydantic.Field(description="size of a batch -> runtime")
    milliseconds: dict[str, dict[int, float]] = pydantic.Field(description="runtime -> size of a batch -> median")


class Model(_Exact):
    """The model that answers."""

    name: str
    classes: list[str]
    image_shape: tuple[int, int, int] = pydantic.Field(description="height, width and channels of a face")
    views: str = pydantic.Field(description="test-time views that are averaged")
    temperature: float
    detector: str
    runtime: Runtime
    figures: dict[str, dict[str, Any]] = pydantic.Field(description="of the model card: split -> figures")


class Health(_Exact):
    """The state of the service."""

    status: Literal["live", "ready"]
