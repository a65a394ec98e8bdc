from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from mmedge.errors import InputError
from mmedge.media import image as image_module
from mmedge.media.image import LENGTH_LIMIT, decode_picture, read_picture, read_stream

NAME = "shot.png"
KINDS = ("JPEG", "PNG", "WebP", "BMP", "GIF")


def noise(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int = 32, width: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4 + 20, columns * 3 + 30, 200 - rows - columns], axis=2).astype(np.uint8)


def saved(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples: np.ndarray, colour: int, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A PNG of ``samples`` [height, width, channels]: 16-bit ones are more than Pillow can write."""
    height, width = size or samples.shape[:2]
    depth = 8 * samples.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gif(frames: int = 1, screen: tuple[int, int] = (1, 1), frame: tuple[int, int] = (1, 1), control: int = 0) -> bytes:
    """Black frames of one pixel's data; the file claims sizes as told."""
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    extension = b"\x21\xf9\x04" + bytes([control, 1, 0, 0]) + b"\0"
    one = extension + b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00"
    return start + one * frames + b"\x3b"


def refused(data: bytes, **options: bool) -> str:
    """The message with which a picture is refused; it has to be fit for a user."""
    with pytest.raises(InputError) as caught:
        decode_picture(data, NAME, **options)
    message = caught.value.message
    assert caught.value.exit_code == 3
    assert f"`{NAME}`" in message
    assert " at 0x" not in message and " object" not in message and "\n" not in message
    assert not message.endswith(".")
    return message


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(self: ImageFile.ImageFile) -> None:
        raise AssertionError("the decoder was reached")

    modules = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
    for module, kind in zip(modules, ("Bmp", "Gif", "Jpeg", "Png", "WebP"), strict=True):
        monkeypatch.setattr(getattr(module, f"{kind}ImageFile"), "load", reached)


class TestReading:
    def test_the_bytes_of_a_file_come_back(self, tmp_path: Path):
        (tmp_path / "a.png").write_bytes(b"abc")
        assert read_picture(tmp_path / "a.png") == b"abc"

    def test_a_link_to_a_file_is_followed(self, tmp_path: Path):
        (tmp_path / "a.png").write_bytes(b"abc")
        (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
        assert read_picture(tmp_path / "b.png") == b"abc"

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
    def test_what_is_no_regular_file_is_refused_without_waiting(self, tmp_path: Path, make: Callable[[Path], None]):
        make(tmp_path / NAME)
        with pytest.raises(InputError, match=r"shot.png` is not a regular file"):
            read_picture(tmp_path / NAME)

    @pytest.mark.parametrize("name", ["missing.png", "missing/shot.png", "nul\0.png", "x" * 300])
    def test_a_path_that_leads_nowhere_is_named(self, tmp_path: Path, name: str):
        with pytest.raises(InputError, match=r"cannot read the picture `.*`: [a-z ]+$"):
            read_picture(tmp_path / name)

    def test_an_oversized_file_is_refused_unread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = tmp_path / NAME
        with path.open("wb") as file:
            file.truncate(LENGTH_LIMIT + 1)
        monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the file was opened"))
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=r"20000001 bytes long, allowed are 20000000 bytes \(20 MB\)"):
                read_picture(path)
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()

    def test_a_file_of_exactly_the_limit_is_read(self, tmp_path: Path):
        with (tmp_path / NAME).open("wb") as file:
            file.truncate(LENGTH_LIMIT)
        assert len(read_picture(tmp_path / NAME)) == LENGTH_LIMIT

    def test_a_file_that_grows_while_it_is_read_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / NAME).write_bytes(b"abc")
        monkeypatch.setattr(Path, "open", lambda *_: io.BytesIO(bytes(LENGTH_LIMIT + 5)))
        with pytest.raises(InputError, match="allowed are"):
            read_picture(tmp_path / NAME)

    def test_of_an_endless_pipe_no_more_than_the_limit_is_taken(self):
        class Endless(io.RawIOBase):
            taken = 0

            def read(self, size: int = -1) -> bytes:
                assert 0 <= size <= LENGTH_LIMIT + 1
                self.taken += size
                return bytes(size)

        pipe = Endless()
        with pytest.raises(InputError, match="the picture `stdin` is"):
            read_stream(pipe, "stdin")
        assert pipe.taken == LENGTH_LIMIT + 1

    def test_bytes_over_the_limit_are_refused_before_anything_looks_at_them(self, no_decoding: None):
        data = saved(noise(), "PNG")
        assert "20000001 bytes" in refused(data + bytes(LENGTH_LIMIT + 1 - len(data)))


