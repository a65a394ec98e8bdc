"""Videos: some of their frames, evenly spaced, and when each is shown.

A video is a folder of pictures in the order of the numbers in their names, an animated picture, or a film that PyAV
opens; what it is, its content says. Frames are chosen as `sample_frames` of the base video processor of `transformers`
chooses them.

All of a film is read once, for the times of its frames. Of containers that know when each is shown (`INDEXED`), only
what lies between a wanted frame and the key frame before it is decoded; of others everything, counted.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from mmedge.core.samples import PICTURES
from mmedge.errors import InputError, UsageError
from mmedge.media import pillow
from mmedge.media.header import sniff
from mmedge.media.image import PIXEL_LIMIT, check_size, decode_picture, opened, read_picture
from mmedge.needs import needs

if TYPE_CHECKING:
    from av.container import InputContainer

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf"
"""What FFmpeg may take a file for: none of the formats that name other files, or addresses."""

INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Others find a key frame by when it is decoded, or tell that in place of when it is shown."""

MOST_PIXELS = 4 * PIXEL_LIMIT
"""Of all frames together, which are held at once."""

MOST_DRAWN = 1_000_000_000
"""Pixels of all frames of an animated picture up to the last that is wanted: each is drawn over the one before."""


class Video(Struct, frozen=True):
    """Frames of a video: uint8 ``[height, width, 3]``, upright, RGB."""

    frames: tuple[np.ndarray, ...]
    seconds: tuple[float, ...] = ()
    """When each is shown, from the beginning; empty where nobody knows."""
    warnings: tuple[str, ...] = ()


def read_video(path: Path | str, count: int) -> Video:
    """``count`` frames of a video, evenly spaced; all of a shorter one.

    Raises:
        UsageError: ``count`` is less than 1.
        InputError: it is none, is damaged, or its frames are too large.
        BackendError: PyAV is not installed, which films need.
    """
    path = Path(path)
    if count < 1:
        raise UsageError(f"{count} frames of a video are asked for, it must be at least 1")
    try:
        kind = path.stat().st_mode
        if S_ISDIR(kind):
            return _of_folder(path, count)
        if not S_ISREG(kind):
            raise InputError(f"the video `{path}` is not a regular file", hint="name a file, or a folder of frames")
        with path.open("rb") as file:
            is_picture = sniff(file.read(64))
        return _of_picture(path, count) if is_picture else _of_film(path, count)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "this is not a path"
        raise InputError(f"cannot read the video `{path}`: {reason.lower()}") from error


def spaced(frames: int, count: int) -> list[int]:
    """Which of so many ``frames`` are taken."""
    return [int(index * frames / count) for index in range(count)] if frames > count else list(range(frames))


