"""Log-mel spectrograms: how much of each pitch a sound has, over time."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct

FRAMES = 1024
"""Transformed at once."""
QUIETEST = 1e-10
"""Of a power, which has no logarithm below."""


class Mel(Struct, frozen=True):
    """How a spectrogram is made."""

    rate: int
    size: int
    """Samples of a frame."""
    hop: int
    """Samples from one frame to the next."""
    bands: int
    low: float
    high: float
    """Hz."""
    scale: Literal["htk", "slaney"]
    """``slaney``: bands are as loud as each other in noise, and as wide as each other below 1000 Hz."""


def log_mel(samples: np.ndarray, mel: Mel) -> np.ndarray:
    """Decibels, float32 ``[frames, bands]``, of frames whose middle is every ``hop``-th sample; the sound is mirrored
    at its ends."""
    filters, window = filter_bank(mel), np.hanning(mel.size + 1)[:-1]
    padded = np.pad(samples, mel.size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, mel.size)[:: mel.hop]
    made = [_decibels(frames[begin : begin + FRAMES] * window, filters) for begin in range(0, len(frames), FRAMES)]
    return np.concatenate(made)


def filter_bank(mel: Mel) -> np.ndarray:
    """float64 ``[size / 2 + 1, bands]``: triangles between three neighbours that are equally far apart in pitch."""
    low, high = (to_mel(np.array(bound, float), mel.scale) for bound in (mel.low, mel.high))
    corners = to_hertz(np.linspace(low, high, mel.bands + 2), mel.scale)
    bins = np.linspace(0, mel.rate // 2, mel.size // 2 + 1)[:, None]
    rising = (bins - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - bins) / np.diff(corners)[1:]
    triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2 / (corners[2:] - corners[:-2])) if mel.scale == "slaney" else triangles


SLANEY = (1000.0, 15.0, np.log(6.4) / 27)
"""Hz and mel where the scale becomes logarithmic, and its step (Slaney 1998, Auditory Toolbox)."""


def to_mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    """``htk``: O'Shaughnessy 1987."""
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hertz / 700))
    border, begin, step = SLANEY
    return np.where(hertz < border, hertz * begin / border, begin + np.log(np.maximum(hertz, border) / border) / step)


def to_hertz(mels: np.ndarray, scale: str) -> np.ndarray:
    """What `to_mel` undoes."""
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    border, begin, step = SLANEY
    return np.where(mels < begin, mels * border / begin, border * np.exp(step * (np.maximum(mels, begin) - begin)))


def _decibels(frames: np.ndarray, filters: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.asarray(10 * np.log10(np.maximum(QUIETEST, power @ filters)), np.float32)
