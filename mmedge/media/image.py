"""Pictures: files to pixels, and pixels to what a vision tower takes.

A file passes four limits in this order, each before the next one allocates: its length, its kind by the first bytes,
the size its header claims, and decoding. Colour profiles (ICC) are ignored, as the reference processors do: the numbers
of a wide-gamut picture are taken for sRGB. Transparent parts show white.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from mmedge.errors import InputError, ModelError
from mmedge.media import bounded, pillow
from mmedge.media.header import MAGIC, read_header, sniff

if TYPE_CHECKING:
    from PIL import ImageFile

LENGTH_LIMIT = 20_000_000
"""Bytes of a picture file."""
PIXEL_LIMIT = 40_000_000
SIDE_LIMIT = 16_384
"""Pixels along one side."""

BILINEAR = 2
"""Pillow's number for the filter that settings mean when they name none."""


class Picture(Struct, frozen=True):
    """A decoded picture: ``pixels`` is uint8 ``[height, width, 3]``, upright, RGB."""

    pixels: np.ndarray
    warnings: tuple[str, ...] = ()


def read_picture(path: Path) -> bytes:
    """The bytes of a picture file; nothing of an oversized one is read.

    Raises:
        InputError: it is no regular file, cannot be read, or is longer than `LENGTH_LIMIT`.
    """
    return bounded.read_file(path, "picture", LENGTH_LIMIT, _check_length)


def read_stream(stream: BinaryIO, name: str) -> bytes:
    """The bytes of a picture from a pipe, of which no more than `LENGTH_LIMIT` are held.

    Raises:
        InputError: there are more.
    """
    return bounded.read_stream(stream, name, LENGTH_LIMIT, _check_length)


def decode_picture(data: bytes, name: str, *, reject_animated: bool = False) -> Picture:
    """Decode a JPEG, PNG, WebP, BMP or GIF, whatever ``name`` ends in; of an animation the first frame.

    16-bit samples keep their upper byte. The EXIF orientation is applied.

    Raises:
        InputError: naming the picture, what is wrong with it and the limit it breaks.
    """
    with opened(data, name) as (image, kind, frames):
        if frames > 1 and reject_animated:
            raise InputError(f"the {kind} picture `{name}` is animated: it has {frames} frames, allowed is 1")
        image.load()
        orientation, notes = pillow.orientation(image)
        pixels = pillow.upright(pillow.rgb(image), orientation)
    if frames > 1:
        notes = (f"animated: used frame 1 of {frames}", *notes)
    return Picture(np.ascontiguousarray(pixels), notes)


def picture_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in pixels as the file has them, read without decoding it.

    Raises:
        InputError: as `decode_picture` does, as far as the header shows it.
    """
    with opened(data, name) as (image, _, _):
        width, height = image.size
    return width, height


@contextmanager
def opened(data: bytes, name: str) -> Iterator[tuple[ImageFile.ImageFile, str, int]]:
    """A picture within the limits, its kind and frames; nothing of it is decoded yet."""
    _check_length(len(data), name)
    kind = sniff(data)
    if kind is None:
        what = "is not a picture of a kind that mmedge reads" if data else "is empty"
        raise InputError(f"`{name}` {what}", hint=f"convert it to one of: {', '.join(MAGIC)}")
    with pillow.decoding(kind, name):
        header = read_header(data, kind)
        if header:
            check_size(header.width, header.height, name)
        image = pillow.open_kind(data, kind)
        check_size(*image.size, name)
        yield image, kind, header.frames if header else 1


def resize(pixels: np.ndarray, height: int, width: int, resample: int = BILINEAR) -> np.ndarray:
    """Scale uint8 ``[height, width, 3]`` with a Pillow filter, numbered as in ``PIL.Image.Resampling``.

    Raises:
        InputError: the result would have no pixels, or more than `PIXEL_LIMIT`.
    """
    from PIL import Image

    if height < 1 or width < 1 or height * width > PIXEL_LIMIT:
        raise InputError(
            f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels would be resized to {width}x{height}, "
            f"allowed are 1 to {PIXEL_LIMIT} pixels",
            hint="crop it to a less extreme shape",
        )
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample=Image.Resampling(resample)))


def center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle ``[height, width, 3]``, with black added around a picture that is smaller."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    below, right = height - pixels.shape[0] + top, width - pixels.shape[1] + left
    pixels = np.pad(pixels, ((max(0, -top), max(0, below)), (max(0, -left), max(0, right)), (0, 0)))
    return pixels[max(0, top) :, max(0, left) :][:height, :width]


def normalise(
    pixels: np.ndarray, mean: Sequence[float] | float = 0, std: Sequence[float] | float = 1, scale: float = 1 / 255
) -> np.ndarray:
    """``(pixels * scale - mean) / std`` of uint8 ``[height, width, 3]`` as float32 planes ``[1, 3, height, width]``.

    Bit for bit what the reference processors compute (product in float64, the rest in float32): a byte has 256 values,
    so the sum is done once for each and looked up.
    """
    values = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)[:, None]
    table = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    table = np.broadcast_to(table, (256, 3))
    return np.stack([table[:, channel].take(pixels[:, :, channel]) for channel in range(3)])[None]


def normalise_as(pixels: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """`normalise` by ``do_rescale``, ``do_normalize`` and what belongs to them, both done unless denied."""
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    if not settings.get("do_normalize", True):
        return normalise(pixels, scale=scale)
    return normalise(pixels, settings["image_mean"], settings["image_std"], scale)


# No constraints on the parts: msgspec 0.22 reads memory that is not its own where a union has a constrained number and
# a tuple of fixed length.
_Size: TypeAlias = "dict[str, int] | int"
_PerChannel: TypeAlias = "tuple[float, float, float] | float"


class _Settings(Struct, frozen=True):
    do_resize: bool
    do_rescale: bool
    do_normalize: bool
    do_center_crop: bool = False
    size: _Size = {}
    crop_size: _Size = {}
    default_to_square: bool | None = None
    resample: int = BILINEAR
    rescale_factor: float = 1 / 255
    image_mean: _PerChannel = 0.0
    image_std: _PerChannel = 1.0


# They describe the processor, its callers, or what every picture here already is.
_WITHOUT_EFFECT = {
    "_valid_processor_keys", "data_format", "device", "disable_grouping", "do_convert_rgb", "feature_extractor_type",
    "image_processor_type", "input_data_format", "processor_class", "return_tensors",
}  # fmt: skip


def preprocess(pixels: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Turn uint8 ``[height, width, 3]`` into float32 ``[1, 3, height, width]`` as a ``preprocessor_config.json`` says.

    ``do_resize``, ``do_rescale`` and ``do_normalize`` have to be said: what a checkpoint leaves out depends on its
    processor class, which is the family's to know.

    Raises:
        ModelError: the settings say too little, or something that this function cannot honour.
        InputError: the picture's shape makes the resized picture too large.
    """
    plan = _read_settings(settings)
    if plan.do_resize:
        pixels = resize(pixels, *_resized(plan, *pixels.shape[:2]), plan.resample)
    if plan.do_center_crop:
        pixels = center_crop(pixels, *_height_width("crop_size", plan.crop_size))
    scale = plan.rescale_factor if plan.do_rescale else 1
    mean, std = (plan.image_mean, plan.image_std) if plan.do_normalize else (0, 1)
    return normalise(pixels, mean, std, scale)


