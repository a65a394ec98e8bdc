from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmedge.errors import InputError, UsageError
from mmedge.media import image as image_module
from mmedge.media import video as video_module
from mmedge.media.video import read_video, spaced

RATE = 10
"""Frames a second of films."""


def picture(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey, so that codecs keep it."""
    return np.full((height, width, 3), level, np.uint8)


def film(path: Path, count: int, *, key_every: int = 12, codec: str = "libx264") -> Path:
    """Each frame is 5 brighter than the one before, and B-frames make decoding order another than that of showing."""
    options = {} if codec == "libvpx" else {"bf": "2", "qmax": "2"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options={"g": str(key_every), **options})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 10_000_000
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(5 * index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def animated(path: Path, count: int, milliseconds: int) -> Path:
    first, *others = [Image.fromarray(picture(20 * index)) for index in range(count)]
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
    return path


def folder_of(path: Path, names: list[str]) -> Path:
    path.mkdir()
    for index, name in enumerate(names):
        Image.fromarray(picture(20 * index)).save(path / name)
    return path


def levels(video) -> list[int]:
    return [round(float(frame.mean())) for frame in video.frames]


@pytest.mark.parametrize("frames,count", [(8, 8), (3, 8), (9, 8), (100, 8), (31, 4), (7, 1)])
def test_frames_are_spaced_evenly_from_the_first_on(frames, count):
    """`BaseVideoProcessor.sample_frames` of transformers: ``arange(0, frames, frames / count)``, rounded down."""
    assert spaced(frames, count) == np.arange(0, frames, frames / min(frames, count)).astype(int).tolist()


def test_a_film_gives_its_frames_and_when_they_are_shown(tmp_path):
    video = read_video(film(tmp_path / "film.mp4", 40), 5)
    np.testing.assert_allclose(levels(video), [0, 40, 80, 120, 160], atol=3)
    np.testing.assert_allclose(video.seconds, [0, 0.8, 1.6, 2.4, 3.2], atol=1e-3)
    assert {frame.shape for frame in video.frames} == {(48, 64, 3)}


FILMS = [
    ("film.mp4", "libx264"),
    ("film.mov", "mpeg4"),
    ("film with spaces é%d.mkv", "libx264"),
    ("film.webm", "libvpx"),
    ("film.flv", "libx264"),
    ("film.ts", "libx264"),
    ("camera.ts", "mpeg2video"),
    ("film.mpg", "mpeg2video"),
    ("film.avi", "mpeg4"),
    ("other.avi", "libx264"),
]
"""Containers that tell when a frame is shown, and those that tell when it is decoded, or neither."""


@pytest.mark.parametrize("name,codec", FILMS)
@pytest.mark.parametrize("key_every", [1, 12, 300])
def test_every_frame_of_a_film_is_the_one_that_was_put_in(tmp_path, name, codec, key_every):
    path = film(tmp_path / name, 30, key_every=key_every, codec=codec)
    np.testing.assert_allclose(levels(read_video(path, 100)), np.arange(30) * 5, atol=2)
    np.testing.assert_allclose(levels(read_video(path, 4)), [0, 35, 75, 110], atol=2)


@pytest.mark.parametrize("name,codec", FILMS)
def test_when_frames_are_shown_is_known(tmp_path, name, codec):
    video = read_video(film(tmp_path / name, 30, codec=codec), 3)
    np.testing.assert_allclose(video.seconds, [0, 1, 2], atol=0.01)


def test_what_was_cut_away_at_the_beginning_is_not_shown(tmp_path):
    """Phones trim a film so: all of it stays in the file, with a list of what to show."""
    with av.open(str(film(tmp_path / "film.mp4", 40))) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        source = whole.streams.video[0]
        stream = cut.add_stream_from_template(source)
        begin = round(0.9 / source.time_base)
        for packet in whole.demux(source):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, stream
                cut.mux(packet)
    video = read_video(tmp_path / "cut.mp4", 100)
    np.testing.assert_allclose(levels(video), np.arange(9, 40) * 5, atol=2)
    assert video.seconds[0] == 0


QUARTERS = np.array([[250, 10], [90, 170]], np.uint8)
"""Levels of the four quarters of a picture."""
TURNED = {
    "upright": ((1, 0, 0, 1), QUARTERS),
    "a quarter to the right": ((0, 1, -1, 0), np.rot90(QUARTERS, -1)),
    "a quarter to the left": ((0, -1, 1, 0), np.rot90(QUARTERS)),
    "upside down": ((-1, 0, 0, -1), np.rot90(QUARTERS, 2)),
    "left and right changed": ((-1, 0, 0, 1), QUARTERS[:, ::-1]),
    "up and down changed": ((1, 0, 0, -1), QUARTERS[::-1]),
    "in a mirror and turned": ((0, 1, 1, 0), QUARTERS.T),
}
"""The matrix of ISO/IEC 14496-12 by which (x, y) becomes (a x + c y, b x + d y), and what then is seen."""


@pytest.mark.parametrize("matrix,want", TURNED.values(), ids=TURNED)
def test_a_film_of_a_camera_that_was_turned_is_upright(tmp_path, matrix, want):
    pixels = np.kron(QUARTERS, np.ones((24, 32), np.uint8))[:, :, None].repeat(3, 2)
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray((tmp_path / "film.mp4").read_bytes())
    a, b, c, d = (each << 16 for each in matrix)
    struct.pack_into(">5i", data, data.index(b"tkhd") + 44, a, b, 0, c, d)
    (tmp_path / "film.mp4").write_bytes(data)
    (frame,) = read_video(tmp_path / "film.mp4", 1).frames
    height, width = frame.shape[0] // 4, frame.shape[1] // 4
    seen = frame[[[height], [3 * height]], [width, 3 * width], 0]
    np.testing.assert_allclose(seen, want, atol=6)


def test_a_film_whose_frames_are_larger_than_it_says_is_refused(tmp_path, monkeypatch):
    small = film(tmp_path / "small.ts", 3).read_bytes()
    monkeypatch.setattr(image_module, "PIXEL_LIMIT", 48 * 64)
    with av.open(str(tmp_path / "large.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(9, 96, 128), format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "both.ts").write_bytes(small + (tmp_path / "large.ts").read_bytes())
    with pytest.raises(InputError, match=r"both.ts` has 128x96 pixels"):
        read_video(tmp_path / "both.ts", 100)


def test_frames_together_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "MOST_PIXELS", 4 * 48 * 64)
    path = film(tmp_path / "film.mp4", 9)
    assert len(read_video(path, 4).frames) == 4
    with pytest.raises(InputError, match=r"5 frames of the video `.*` have 15360 pixels, allowed are 12288 in all"):
        read_video(path, 5)


def test_an_animated_picture_gives_its_frames_and_when_they_are_shown(tmp_path):
    video = read_video(animated(tmp_path / "walk.gif", 6, 200), 3)
    assert levels(video) == [0, 40, 80]
    np.testing.assert_allclose(video.seconds, [0, 0.4, 0.8])


@pytest.mark.parametrize("ending", ["webp", "png"])
def test_other_animated_pictures_are_read_too(tmp_path, ending):
    video = read_video(animated(tmp_path / f"walk.{ending}", 4, 100), 8)
    np.testing.assert_allclose(levels(video), [0, 20, 40, 60], atol=1)


def test_what_a_video_is_does_not_depend_on_its_name(tmp_path):
    named = animated(tmp_path / "walk.gif", 3, 100).rename(tmp_path / "walk.mp4")
    assert levels(read_video(named, 8)) == [0, 20, 40]
    named = film(tmp_path / "film.mp4", 3).rename(tmp_path / "film.gif")
    np.testing.assert_allclose(levels(read_video(named, 8)), [0, 5, 10], atol=2)


def test_a_picture_for_programs_that_do_not_animate_is_no_frame(tmp_path):
    first, *others = [Image.fromarray(picture(20 * index)) for index in range(3)]
    first.save(tmp_path / "walk.png", save_all=True, append_images=others, duration=100, default_image=True)
    video = read_video(tmp_path / "walk.png", 8)
    assert levels(video) == [20, 40]
    np.testing.assert_allclose(video.seconds, [0, 0.1])


def test_an_animation_that_takes_minutes_to_draw_is_refused(tmp_path, monkeypatch):
    path = animated(tmp_path / "walk.gif", 5, 100)
    monkeypatch.setattr(video_module, "MOST_DRAWN", 3 * 48 * 64)
    assert len(read_video(path, 1).frames) == 1
    with pytest.raises(InputError, match="has 12288 pixels up to the last frame that is wanted, allowed are 9216"):
        read_video(path, 4)


def test_a_still_picture_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(picture(7)).save(tmp_path / "still.png")
    video = read_video(tmp_path / "still.png", 8)
    assert (levels(video), video.seconds) == ([7], ())


def test_frames_of_a_folder_are_ordered_by_number(tmp_path):
    folder = folder_of(tmp_path / "frames", ["shot9.png", "shot10.png", "shot11.png", "shot100.png"])
    video = read_video(folder, 8)
    assert (levels(video), video.seconds) == ([0, 20, 40, 60], ())


@pytest.mark.parametrize("alone", [True, False])
def test_a_picture_that_was_turned_is_upright(tmp_path, alone):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(9)).save(path, exif=exif)
    assert read_video(path if alone else tmp_path, 1).frames[0].shape == (64, 48, 3)


def test_hidden_files_and_folders_are_no_frames(tmp_path):
    folder = folder_of(tmp_path / "frames", ["a.png", "._a.png"])
    (folder / "b.png").mkdir()
    assert levels(read_video(folder, 8)) == [0]


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(tmp_path, count):
    with pytest.raises(UsageError, match=f"^{count} frames of a video are asked for, it must be at least 1$"):
        read_video(tmp_path, count)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no pictures"):
        read_video(tmp_path, 8)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the video `.*gone.mp4`: no such file"):
        read_video(tmp_path / "gone.mp4", 8)


def test_what_the_system_refuses_is_named(tmp_path):
    with pytest.raises(InputError, match="file name too long"):
        read_video(tmp_path / ("a" * 300), 8)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        read_video(tmp_path / "pipe", 8)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "notes.mp4").write_text("nothing to see")
    with pytest.raises(InputError, match=r"cannot read the video `.*notes.mp4`: invalid data"):
        read_video(tmp_path / "notes.mp4", 8)


def test_a_list_of_other_files_is_no_video(tmp_path):
    """FFmpeg knows formats that name files and addresses, which it would open."""
    film(tmp_path / "secret.mp4", 3)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(InputError, match="cannot read the video"):
        read_video(tmp_path / "list.mp4", 8)


def test_a_file_with_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="has no video"):
        read_video(tmp_path / "song.mp4", 8)


@pytest.mark.parametrize("share", [0.7, 0.95])
def test_of_a_film_that_was_cut_off_what_is_there_is_spaced(tmp_path, share):
    whole = film(tmp_path / "film.mkv", 40).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * share)])
    every = levels(read_video(tmp_path / "cut.mkv", 100))
    whole_group = len(every) - 2  # of the last one some lack that are shown before it
    assert whole_group > 8
    np.testing.assert_allclose(every[:whole_group], np.arange(whole_group) * 5, atol=2)
    some = read_video(tmp_path / "cut.mkv", 4)
    np.testing.assert_allclose(levels(some), [every[index] for index in spaced(len(every), 4)], atol=2)


def test_a_film_that_ends_before_its_first_frame_is_refused(tmp_path):
    (tmp_path / "cut.mkv").write_bytes(film(tmp_path / "film.mkv", 40).read_bytes()[:400])
    with pytest.raises(InputError, match=r"cut\.mkv"):
        read_video(tmp_path / "cut.mkv", 4)
