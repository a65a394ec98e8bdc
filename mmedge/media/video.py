"""Videos: some of their frames, evenly spaced, and when each is shown.

A video is a folder of pictures in the order of the numbers in their names, an animated picture, or a file that PyAV
opens; of such a file only the frames between the key frame before and each wanted one are decoded. Which frames are
taken is what the processors of `transformers` take for `num_frames`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from mmedge.core.samples import PICTURES
from mmedge.errors import InputError, UsageError
from mmedge.media import pillow
from mmedge.media.header import sniff
from mmedge.media.image import check_size, decode_picture, opened, read_picture
from mmedge.needs import needs

if TYPE_CHECKING:
    from av.container import InputContainer

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf"
"""What FFmpeg may take a file for: none of the formats that name other files, or addresses."""


class Video(Struct, frozen=True):
    """Frames of a video: uint8 ``[height, width, 3]``, upright, RGB."""

    frames: tuple[np.ndarray, ...]
    seconds: tuple[float, ...] = ()
    """When each is shown, from the beginning; empty where nobody knows."""
    warnings: tuple[str, ...] = ()


def read_video(path: Path | str, most: int) -> Video:
    """``most`` frames of a video, evenly spaced; all of a shorter one.

    Raises:
        UsageError: ``most`` is less than 1.
        InputError: it is none, is damaged, or its frames are too large.
        BackendError: PyAV is not installed, which this kind of file needs.
    """
    path = Path(path)
    if most < 1:
        raise UsageError(f"{most} frames of a video are asked for, it must be at least 1")
    if path.is_dir():
        return _of_folder(path, most)
    if path.suffix.lower() in PICTURES:
        return _of_picture(path, most)
    return _of_film(path, most)


def spaced(count: int, most: int) -> list[int]:
    """Which of ``count`` frames are taken."""
    return [int(index * count / most) for index in range(most)] if count > most else list(range(count))


def _of_folder(folder: Path, most: int) -> Video:
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in PICTURES), key=_by_numbers)
    if not files:
        raise InputError(f"the folder `{folder}` has no pictures", hint=f"looked for {', '.join(PICTURES)}")
    pictures = [decode_picture(read_picture(files[index]), str(files[index])) for index in spaced(len(files), most)]
    notes = tuple(note for picture in pictures for note in picture.warnings)
    return Video(tuple(picture.pixels for picture in pictures), warnings=notes)


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """So that frame 10 comes behind frame 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name) if part]


def _of_picture(path: Path, most: int) -> Video:
    """Of an animated picture, each frame as it is shown."""
    with opened(read_picture(path), str(path)) as (image, _, count):
        wanted, frames, seconds, now = set(spaced(count, most)), [], [], 0.0
        for index in range(max(wanted) + 1):
            image.seek(index)
            image.load()
            if index in wanted:
                frames.append(np.ascontiguousarray(pillow.rgb(image)))
                seconds.append(now)
            now += image.info.get("duration", 0) / 1e3
    return Video(tuple(frames), tuple(seconds) if now else ())


def _of_film(path: Path, most: int) -> Video:
    if not path.is_file():
        raise InputError(f"cannot read the video `{path}`: there is no such file")
    with path.open("rb") as file:
        if sniff(file.read(64)):
            return _of_picture(path, most)
    with needs("video"):
        import av
    try:
        with av.open(f"file:{path}", options={"format_whitelist": CONTAINERS}) as container:
            return _decoded(container, str(path), most)
    except av.error.FFmpegError as error:
        reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
        raise InputError(f"cannot read the video `{path}`: {reason}") from error


def _decoded(container: InputContainer, name: str, most: int) -> Video:
    if not container.streams.video:
        raise InputError(f"`{name}` has no video, only sound")
    stream = container.streams.video[0]
    check_size(stream.width, stream.height, name)
    shown = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None]
    times, keys = sorted(time for time, _ in shown), [time for time, is_key in shown if is_key]
    if not times:
        raise InputError(f"the video `{name}` has no frames")
    wanted = [times[index] for index in spaced(len(times), most)]
    frames = tuple(_pixels(frame) for frame in _at(container, stream, wanted, keys))
    if len(frames) < len(wanted):
        raise InputError(f"the video `{name}` is damaged: no frame can be decoded")
    tick = stream.time_base or 0
    return Video(frames, tuple(float((time - times[0]) * tick) for time in wanted) if tick else ())


def _at(container: InputContainer, stream: Any, wanted: Sequence[int], keys: Sequence[int]) -> Iterator[Any]:
    """The frame of each time, or the last one there is: AVI says when a frame is decoded, not when it is shown, which
    may be up to three frames later. What lies before the key frame of a wanted one is not decoded."""
    frames: Iterator[Any] = iter(())
    key: int | None = None
    last: Any = None
    for time in wanted:
        before = max((each for each in keys if each <= time), default=wanted[0])
        if before != key:
            container.seek(before, stream=stream)
            key, frames = before, container.decode(stream)
        for last in frames:
            if last.pts is not None and last.pts >= time:
                break
        if last:
            yield last


def _pixels(frame: Any) -> np.ndarray:
    """Upright: cameras that are held another way note it beside the pixels."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))
