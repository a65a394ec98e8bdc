"""What is asked about: pictures, sounds and videos, from wherever they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mmedge.core.family import Sound
from mmedge.errors import InputError
from mmedge.media.audio import check_sound, decode_sound, read_sound
from mmedge.media.image import Picture, decode_picture, read_picture
from mmedge.media.video import Video
from mmedge.runtime.clock import Clock

Source: TypeAlias = "Path | str | bytes | np.ndarray | Picture"
"""A picture: the path or the bytes of an encoded file, or pixels as uint8 ``[height, width, 3]`` RGB."""
SoundSource: TypeAlias = "Path | str | bytes | Sound"
"""A sound: the path or the bytes of an encoded file, or its samples."""
Subject: TypeAlias = "Source | Video"
"""What is asked about: a picture, or what `read_video` makes of a video."""


def apart(subjects: Subject | Sequence[Subject]) -> tuple[list[Source], Video]:
    """Pictures, and the video; one without frames where there is none.

    Raises:
        InputError: there are several videos.
    """
    given: Sequence[Any] = subjects if isinstance(subjects, (list, tuple)) else (subjects,)
    videos = [each for each in given if isinstance(each, Video)]
    if len(videos) > 1:
        raise InputError(f"a question is about at most one video, got {len(videos)}")
    return [each for each in given if not isinstance(each, Video)], videos[0] if videos else Video(())


def look(picture: Source, clock: Clock | None = None, *, reject_animated: bool = False) -> Picture:
    """Read and decode a picture.

    Raises:
        InputError: it cannot be used.
    """
    clock = clock or Clock()
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise InputError(f"a picture as an array is uint8 [height, width, 3], got {picture.dtype} {picture.shape}")
        return Picture(picture)
    if not isinstance(picture, (bytes, str, Path)):
        raise InputError(
            f"a picture is a path, the bytes of a file, or pixels, got {type(picture).__name__}",
            hint='of a PIL image: numpy.asarray(image.convert("RGB"))',
        )
    with clock.stage("read"):
        data = picture if isinstance(picture, bytes) else read_picture(Path(picture))
    with clock.stage("decode"):
        name = "picture" if isinstance(picture, bytes) else str(picture)
        return decode_picture(data, name, reject_animated=reject_animated)


def listen(sound: SoundSource, clock: Clock | None = None) -> Sound:
    """Read and decode a sound.

    Raises:
        InputError: it cannot be used.
    """
    clock = clock or Clock()
    if isinstance(sound, Sound):
        return check_sound(sound, "sound")
    if not isinstance(sound, (bytes, str, Path)):
        raise InputError(
            f"a sound is a path, the bytes of a file, or a `Sound`, got {type(sound).__name__}",
            hint="of samples: Sound(samples, rate), float32 from -1 to 1",
        )
    with clock.stage("read"):
        data = sound if isinstance(sound, bytes) else read_sound(Path(sound))
    with clock.stage("decode"):
        return decode_sound(data, "sound" if isinstance(sound, bytes) else str(sound))