class TestKinds:
    @pytest.mark.parametrize("kind", KINDS)
    def test_five_kinds_are_read_whatever_they_are_called(self, kind: str):
        options = {"lossless": True} if kind == "WebP" else {}
        picture = decode_picture(saved(smooth(), kind, **options), "picture.xyz")
        assert picture.pixels.shape == (32, 48, 3) and picture.pixels.dtype == np.uint8
        assert picture.pixels.flags.c_contiguous and picture.warnings == ()

    DISGUISED = ("TIFF", "EPS", "PPM", "PCX", "TGA", "ICO", "DDS", "PDF", "SGI")

    @pytest.mark.parametrize("kind", DISGUISED)
    def test_other_kinds_are_refused_under_a_false_name(self, kind: str, no_decoding: None):
        assert refused(saved(noise(), kind)) == "`shot.png` is not a picture of a kind that mmedge reads"

    def test_a_float_tiff_is_refused(self):
        refused(saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))

    @pytest.mark.parametrize(
        "data",
        [
            b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(300),
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
            b"\0\0\0\x1cftypavif" + bytes(40),
        ],
        ids=["psd", "svg", "wave", "avif"],
    )
    def test_other_files_are_refused_under_a_false_name(self, data: bytes):
        assert refused(data) == "`shot.png` is not a picture of a kind that mmedge reads"

    def test_an_empty_file_is_called_empty(self):
        assert refused(b"") == "`shot.png` is empty"

    def test_the_hint_lists_the_kinds(self):
        with pytest.raises(InputError) as caught:
            decode_picture(b"?", NAME)
        assert caught.value.hint == "convert it to one of: JPEG, PNG, WebP, BMP, GIF"

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_follows_the_picture_in_the_file_changes_nothing(self, kind: str):
        data = saved(noise(), kind)
        plain, polyglot = (decode_picture(file, NAME) for file in (data, data + b"PK\3\4 an archive follows"))
        assert np.array_equal(plain.pixels, polyglot.pixels)

    def test_two_pictures_in_one_jpeg_are_a_photo_not_an_animation(self):
        data = saved(smooth(), "MPO", save_all=True, append_images=[Image.fromarray(noise(32, 48))])
        picture = decode_picture(data, "photo.jpg", reject_animated=True)
        assert picture.warnings == () and np.abs(picture.pixels.astype(int) - smooth()).mean() < 3


