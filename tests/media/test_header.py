from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmedge.media.header import Header, read_header, sniff


def saved(height: int, width: int, kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("RGB" if kind in ("JPEG", "BMP") else "RGBA").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "GIF"])
def test_the_first_bytes_tell_the_kind(kind: str):
    data = saved(4, 4, kind)
    assert sniff(data) == kind and sniff(data[:12]) == kind
    assert sniff(b"\0" + data) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (257, 129)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0"}], ids=str)
def test_a_webp_tells_its_canvas(size: tuple[int, int], options: dict[str, object]):
    height, width = size
    assert read_header(saved(height, width, "WebP", **options), "WebP") == Header(width, height, 1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_still_picture_has_one_frame(kind: str):
    assert read_header(saved(5, 9, kind), kind) == Header(9, 5, 1)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WebP"])
@pytest.mark.parametrize("frames", [2, 7])
def test_frames_are_counted(kind: str, frames: int):
    first, *others = (Image.new("RGB", (8, 6), (step * 30, 0, 0)) for step in range(frames))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others, duration=20)
    assert read_header(file.getvalue(), kind) == Header(8, 6, frames)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WebP"])
def test_a_file_that_ends_early_is_noticed_at_any_byte(kind: str):
    data = saved(7, 8, kind)
    for length in range(12, len(data)):
        with pytest.raises(Exception, match=r".") as caught:
            read_header(data[:length], kind)
        assert type(caught.value).__name__ in ("EOFError", "IndexError", "error", "ValueError")


def test_only_kinds_that_pillow_does_not_open_lazily_are_read():
    assert read_header(saved(4, 4, "JPEG"), "JPEG") is None
    assert read_header(saved(4, 4, "BMP"), "BMP") is None
