from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmedge.errors import InputError, UsageError
from mmedge.media.video import read_video, spaced

RATE = 10
"""Frames a second of films."""


def picture(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey, so that codecs keep it."""
    return np.full((height, width, 3), level, np.uint8)


def film(path: Path, count: int, *, key_every: int = 12) -> Path:
    """Each frame is 5 brighter than the one before, and B-frames make decoding order another than that of showing."""
    behind = "0" if path.suffix == ".avi" else "2"  # AVI does not say when frames are shown that were decoded before
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"g": str(key_every), "bf": behind, "qmax": "2"})
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


@pytest.mark.parametrize("count,most", [(8, 8), (3, 8), (9, 8), (100, 8), (31, 4), (7, 1)])
def test_frames_are_spaced_as_the_processors_of_transformers_do(count, most):
    want = np.arange(0, count, count / min(count, most)).astype(int).tolist()
    assert spaced(count, most) == want


def test_a_film_gives_its_frames_and_when_they_are_shown(tmp_path):
    video = read_video(film(tmp_path / "film.mp4", 40), 5)
    np.testing.assert_allclose(levels(video), [0, 40, 80, 120, 160], atol=3)
    np.testing.assert_allclose(video.seconds, [0, 0.8, 1.6, 2.4, 3.2], atol=1e-3)
    assert {frame.shape for frame in video.frames} == {(48, 64, 3)}


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi", "film with spaces é%d.mov"])
@pytest.mark.parametrize("key_every", [1, 12, 300])
def test_every_frame_of_a_film_is_the_one_that_was_put_in(tmp_path, name, key_every):
    video = read_video(film(tmp_path / name, 30, key_every=key_every), 100)
    np.testing.assert_allclose(levels(video), np.arange(30) * 5, atol=2)


def test_an_animated_picture_gives_its_frames_and_when_they_are_shown(tmp_path):
    video = read_video(animated(tmp_path / "walk.gif", 6, 200), 3)
    assert levels(video) == [0, 40, 80]
    np.testing.assert_allclose(video.seconds, [0, 0.4, 0.8])


@pytest.mark.parametrize("ending", ["webp", "png"])
def test_other_animated_pictures_are_read_too(tmp_path, ending):
    video = read_video(animated(tmp_path / f"walk.{ending}", 4, 100), 8)
    np.testing.assert_allclose(levels(video), [0, 20, 40, 60], atol=1)


def test_an_animated_picture_is_known_whatever_its_name_ends_in(tmp_path):
    named = animated(tmp_path / "walk.gif", 3, 100).rename(tmp_path / "walk")
    assert levels(read_video(named, 8)) == [0, 20, 40]


def test_a_still_picture_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(picture(7)).save(tmp_path / "still.png")
    video = read_video(tmp_path / "still.png", 8)
    assert (levels(video), video.seconds) == ([7], ())


def test_frames_of_a_folder_are_ordered_by_number(tmp_path):
    folder = folder_of(tmp_path / "frames", ["shot9.png", "shot10.png", "shot11.png", "shot100.png"])
    video = read_video(folder, 8)
    assert (levels(video), video.seconds) == ([0, 20, 40, 60], ())


def test_a_picture_that_was_turned_is_upright_in_a_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(9)).save(tmp_path / "frames" / "a.jpg", exif=exif)
    assert read_video(tmp_path / "frames", 1).frames[0].shape == (64, 48, 3)


@pytest.mark.parametrize("most", [0, -3])
def test_a_count_below_one_is_refused(tmp_path, most):
    with pytest.raises(UsageError, match=f"^{most} frames of a video are asked for, it must be at least 1$"):
        read_video(tmp_path, most)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no pictures"):
        read_video(tmp_path, 8)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the video `.*gone.mp4`: there is no such file"):
        read_video(tmp_path / "gone.mp4", 8)


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
    with pytest.raises(InputError, match="has no video, only sound"):
        read_video(tmp_path / "song.mp4", 8)


def test_a_film_that_was_cut_off_says_so_or_gives_what_is_there(tmp_path):
    whole = film(tmp_path / "film.mkv", 40).read_bytes()
    for share in (0.02, 0.3, 0.7, 0.95):
        (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * share)])
        try:
            video = read_video(tmp_path / "cut.mkv", 4)
        except InputError as error:
            assert "cut.mkv" in error.message
        else:
            assert 1 <= len(video.frames) <= 4
