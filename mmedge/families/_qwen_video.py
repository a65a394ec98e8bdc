"""How the Qwen models that see read a video: frames that follow each other become one slice of time, which is read as a
picture is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from mmedge.core.family import Config, Request
from mmedge.families import _qwen_picture as picture
from mmedge.families import _qwen_vl as qwen
from mmedge.families._video import RATE
from mmedge.families._video import seconds as seconds_of


class Slices(NamedTuple):
    """What the frames of a video become."""

    rows: int
    columns: int
    seconds: list[float]
    """When each is shown: the middle of its first and last frame."""
    gap: float
    """Seconds from one to the next."""

    @property
    def groups(self) -> int:
        """Of each."""
        return self.rows * self.columns


Shown: TypeAlias = Callable[[Config, Slices], tuple[str, list[qwen.Grid]]]
"""A family's text for a video, and the runs of groups in it."""
Sized: TypeAlias = Callable[[int, int, int, Config], tuple[int, int]]
"""Rows and columns of groups by the number of frames, their height and width, and settings."""


def film(shown: Shown, told: qwen.Told, sized: Sized) -> Callable[[Config, Request], qwen.Film]:
    """How a family reads a video."""

    def found(config: Config, request: Request) -> qwen.Film:
        settings, frames, seconds = _settings(config), list(request.frames), seconds_of(request)
        rows, columns = sized(len(frames), frames[0].shape[0], frames[0].shape[1], settings)
        gap = (seconds[-1] - seconds[0]) / (len(frames) - 1) if len(frames) > 1 else 1 / RATE
        depth = settings["temporal_patch_size"]
        missing = -len(frames) % depth
        frames += frames[-1:] * missing
        seconds += seconds[-1:] * missing
        begins = range(0, len(frames), depth)
        middles = [(seconds[begin] + seconds[begin + depth - 1]) / 2 for begin in begins]
        slices = Slices(rows, columns, middles, gap * depth)
        looks = [picture.look(frames[begin : begin + depth], rows, columns, settings) for begin in begins]
        text, grids = shown(config, slices)
        return qwen.Film([look | told(config, rows, columns) for look in looks], text, grids)

    return found


def _settings(config: Config) -> Config:
    """What the checkpoint says of videos; of what it does not say, what it says of pictures."""
    said = config.get("video") or {}
    size = said.get("size") or config["image"]["size"]
    least = said.get("min_pixels", size["shortest_edge"])
    most = said.get("max_pixels", size["longest_edge"])
    return {**config["image"], **said, "size": {"shortest_edge": least, "longest_edge": most}}


def frame_by_frame(frames: int, height: int, width: int, settings: Config) -> tuple[int, int]:
    """A frame is scaled as a picture is."""
    return picture.grid(height, width, settings)


def whole(config: Config, slices: Slices) -> tuple[str, list[qwen.Grid]]:
    """All slices one after the other, each a position later."""
    count = len(slices.seconds)
    text = config["text"]["video_token"] * (count * slices.groups)
    return text, [qwen.Grid(count, slices.rows, slices.columns)]
