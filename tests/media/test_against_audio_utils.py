"""Spectrograms against those of `transformers`."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from mmedge.media.mel import Mel, filter_bank, log_mel

MELS = [
    Mel(48_000, 1024, 480, 64, 0, 14_000, "htk"),
    Mel(48_000, 1024, 480, 64, 50, 14_000, "slaney"),
    Mel(8_000, 512, 80, 64, 0, 4_000, "htk"),
    Mel(16_000, 400, 160, 40, 20, 7_600, "slaney"),
]


def theirs(mel: Mel) -> np.ndarray:
    return mel_filter_bank(
        mel.size // 2 + 1,
        mel.bands,
        mel.low,
        mel.high,
        mel.rate,
        norm="slaney" if mel.scale == "slaney" else None,
        mel_scale=mel.scale,
    )


@pytest.mark.parametrize("mel", MELS)
def test_the_filters_are_those_of_the_reference(mel):
    np.testing.assert_allclose(filter_bank(mel), theirs(mel), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mel", MELS)
@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 12.3])
@pytest.mark.parametrize("kind", ["noise", "tone", "silence"])
def test_decibels_are_those_of_the_reference(mel, seconds, kind):
    length = int(seconds * mel.rate)
    samples = {
        "noise": np.random.default_rng(length).uniform(-1, 1, length),
        "tone": 0.3 * np.sin(np.arange(length) * 0.3),
        "silence": np.zeros(length),
    }[kind].astype(np.float32)
    window = window_function(mel.size, "hann")
    want = spectrogram(samples, window, mel.size, mel.hop, power=2.0, mel_filters=theirs(mel), log_mel="dB").T
    got = log_mel(samples, mel)
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-4)
