"""Pillow as a decoder of files from strangers: opened by kind, its errors made ours, its colours made right."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from mmedge.errors import InputError, MmedgeError, ResourceError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

ORIENTATION = 0x0112
"""The EXIF tag."""


@contextmanager
def decoding(kind: str, name: str) -> Iterator[None]:
    """Pillow raises a dozen exception types, whose text may hold memory addresses; a user sees one of ours."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about metadata that nobody asked for
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except MmedgeError:
        raise
    except MemoryError as error:
        raise ResourceError(f"not enough memory to decode the {kind} picture `{name}`") from error
    except Exception as error:
        raise InputError(f"the {kind} picture `{name}` is truncated or damaged") from error


def open_kind(data: bytes, kind: str) -> ImageFile.ImageFile:
    """Read metadata only. By class, since `PIL.Image.open` does not name the size of a picture that it refuses."""
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    readers: dict[str, type[ImageFile.ImageFile]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
    }
    image = readers[kind](BytesIO(data))
    if kind == "PNG" and data[24] == 16 and isinstance(key := image.info.get("transparency"), tuple):
        # Pillow keeps the upper byte of deep samples, but compares it with the whole transparent colour.
        image.info["transparency"] = tuple(sample >> 8 for sample in key)
    return image


def orientation(image: ImageFile.ImageFile) -> tuple[object, tuple[str, ...]]:
    """The EXIF orientation, 1 to 8 unless the file is wrong, and a warning when it cannot be read."""
    try:
        return image.getexif().get(ORIENTATION), ()
    except Exception:  # damaged metadata raises almost anything, and is no reason to refuse a good picture
        return None, ("its EXIF data is damaged: the orientation is not known",)


def upright(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Undo an EXIF orientation; what is not 1 to 8 changes nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def rgb(image: Image.Image) -> np.ndarray:
    """uint8 ``[height, width, 3]``, transparent parts over white."""
    from PIL import Image, ImageChops

    if image.mode.startswith("I;16"):
        return _gray16(np.asarray(image), image.info.get("transparency"))
    if image.mode == "CMYK" and "adobe" not in image.info:
        # Only Adobe stores ink inverted; Pillow takes every four-colour JPEG for Adobe's.
        image = ImageChops.invert(image)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def _gray16(values: np.ndarray, transparent: int | None) -> np.ndarray:
    """Pillow's own conversion clips: every sample above 255 becomes white."""
    gray = (values >> 8).astype(np.uint8)
    if transparent is not None:
        gray[values == transparent] = 255
    return np.repeat(gray[:, :, None], 3, axis=2)
