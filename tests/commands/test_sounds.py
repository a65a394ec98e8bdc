"""`classify`, `index` and `search` with a tiny CLAP of random weights, which hears sounds."""

import io
import json
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmedge.core import find
from mmedge.export.build import export
from mmedge.export.examples import drawn_sound
from mmedge.runtime.classify import classify, embed_labels
from mmedge.runtime.encoder import load_encoder

pytestmark = pytest.mark.slow
LABELS = ("a bell", "rain on a roof", "ein Käse")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    path = Path(__file__).parents[1] / "families" / "checkpoints" / "clap.py"
    spec = spec_from_file_location("checkpoint_of_clap", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(find.family("clap").tiny[0], tmp_path_factory.mktemp("clap") / "checkpoint")


@pytest.fixture(scope="session")
def clap(checkpoint) -> Path:
    export(str(checkpoint), output=checkpoint.parent / "clap.bundle", precision="float32")
    return checkpoint.parent / "clap.bundle"


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Of several kinds and rates, some in a folder of their own."""
    (tmp_path / "recordings" / "more").mkdir(parents=True)
    for seed, (name, rate) in enumerate({"a.wav": 8_000, "b.flac": 16_000, "more/c.ogg": 8_000}.items()):
        soundfile.write(tmp_path / "recordings" / name, drawn_sound(seed, rate).samples, rate)
    return tmp_path / "recordings"


def guessed(bundle: Path, file: Path, template: str) -> dict[str, float]:
    with load_encoder(bundle) as encoder:
        labels = embed_labels(encoder, LABELS, [template])
        guesses = classify(encoder.sounds([file]), labels, encoder.similarity, 3)[0]
    return {each.label: each.probability for each in guesses}


def test_sounds_are_told_apart_by_what_they_are_the_sound_of(mmedge, clap, recordings):
    shown = mmedge("classify", clap, recordings, "--labels", ",".join(LABELS), "--json")
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.code == 0 and [Path(row["sound"]).name for row in rows] == ["a.wav", "b.flac", "c.ogg"]
    found = {each["label"]: each["probability"] for each in rows[0]["labels"]}
    assert found == pytest.approx(guessed(clap, recordings / "a.wav", "the sound of {}"), abs=1e-5)


def test_a_sound_comes_from_standard_input_too(mmedge, clap, recordings, monkeypatch):
    piped = SimpleNamespace(buffer=io.BytesIO((recordings / "a.wav").read_bytes()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", piped)
    shown = mmedge("classify", clap, "-", "--labels", "a,b")
    assert shown.code == 0 and shown.out == mmedge("classify", clap, recordings / "a.wav", "--labels", "a,b").out


def test_one_bad_sound_of_several_is_told_and_the_others_go_on(mmedge, clap, recordings, tmp_path):
    cut = tmp_path / "cut.wav"
    cut.write_bytes((recordings / "a.wav").read_bytes()[:-100])
    shown = mmedge("classify", clap, cut, recordings / "a.wav", "--labels", "a,b")
    assert shown.code == 3 and "cut.wav` is cut off" in shown.err and "a.wav:" in shown.out
    told = mmedge("classify", clap, cut, recordings / "a.wav", "--labels", "a,b", "--json").out.splitlines()
    assert [sorted(json.loads(line)) for line in told] == [["error", "sound"], ["labels", "sound"]]


def test_a_folder_without_sounds_is_refused(mmedge, clap, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    shown = mmedge("classify", clap, tmp_path, "--labels", "a,b")
    assert shown.code == 3 and "has no sounds" in shown.err and ".flac" in shown.err


def test_labels_inside_leave_the_tower_that_hears(mmedge, checkpoint, clap, recordings, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), "utf-8")
    export(str(checkpoint), output=tmp_path / "bundle", precision="float32", labels=tmp_path / "labels.txt")
    assert not (tmp_path / "bundle" / "graphs" / "text.onnx").exists()
    shown = mmedge("classify", tmp_path / "bundle", recordings / "a.wav", "--json")
    found = {each["label"]: each["probability"] for each in json.loads(shown.out)["labels"]}
    assert found == pytest.approx(guessed(clap, recordings / "a.wav", "the sound of {}"), abs=1e-5)
    assert mmedge("verify", tmp_path / "bundle").code == 0


def hits(shown) -> list[tuple[str, str]]:
    assert shown.code == 0, shown.err
    return [(Path(row["name"]).name, row["modality"]) for row in map(json.loads, shown.out.splitlines())]


def test_sounds_and_texts_are_found_by_a_sound_and_by_a_text(mmedge, clap, recordings, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(LABELS), "utf-8")
    index = tmp_path / "made.index"
    made = mmedge("index", clap, recordings, tmp_path / "texts.txt", "-o", index)
    assert made.code == 0 and "added 6" in made.err
    query = shutil.copyfile(recordings / "b.flac", tmp_path / "query.flac")
    assert hits(mmedge("search", index, "--audio", query, "--modality", "audio", "--json"))[0] == ("b.flac", "audio")
    assert hits(mmedge("search", index, "--audio", query, "--modality", "text", "--json", "--top", 1))[0][1] == "text"
    assert hits(mmedge("search", index, LABELS[1], "--modality", "text", "--json"))[0][0] == LABELS[1]
    assert len(hits(mmedge("search", index, LABELS[1], "--modality", "audio", "--json"))) == 3


def test_a_sound_that_changed_is_embedded_again(mmedge, clap, recordings, tmp_path):
    index = tmp_path / "made.index"
    mmedge("index", clap, recordings, "-o", index)
    soundfile.write(recordings / "a.wav", np.zeros(5_000, np.float32), 8_000)
    (recordings / "b.flac").unlink()
    assert "added 1, kept 1, forgot 1" in mmedge("index", clap, recordings, "-o", index).err


def test_a_bad_sound_is_skipped_only_if_that_is_said(mmedge, clap, recordings, tmp_path):
    (recordings / "bad.mp3").write_bytes(b"x" * 100)
    shown = mmedge("index", clap, recordings, "-o", tmp_path / "made.index")
    assert shown.code == 3 and "bad.mp3" in shown.err and "--skip-bad" in shown.err
    shown = mmedge("index", clap, recordings, "-o", tmp_path / "made.index", "--skip-bad")
    assert shown.code == 0 and "added 3" in shown.err and "skipped 1" in shown.err


def test_what_is_looked_for_is_one_thing_that_the_bundle_embeds(mmedge, clap, recordings, tmp_path):
    index = tmp_path / "made.index"
    mmedge("index", clap, recordings, "-o", index)
    both = mmedge("search", index, "rain", "--audio", recordings / "a.wav")
    assert both.code == 2 and "a text and a sound are named" in both.err
    image = mmedge("search", index, "--image", "a.png")
    assert image.code == 2 and "does not embed `image`" in image.err


def test_layers_are_told_of_its_recorded_sounds_and_a_profile_is_refused(mmedge, clap):
    shown = mmedge("layers", clap, "--json")
    assert shown.code == 0 and "audio" in shown.out
    shown = mmedge("profile", clap)
    assert shown.code == 2 and "looks at no pictures" in shown.err
