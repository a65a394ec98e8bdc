"""What families that look at the frames of a video share: how a frame is prepared, and when it is shown."""

from __future__ import annotations

import numpy as np

from mmedge.core.family import Config, Request
from mmedge.errors import InputError
from mmedge.media.image import preprocess

RATE = 24.0
"""Frames a second where nobody knows when they were shown; the checkpoints' processors take the same."""

USUAL = {
    "do_resize": True,
    "size": {"height": 384, "width": 384},
    "resample": 3,
    "do_center_crop": False,
    "crop_size": {},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""Settings of whole frames where a checkpoint does not say otherwise."""


def refuse(request: Request) -> None:
    """For families that look at no video.

    Raises:
        InputError: there is one.
    """
    if request.frames:
        raise InputError("this model looks at pictures, not at videos", hint="leave out --frames, or name its frames")


def settings(config: Config) -> Config:
    """What the checkpoint says of videos; what it says of pictures where it says nothing of these."""
    said: Config = config.get("video") or config["image"]
    return said


def whole_frames(config: Config, request: Request) -> list[np.ndarray]:
    """Each of the frames, scaled and never cut into tiles, float32 ``[1, 3, height, width]``."""
    said = settings(config)
    plan = {key: said.get(key, usual) for key, usual in USUAL.items()}
    return [preprocess(frame, plan) for frame in request.frames]


def seconds(request: Request) -> list[float]:
    """When each frame is shown.

    Raises:
        InputError: times are given for more or fewer frames than there are.
    """
    found = list(request.frame_seconds) or [index / RATE for index in range(len(request.frames))]
    if len(found) != len(request.frames):
        raise InputError(f"the video has {len(request.frames)} frames, and times for {len(found)}")
    return found
