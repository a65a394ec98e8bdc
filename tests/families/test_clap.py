"""CLAP, with parts of a sound fused and without: features and embeddings are those of the checkpoint's own extractor
and forward pass, on every engine, for batches and lengths that the trace never saw.

The extractor takes parts of long sounds by chance; it is given the number in the middle wherever it draws one.
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from mmedge_doubles.install import installed
from transformers import ClapFeatureExtractor

from mmedge import cli
from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.core.family import Request, Sound
from mmedge.errors import ContextError, InputError, ModelError, UsageError
from mmedge.export.build import export
from mmedge.export.examples import drawn_sound
from mmedge.export.load import load_model, read_checkpoint
from mmedge.families.clap import FAMILY, components, features, prepare, spectrograms
from mmedge.runtime.encoder import Encoder, load_encoder
from mmedge.runtime.verify import verify

ENGINES = ("onnxruntime", "openvino")
VERSION = "10.3"
"""Of TensorRT in JetPack 6.2, the oldest that the shipped targets are for."""
CLOSE = 1e-4
RATE = 8_000
LENGTHS = (4_000, 1, 100, 15_999, 16_000, 16_001, 16_079, 16_080, 20_000, 33_333, 130_000)
"""Samples; two seconds are heard at once."""
TEXTS = (
    "the sound of a bell",
    "",
    "Ein Käse — 北京 夜の街 🙂 ß ﬁ",
    "</s> <s> [SEP] <pad> <unk>",
    "It's 1,234.5 km!",
    "rain " * 11,
    "\n\t a  b ",
    "x",
    "the last of more than fit into one run",
)


RECIPE = """
name = "tiny"
model = "any"
target = "{target}"
precision = "{precision}"
accept = {{ cosine = 0.98, answers = 0 }}
"""
"""With random weights all sounds are alike, and rounding decides which text they are most like: cosines are judged."""


def sound(length: int, rate: int = RATE) -> Sound:
    long = drawn_sound(2, rate).samples
    return Sound(np.roll(np.resize(long, max(length, 1)), length)[:length], rate)


SOUNDS = tuple(sound(length) for length in LENGTHS)


class Made(NamedTuple):
    checkpoint: Path
    bundle: Path
    sounds: np.ndarray
    texts: np.ndarray
    scale: float
    """As torch has them."""


def write_checkpoint(index: int, folder: Path) -> Path:
    path = Path(__file__).parent / "checkpoints" / "clap.py"
    spec = importlib.util.spec_from_file_location("checkpoint_of_clap", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(FAMILY.tiny[index], folder)


@pytest.fixture(scope="module", params=["apart", "fused"])
def checkpoint(request, tmp_path_factory) -> Path:
    return write_checkpoint(request.param == "fused", tmp_path_factory.mktemp(request.param) / "checkpoint")


@pytest.fixture(scope="module")
def made(checkpoint) -> Made:
    bundle = checkpoint.parent / "bundle"
    export(str(checkpoint), output=bundle, target="cpu", precision="float32")
    read = read_checkpoint(checkpoint)
    model, tokenizer = load_model(read), read.processor.tokenizer
    tokenizer.split_special_tokens = True  # what a user writes is only ever text
    requests = [Request(text=" ", sounds=(each,)) for each in SOUNDS]
    heard = [FAMILY.reference(model, read.processor, request)["audio_embeds"] for request in requests]
    with torch.inference_mode():
        texts = model.get_text_features(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).pooler_output
    scale = float(model.logit_scale_a.detach().exp())
    return Made(checkpoint, bundle, np.concatenate(heard), np.asarray(texts), scale)


@pytest.fixture(scope="module", params=ENGINES)
def encoder(request, made) -> Iterator[Encoder]:
    with load_encoder(made.bundle, backend=request.param) as opened:
        yield opened


SETTINGS = [
    {"truncation": truncation, "padding": padding}
    for truncation in ("rand_trunc", "fusion")
    for padding in ("repeatpad", "repeat", "pad")
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(each.values()))
@pytest.mark.parametrize("seconds", [0.0001, 0.5, 9.99, 10, 10.005, 10.5, 31.7])
def test_features_are_those_of_the_extractor_of_large_models(settings, seconds):
    """At 48 kHz, ten seconds at once; 7.6e-6 dB was the largest difference seen."""
    extractor = ClapFeatureExtractor(frequency_min=50, **settings)

    class Processor:
        feature_extractor = extractor

    given = sound(max(1, int(48_000 * seconds)), 48_000)
    want = spectrograms(Processor, given)["input_features"]
    got = features(given, extractor.to_dict())
    assert got.shape == want[0].shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want[0], atol=CLOSE)


def test_silence_and_what_is_louder_than_allowed_have_features():
    settings = ClapFeatureExtractor().to_dict()
    silence = features(Sound(np.zeros(48_000, np.float32), 48_000), settings)
    assert (silence == -100).all()
    assert np.isfinite(features(Sound(np.full(48_000, 3, np.float32), 48_000), settings)).all()


def test_a_sound_at_another_rate_is_the_same_to_the_model():
    settings = ClapFeatureExtractor(truncation="rand_trunc").to_dict()
    times = np.arange(96_000) / 96_000
    tones = sum(0.2 * np.sin(2 * np.pi * hertz * times) for hertz in (300, 700, 1100, 2300)).astype(np.float32)
    fine, usual = features(Sound(tones, 96_000), settings), features(Sound(tones[::2].copy(), 48_000), settings)
    loud = usual > usual.max() - 40  # elsewhere is what the filter lets through, and rounding
    assert np.abs(fine - usual)[loud].max() < 0.2


@pytest.mark.parametrize("task", ["picture", "video"])
def test_what_it_has_no_tower_for_is_refused(task):
    pixels = (np.zeros((4, 4, 3), np.uint8),)
    request = Request(pixels) if task == "picture" else Request(frames=pixels)
    with pytest.raises(InputError, match="this model embeds sounds and texts, not"):
        prepare({}, None, request)


@pytest.mark.slow
def test_sounds_of_all_lengths_are_embedded_as_by_torch(made, encoder):
    """More than fit into one run."""
    assert np.abs(encoder.sounds(SOUNDS) - made.sounds).max() <= CLOSE
    assert np.abs(made.sounds[0] - made.sounds[1]).max() > 100 * CLOSE, (
        "a model that always says the same shows nothing"
    )


@pytest.mark.slow
def test_texts_of_all_kinds_are_embedded_as_by_torch(made, encoder):
    assert np.abs(encoder.texts(TEXTS) - made.texts).max() <= CLOSE
    assert np.abs(made.texts[0] - made.texts[7]).max() > 100 * CLOSE, "a model that always says the same shows nothing"


@pytest.mark.slow
def test_one_input_alone_is_what_it_is_among_others(made, encoder):
    assert np.abs(encoder.sounds(SOUNDS[3:4]) - made.sounds[3:4]).max() <= CLOSE
    assert np.abs(encoder.texts(TEXTS[2:3]) - made.texts[2:3]).max() <= CLOSE


@pytest.mark.slow
def test_embeddings_are_compared_as_the_model_does(made, encoder):
    assert encoder.similarity.scale == pytest.approx(made.scale)
    assert encoder.similarity.activation == "softmax" and encoder.similarity.bias == 0


@pytest.mark.slow
def test_a_file_is_heard_as_its_samples_are(encoder, tmp_path):
    file = io.BytesIO()
    soundfile.write(file, SOUNDS[0].samples, RATE, format="WAV", subtype="FLOAT")
    (tmp_path / "bell.wav").write_bytes(file.getvalue())
    rows = encoder.sounds([SOUNDS[0], file.getvalue(), tmp_path / "bell.wav", str(tmp_path / "bell.wav")])
    np.testing.assert_allclose(rows, rows[:1].repeat(4, 0), atol=1e-6)


@pytest.mark.slow
def test_what_cannot_be_heard_or_read_is_refused(encoder):
    with pytest.raises(ContextError, match="the model reads at most 78"):
        encoder.texts(["a cat " * 300])
    with pytest.raises(UsageError, match="does not embed `image`"):
        encoder.images([np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(InputError, match="a sound is a path"):
        encoder.sounds([SOUNDS[0].samples])
    with pytest.raises(InputError, match="no samples"):
        encoder.sounds([Sound(np.zeros(0, np.float32), RATE)])


@pytest.mark.slow
def test_the_bundle_replays_its_sounds_without_a_codec(made, monkeypatch):
    for package in ("soundfile", "soxr"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    bundle = open_bundle(made.bundle)
    assert "golden/0/sound.npz" in bundle.manifest.files and "golden/0/picture.png" not in bundle.manifest.files
    assert bundle.manifest.preprocess_max_abs <= CLOSE
    for engine in ENGINES:
        found = verify(bundle, backend=engine)
        assert found.passed and {check.what for check in found.checks} == {"preprocess", "audio", "text"}


@pytest.mark.slow
def test_a_bundle_for_jetson_is_checked_compiled_replayed_and_embeds_as_torch(made, tmp_path, capfd):
    bundle = tmp_path / "bundle"
    export(str(made.checkpoint), output=bundle, target="jetson", precision="float32")
    capfd.readouterr()
    assert cli.run(["check", str(bundle), "--json"]) == 0
    assert not [found for found in json.loads(capfd.readouterr().out)["findings"] if found["severity"] == "error"]
    with installed(VERSION) as double:
        assert cli.run(["compile", str(bundle)]) == 0, capfd.readouterr().err
        assert cli.run(["verify", str(bundle)]) == 0, capfd.readouterr().err
        before = len(double.executions)
        with load_encoder(bundle) as encoder:
            assert set(encoder.backends.values()) == {"tensorrt"}
            assert np.abs(encoder.sounds(SOUNDS) - made.sounds).max() <= CLOSE
            assert np.abs(encoder.texts(TEXTS) - made.texts).max() <= CLOSE
        assert len(double.executions) > before


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_it_is_calibrated_with_sounds_of_ones_own(made, precision, tmp_path):
    for index in range(24):
        samples = np.roll(sound(3_000 + 900 * index).samples, 100 * index)
        soundfile.write(tmp_path / f"{index}.flac", samples, RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(target="cpu" if precision == "int8" else "jetson", precision=precision))
    with pytest.raises(InputError, match=r"broken\.wav"):
        export(str(made.checkpoint), output=tmp_path / "none", recipe=recipe, calibration=tmp_path)
    (tmp_path / "broken.wav").unlink()
    report = export(str(made.checkpoint), output=tmp_path / "bundle", recipe=recipe, calibration=tmp_path)
    assert {seen.component for seen in report.agreement} == {"audio", "text"}
    with load_encoder(tmp_path / "bundle", backend="onnxruntime") as encoder:
        found = encoder.sounds(SOUNDS)
    assert (found * made.sounds).sum(-1).min() > 0.95


@pytest.fixture
def copied(tmp_path) -> Path:
    return shutil.copytree(write_checkpoint(0, tmp_path / "whole"), tmp_path / "copied")


@pytest.mark.slow
def test_a_checkpoint_that_does_not_say_how_to_hear_is_refused(copied):
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json, which says what is heard of sounds"):
        read_checkpoint(copied)


@pytest.mark.slow
def test_an_extractor_of_another_model_is_refused(copied, tmp_path):
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(json.dumps(settings | {"truncation": "fusion"}))
    with pytest.raises(ModelError, match=r"is of another model: .*input_features"):
        export(str(copied), output=tmp_path / "bundle", target="cpu", precision="float32")


def test_its_towers_are_named_after_what_they_read():
    settings = ClapFeatureExtractor().to_dict()
    model = {
        "projection_dim": 512,
        "audio_config": {"num_mel_bins": 64, "enable_fusion": True},
        "text_config": {"max_position_embeddings": 514, "pad_token_id": 1},
    }
    audio, text = components({"model": model, "audio": settings})
    assert audio.inputs[0].shape == ("batch", 4, 1001, 64) and audio.outputs[0].name == "audio_embeds"
    assert text.sizes["text_length"].largest == 512
    assert find.family("clap") is FAMILY