def _read_settings(settings: Mapping[str, Any]) -> _Settings:
    said = {key: value for key, value in settings.items() if value is not None and key not in _WITHOUT_EFFECT}
    for key in sorted(said.keys() - set(_Settings.__struct_fields__)):
        if said[key] is not False:
            raise ModelError(f"the picture setting `{key}` = {said[key]!r} is not supported")
    try:
        plan = msgspec.convert(said, _Settings)
    except msgspec.ValidationError as error:
        raise ModelError(f"picture settings: {error}") from error
    if plan.do_normalize and not {"image_mean", "image_std"} <= said.keys():
        raise ModelError("the picture settings normalise without saying `image_mean` and `image_std`")
    if not np.min(plan.image_std) > 0:
        raise ModelError(f"the picture setting `image_std` = {plan.image_std} cannot be divided by")
    if plan.resample not in range(6):
        raise ModelError(f"the picture setting `resample` = {plan.resample} is none of Pillow's filters 0 to 5")
    return plan


def _resized(plan: _Settings, height: int, width: int) -> tuple[int, int]:
    size = plan.size
    if isinstance(size, int):
        if plan.default_to_square is None:
            raise ModelError(f"the picture setting `size` = {size} does not say of which side")
        size = size if plan.default_to_square else {"shortest_edge": size}
    if isinstance(size, int) or size.keys() != {"shortest_edge"}:
        return _height_width("size", size)
    edge = size["shortest_edge"]
    return (edge, int(edge * width / height)) if height < width else (int(edge * height / width), edge)


def _height_width(name: str, size: dict[str, int] | int) -> tuple[int, int]:
    sides = {"height": size, "width": size} if isinstance(size, int) else size
    if sides.keys() != {"height", "width"} or not all(1 <= side <= SIDE_LIMIT for side in sides.values()):
        raise ModelError(
            f"the picture setting `{name}` = {size} is not supported",
            hint=f"height and width have to be said, each from 1 to {SIDE_LIMIT}",
        )
    return sides["height"], sides["width"]


def _check_length(length: int, name: str) -> None:
    if length > LENGTH_LIMIT:
        bound = f"{LENGTH_LIMIT} bytes ({LENGTH_LIMIT // 10**6} MB)"
        raise InputError(f"the picture `{name}` is {length} bytes long, allowed are {bound}")


def check_size(width: int, height: int, name: str) -> None:
    """Refuse what is larger than `PIXEL_LIMIT` or `SIDE_LIMIT`.

    Raises:
        InputError: naming the limit.
    """
    if width < 1 or height < 1:
        raise InputError(f"the picture `{name}` has no pixels: {width}x{height}")
    if max(width, height) > SIDE_LIMIT or width * height > PIXEL_LIMIT:
        raise InputError(
            f"the picture `{name}` has {width}x{height} pixels, "
            f"allowed are {PIXEL_LIMIT} in all and {SIDE_LIMIT} along a side",
            hint="make it smaller first",
        )