class TestTruncation:
    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_cut_file_is_refused(self, kind: str, share: float):
        data = saved(noise(64, 80), kind)
        message = refused(data[: int(len(data) * share)])
        assert share < 0.1 or message == f"the {kind} picture `{NAME}` is truncated or damaged"

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_missing_byte_is_enough(self, kind: str):
        refused(saved(smooth(), kind)[:-1])

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "WebP"])
    def test_an_animation_cut_after_its_first_frame_is_refused(self, kind: str):
        frames = [Image.fromarray(np.roll(noise(), step, 1)) for step in range(3)]
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        refused(data[: len(data) * 2 // 3])

    def test_pillow_is_not_told_to_fill_in_what_is_missing(self):
        decode_picture(saved(noise(), "JPEG"), NAME)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    @settings(max_examples=300, deadline=None)
    @given(kind=st.sampled_from(KINDS), where=st.lists(st.integers(0, 10_000), min_size=1, max_size=6), data=st.data())
    def test_damage_gives_a_picture_or_a_clean_refusal(self, kind: str, where: list[int], data: st.DataObject):
        damaged = bytearray(saved(noise(6, 9), kind))
        for position in where:
            damaged[position % len(damaged)] = data.draw(st.integers(0, 255))
        try:
            assert decode_picture(bytes(damaged), NAME).pixels.dtype == np.uint8
        except InputError:
            refused(bytes(damaged))


def huge_png(width: int = 20_000, height: int = 20_000) -> bytes:
    """A true one-bit PNG, made row by row."""
    pack = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def claims(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims a size."""
    if kind == "PNG":
        return png(np.zeros((1, 1, 3), np.uint8), colour=2, size=(height, width))
    if kind == "GIF":
        return gif(screen=(width, height), frame=(width, height), control=2 << 2 | 1)
    data = bytearray(saved(noise(8, 8), kind, **({"lossless": True} if kind == "WebP" else {})))
    if kind == "WebP":
        struct.pack_into("<I", data, 21, width - 1 | height - 1 << 14)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, width, height)
    else:
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


TOO_LARGE = ((20_000, 20_000), (16_385, 1), (1, 16_385), (6_325, 6_325), (60_000, 60_000))


class TestSizes:
    @pytest.mark.parametrize(
        ("kind", "size"),
        [(kind, size) for kind in KINDS if kind != "WebP" for size in TOO_LARGE]
        + [("WebP", size) for size in ((16_383, 16_383), (6_325, 6_325))],
    )
    def test_too_many_pixels_are_refused_from_the_header(self, kind: str, size: tuple[int, int], no_decoding: None):
        message = refused(claims(kind, *size))
        assert message == (
            f"the picture `shot.png` has {size[0]}x{size[1]} pixels, allowed are 40000000 in all and 16384 along a side"
        )

    @pytest.mark.parametrize("size", [(16_384, 2_441), (6_324, 6_324)])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
    def test_sizes_within_the_limits_reach_the_decoder(self, kind: str, size: tuple[int, int], no_decoding: None):
        with pytest.raises(InputError) as caught:
            decode_picture(claims(kind, *size), NAME)
        assert isinstance(caught.value.__cause__, AssertionError)

    def test_a_longest_side_is_decoded(self):
        assert decode_picture(huge_png(16_384, 3), NAME).pixels.shape == (3, 16_384, 3)

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "WebP"])
    def test_kinds_for_which_pillow_allocates_while_opening_are_refused_before_it_opens_them(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(image_module.pillow, "open_kind", lambda *_: pytest.fail("opened"))
        assert "allowed are" in refused(claims(kind, 16_000, 16_000))

    def test_a_second_header_in_a_png_is_refused_unopened(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(image_module.pillow, "open_kind", lambda *_: pytest.fail("opened"))
        second = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
        data = png(np.zeros((1, 1, 3), np.uint8), colour=2, extra=second)
        assert refused(data) == "the PNG picture `shot.png` is truncated or damaged"

    def test_a_gif_frame_that_reaches_over_its_screen_counts(self, no_decoding: None):
        assert "has 10000x9000 pixels" in refused(gif(screen=(10, 9_000), frame=(10_000, 20)))

    def test_a_gif_frame_that_is_not_used_does_not_count(self):
        start = len(gif(frames=0)) - 1
        data = gif()[:-1] + gif(frame=(20_000, 20_000))[start:]
        picture = decode_picture(data, NAME)
        assert picture.pixels.shape == (1, 1, 3) and picture.warnings == ("animated: used frame 1 of 2",)

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
    def test_a_picture_without_pixels_is_refused(self, kind: str):
        message = refused(claims(kind, 0, 5))
        assert kind != "PNG" or message == "the picture `shot.png` has no pixels: 0x5"

    def test_refusing_a_huge_picture_takes_no_memory(self, tmp_path: Path):
        files = {kind: claims(kind, 16_000, 16_000) for kind in KINDS} | {"bits": huge_png()}
        assert len(files["bits"]) < 50_000
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        script = """
import pathlib, resource, sys
from mmedge.errors import InputError
from mmedge.media.image import decode_picture, read_picture
def refuse(path):
    try:
        decode_picture(read_picture(path), "x")
    except InputError as error:
        assert "allowed are" in error.message, error.message
        return
    raise SystemExit("not refused")
paths = sorted(pathlib.Path(sys.argv[1]).iterdir())
decode_picture(pathlib.Path(sys.argv[2]).read_bytes(), "x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    refuse(path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
        (tmp_path.parent / "small.png").write_bytes(saved(noise(), "PNG"))
        command = [sys.executable, "-c", script, str(tmp_path), str(tmp_path.parent / "small.png")]
        grown_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert grown_kib < 16 * 1024

    def test_a_limit_of_pillow_is_an_error_not_a_warning(self, monkeypatch: pytest.MonkeyPatch):
        data = gif(screen=(4, 4), frame=(4, 4), control=2 << 2)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(InputError) as caught:
                decode_picture(data, NAME)
        assert isinstance(caught.value.__cause__, Image.DecompressionBombWarning) and not seen


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that writes this orientation has turned the picture (Pillow turns counter-clockwise)."""


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "WebP", "JPEG"])
    def test_pictures_come_upright(self, kind: str, orientation: int):
        upright = Image.fromarray(smooth())
        stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
        options = {"JPEG": {"quality": 100, "subsampling": 0}, "WebP": {"lossless": True}, "PNG": {}}[kind]
        picture = decode_picture(saved(stored, kind, exif=exif(orientation), **options), NAME)
        expected = decode_picture(saved(upright, kind, **options), NAME).pixels
        assert np.abs(picture.pixels.astype(int) - expected).max() <= (2 if kind == "JPEG" else 0)
        assert picture.warnings == () and picture.pixels.flags.c_contiguous

    @pytest.mark.parametrize("orientation", [0, 9, 65_535])
    def test_an_orientation_that_does_not_exist_changes_nothing(self, orientation: int):
        picture = decode_picture(saved(smooth(), "PNG", exif=exif(orientation)), NAME)
        assert np.array_equal(picture.pixels, smooth())

    @pytest.mark.parametrize("kind", ["PNG", "WebP", "JPEG"])
    def test_damaged_exif_data_is_no_reason_to_refuse_a_picture(self, kind: str):
        picture = decode_picture(saved(smooth(), kind, exif=b"Exif\0\0garbage that is no TIFF"), NAME)
        assert picture.pixels.shape == (32, 48, 3)
        # Pillow drops that of a JPEG while it opens it.
        warned = ("its EXIF data is damaged: the orientation is not known",)
        assert picture.warnings == (() if kind == "JPEG" else warned)


def test_pillows_own_remarks_reach_nobody():
    tags = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 3, 9_000, 8_000)
    data = saved(smooth(), "PNG", exif=tags)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(data)) as image:
            dict(image.getexif())
        assert seen, "Pillow has nothing to say about this file any more: find another"
        seen.clear()
        assert decode_picture(data, NAME).pixels.shape == (32, 48, 3) and not seen


def ink(picture: np.ndarray) -> np.ndarray:
    """CMYK of an RGB picture, with some of the gray moved to black ink."""
    cmy = 255 - picture.astype(int)
    black = cmy.min(axis=2, keepdims=True) // 2
    return np.concatenate([(cmy - black) * 255 // (255 - black), black], axis=2).astype(np.uint8)


def jpeg_of_four(stored: np.ndarray, transform: int | None, **options: object) -> bytes:
    """A JPEG that holds exactly the components ``stored``; Pillow inverts what it writes, so it gets the inverse."""
    data = saved(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=95, **options)
    start = data.index(b"\xff\xee")
    length = struct.unpack_from(">H", data, start + 2)[0] + 2
    segment = b"" if transform is None else data[start : start + length - 1] + bytes([transform])
    return data[:start] + segment + data[start + length :]


class TestInk:
    def test_a_plain_cmyk_jpeg_holds_ink(self):
        assert self.difference(jpeg_of_four(ink(smooth()), transform=None)) <= 8

    def test_an_adobe_cmyk_jpeg_holds_the_lack_of_ink(self):
        assert self.difference(jpeg_of_four(255 - ink(smooth()), transform=0)) <= 8

    @pytest.mark.parametrize("progressive", [False, True])
    def test_an_adobe_ycck_jpeg_holds_luma_and_black(self, progressive: bool):
        inks = ink(smooth())
        luma = np.asarray(Image.fromarray(inks[:, :, :3]).convert("YCbCr"))
        stored = np.concatenate([luma, 255 - inks[:, :, 3:]], axis=2)
        assert self.difference(jpeg_of_four(stored, transform=2, progressive=progressive)) <= 8

    @staticmethod
    def difference(data: bytes) -> float:
        return float(np.abs(decode_picture(data, NAME).pixels.astype(int) - smooth()).mean())


RAMP = np.linspace(0, 65_535, 24).astype(np.uint16)


class TestDeepSamples:
    def test_gray_keeps_the_upper_byte(self):
        pixels = decode_picture(png(RAMP.reshape(4, 6, 1), colour=0), NAME).pixels
        assert np.array_equal(pixels, np.repeat((RAMP >> 8).reshape(4, 6, 1), 3, axis=2))

    def test_rgb_keeps_the_upper_byte(self):
        pixels = decode_picture(png(RAMP.reshape(2, 4, 3), colour=2), NAME).pixels
        assert np.array_equal(pixels, (RAMP >> 8).reshape(2, 4, 3))

    def test_a_deep_picture_looks_like_its_shallow_version(self):
        deep = smooth().astype(np.uint16) * 257
        for samples, colour in ((deep, 2), (deep[:, :, :1], 0)):
            pixels = decode_picture(png(samples, colour), NAME).pixels
            assert np.abs(pixels.astype(int) - np.rint(samples / 257)).max() <= 1

    @pytest.mark.parametrize("colour", [4, 6])
    def test_deep_alpha_composites_as_its_upper_byte_does(self, colour: int):
        samples = RAMP.reshape(2, -1, {4: 2, 6: 4}[colour])
        deep = decode_picture(png(samples, colour), NAME)
        shallow = decode_picture(png((samples >> 8).astype(np.uint8), colour), NAME)
        assert np.array_equal(deep.pixels, shallow.pixels)

    def test_a_transparent_deep_gray_shows_white(self):
        samples = np.array([[[1000], [1001], [40_000]]], np.uint16)
        data = png(samples, colour=0, extra=chunk(b"tRNS", struct.pack(">H", 1000)))
        assert decode_picture(data, NAME).pixels[0, :, 0].tolist() == [255, 3, 156]

    def test_a_transparent_deep_colour_shows_white(self):
        samples = np.array([[[1000, 2000, 3000], [9000, 2000, 3000]]], np.uint16)
        data = png(samples, colour=2, extra=chunk(b"tRNS", struct.pack(">HHH", 1000, 2000, 3000)))
        assert decode_picture(data, NAME).pixels[0].tolist() == [[255, 255, 255], [35, 7, 11]]


class TestTransparency:
    """Golden pixels: transparent parts over white."""

    def pixels(self, data: bytes) -> list[list[int]]:
        return decode_picture(data, NAME).pixels[0].tolist()

    def test_rgba(self):
        samples = np.array([[[200, 100, 0, 255], [200, 100, 0, 128], [200, 100, 0, 0]]], np.uint8)
        expected = [[200, 100, 0], [227, 177, 127], [255, 255, 255]]
        assert self.pixels(saved(Image.fromarray(samples), "PNG")) == expected
        assert self.pixels(saved(Image.fromarray(samples), "WebP", lossless=True, exact=True)) == expected

    def test_gray_and_alpha(self):
        samples = np.array([[[50, 255], [50, 51], [50, 0]]], np.uint8)
        assert self.pixels(png(samples, colour=4)) == [[50] * 3, [214] * 3, [255] * 3]

    def palette(self) -> Image.Image:
        image = Image.new("P", (3, 1))
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        image.putdata([0, 1, 2])
        return image

    def test_palette_with_one_transparent_colour(self):
        expected = [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
        assert self.pixels(saved(self.palette(), "PNG", transparency=1)) == expected
        assert self.pixels(saved(self.palette(), "GIF", transparency=1)) == expected

    def test_palette_with_graded_transparency(self):
        expected = [[255, 0, 0], [127, 255, 127], [255, 255, 255]]
        assert self.pixels(saved(self.palette(), "PNG", transparency=bytes([255, 128, 0]))) == expected

    def test_gray_with_a_transparent_level(self):
        data = png(np.array([[[7], [8]]], np.uint8), colour=0, extra=chunk(b"tRNS", struct.pack(">H", 7)))
        assert self.pixels(data) == [[255] * 3, [8] * 3]

    def test_rgb_with_a_transparent_colour(self):
        samples = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8)
        data = png(samples, colour=2, extra=chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
        assert self.pixels(data) == [[255, 255, 255], [1, 2, 4]]

    @pytest.mark.parametrize("kind", ["PNG", "BMP"])
    def test_one_bit(self, kind: str):
        image = Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).convert("1")
        assert self.pixels(saved(image, kind)) == [[0] * 3, [255] * 3, [255] * 3, [0] * 3]


class TestAnimation:
    def animation(self, kind: str) -> bytes:
        frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
        options = {"lossless": True} if kind == "WebP" else {}
        return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)

    @pytest.mark.parametrize("kind", ["GIF", "WebP", "PNG"])
    def test_the_first_frame_is_used_and_said_so(self, kind: str):
        picture = decode_picture(self.animation(kind), NAME)
        assert picture.warnings == ("animated: used frame 1 of 3",)
        assert (picture.pixels == [255, 0, 0]).all()

    @pytest.mark.parametrize("kind", ["GIF", "WebP", "PNG"])
    def test_animations_can_be_refused(self, kind: str, no_decoding: None):
        message = refused(self.animation(kind), reject_animated=True)
        assert message == f"the {kind} picture `shot.png` is animated: it has 3 frames, allowed is 1"

    @pytest.mark.parametrize("kind", KINDS)
    def test_still_pictures_are_not_refused_as_animated(self, kind: str):
        assert decode_picture(saved(noise(), kind), NAME, reject_animated=True).warnings == ()

    def test_a_still_picture_before_the_animation_of_a_png_is_the_first_frame(self):
        still, *frames = (Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue"))
        data = saved(still, "PNG", save_all=True, append_images=frames, default_image=True)
        picture = decode_picture(data, NAME)
        assert picture.warnings == ("animated: used frame 1 of 3",) and (picture.pixels == [255, 0, 0]).all()

    def test_ten_thousand_frames_are_counted_without_pillow(self, monkeypatch: pytest.MonkeyPatch):
        loads = []
        load = GifImagePlugin.GifImageFile.load_end
        for name in ("n_frames", "is_animated", "seek"):
            monkeypatch.setattr(GifImagePlugin.GifImageFile, name, property(lambda _: pytest.fail("frames walked")))
        monkeypatch.setattr(GifImagePlugin.GifImageFile, "load_end", lambda self: (loads.append(1), load(self)))
        picture = decode_picture(gif(frames=10_000), NAME)
        assert picture.warnings == ("animated: used frame 1 of 10000",) and len(loads) == 1


def test_the_same_pixels_in_another_container_are_the_same_picture():
    files = [saved(noise(), "PNG"), saved(noise(), "BMP"), saved(noise(), "WebP", lossless=True)]
    for data in files:
        assert np.array_equal(decode_picture(data, NAME).pixels, noise())