def _of_folder(folder: Path, count: int) -> Video:
    known = (each for each in folder.iterdir() if each.suffix.lower() in PICTURES and each.name[0] != ".")
    files = sorted((each for each in known if each.is_file()), key=_by_numbers)
    if not files:
        hint = f"looked for {', '.join(PICTURES)}; of several films name each"
        raise InputError(f"the folder `{folder}` has no pictures that could be frames", hint=hint)
    frames: list[np.ndarray] = []
    notes: list[str] = []
    for file in (files[index] for index in spaced(len(files), count)):
        picture = decode_picture(read_picture(file), str(file))
        notes += [f"{file.name}: {note}" for note in picture.warnings]
        frames.append(picture.pixels)
        _check_all(frames, folder)
    return Video(tuple(frames), warnings=tuple(notes))


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """So that frame 10 comes behind frame 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name) if part]


def _of_picture(path: Path, count: int) -> Video:
    """Of an animated picture, each frame as it is shown; of another one the picture."""
    frames: list[np.ndarray] = []
    seconds: list[float] = []
    with opened(read_picture(path), str(path)) as (image, kind, total):
        orientation, notes = pillow.orientation(image)
        first = int(bool(image.info.get("default_image")))  # it is for programs that do not animate
        wanted, now = {first + index for index in spaced(total - first, count)}, 0.0
        drawn = (max(wanted) + 1) * image.width * image.height
        if total > 1 and drawn > MOST_DRAWN:
            raise InputError(
                f"the animated {kind} picture `{path}` has {drawn} pixels up to the last frame that is wanted, "
                f"allowed are {MOST_DRAWN}",
                hint="make a film of it, such as an mp4",
            )
        for index in range(first, max(wanted) + 1):
            image.seek(index)
            image.load()
            if index in wanted:
                frames.append(np.ascontiguousarray(pillow.upright(pillow.rgb(image), orientation)))
                seconds.append(now)
                _check_all(frames, path)
            now += image.info.get("duration", 0) / 1e3
    return Video(tuple(frames), tuple(seconds) if now else (), notes)


def _of_film(path: Path, count: int) -> Video:
    with needs("video"):
        import av
    try:
        with av.open(f"file:{path}", options={"format_whitelist": CONTAINERS}) as container:
            return _decoded(container, path, count)
    except av.error.FFmpegError as error:
        reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
        raise InputError(f"cannot read the video `{path}`: {reason}") from error


def _decoded(container: InputContainer, path: Path, count: int) -> Video:
    stream: Any = container.streams.best("video")
    if stream is None:
        raise InputError(f"`{path}` has no video")
    packets = [packet for packet in container.demux(stream) if packet.size]
    # What was cut away at the beginning of a film may still be in it, to be decoded but not shown.
    shown = [packet for packet in packets if not packet.is_discard]
    wanted = spaced(len(shown), count)
    if container.format.name in INDEXED and all(packet.pts is not None for packet in packets):
        times = sorted(packet.pts for packet in shown)
        keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
        found = _sought(container, stream, [times[index] for index in wanted], keys)
        seconds = [float((times[index] - times[0]) * stream.time_base) for index in wanted]
    else:
        container.seek(0)
        found = _counted(container.decode(stream), wanted)
        seconds = [float(index / stream.average_rate) for index in wanted] if stream.average_rate else []
    frames: list[np.ndarray] = []
    for frame in found:
        check_size(frame.width, frame.height, str(path))
        frames.append(_upright(frame))
        _check_all(frames, path)
    if not frames:
        raise InputError(f"no frame of the video `{path}` can be decoded")
    missing = len(wanted) - len(frames)
    notes = (f"{missing} of {len(wanted)} frames could not be decoded: the end is missing",) if missing else ()
    return Video(tuple(frames), tuple(seconds[: len(frames)]), notes)


def _sought(container: InputContainer, stream: Any, times: Sequence[int], keys: Sequence[int]) -> Iterator[Any]:
    """The frames that are shown at these times."""
    frames: Iterator[Any] = iter(())
    key = -1
    for time in times:
        if (before := max(0, bisect(keys, time) - 1)) != key:
            container.seek(keys[before] if keys else 0, stream=stream)
            key, frames = before, container.decode(stream)
        found = next((frame for frame in frames if frame.pts is not None and frame.pts >= time), None)
        if found is None:
            return
        yield found


def _counted(frames: Iterator[Any], wanted: Sequence[int]) -> Iterator[Any]:
    """Those of these numbers, which are not empty and grow."""
    chosen = set(wanted)
    for index, frame in enumerate(frames):
        if index in chosen:
            yield frame
        if index >= wanted[-1]:
            return


def _upright(frame: Any) -> np.ndarray:
    """Cameras that are held another way, or look into a mirror, note that beside the pixels: as a matrix of fixed point
    numbers ``[[a, b, u], [c, d, v], ...]``, by which (x, y) becomes (a x + c y, b x + d y)."""
    from av.sidedata.sidedata import Type

    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    if (noted := frame.side_data.get(Type.DISPLAYMATRIX)) is None:
        return pixels
    a, b, _, c, d = np.frombuffer(noted, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _check_all(frames: Sequence[np.ndarray], path: Path) -> None:
    pixels = sum(frame.shape[0] * frame.shape[1] for frame in frames)
    if pixels > MOST_PIXELS:
        raise InputError(
            f"{len(frames)} frames of the video `{path}` have {pixels} pixels, allowed are {MOST_PIXELS} in all",
            hint="look at fewer frames, or make it smaller first",
        )
