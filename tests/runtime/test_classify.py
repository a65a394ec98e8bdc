from types import SimpleNamespace

import numpy as np
import pytest

from mmedge.core.bundle import Graph
from mmedge.core.ports import Port
from mmedge.core.similarity import Similarity
from mmedge.errors import BundleError, InputError
from mmedge.runtime.classify import (
    BATCH,
    MOST_LABELS,
    NAMES,
    ROWS,
    TEMPLATES,
    Labels,
    check_labels,
    check_templates,
    classify,
    embed_labels,
    own_labels,
    read_labels,
    to_assets,
)
from mmedge.runtime.golden import to_bytes

COLOURS = Labels(("red", "green", "blue"), np.eye(3, dtype=np.float32))


class Spelling:
    """Embeds a text by its letters; it reads at most 20."""

    subject = "image"

    def prompt(self, modality, text):
        if len(text) > 20:
            raise InputError(f"the text is {len(text)} tokens long, the model reads at most 20")
        return text

    def run(self, modality, texts):
        rows = [np.bincount([ord(letter) % 8 for letter in text], minlength=8) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def test_the_likeliest_labels_come_first():
    (best,) = classify(np.array([[0.6, 0.0, 0.8]], np.float32), COLOURS, Similarity(10.0), 2)
    assert [guess.label for guess in best] == ["blue", "red"]
    assert [guess.cosine for guess in best] == pytest.approx([0.8, 0.6])


def test_probabilities_are_those_among_all_labels():
    (best,) = classify(np.array([[1.0, 0.0, 0.0]], np.float32), COLOURS, Similarity(np.log(2)), 1)
    assert best[0].probability == pytest.approx(0.5)


def test_a_label_means_the_mean_of_its_templates():
    labels = embed_labels(Spelling(), ["cat", "dog"], ["a {}", "the {}!"])
    mean = Spelling().run("text", ["a dog", "the dog!"]).mean(0)
    assert labels.names == ("cat", "dog")
    assert labels.embeddings[1] == pytest.approx(mean / np.linalg.norm(mean))


def test_every_label_is_heard_of():
    heard = []
    embed_labels(Spelling(), ["cat", "dog"], TEMPLATES, heard.append)
    assert heard == ["cat", "dog"]


def test_a_label_that_is_too_long_is_named():
    with pytest.raises(InputError, match="the label `abcdefghijklmnopqrst`: the text is 24 tokens long"):
        embed_labels(Spelling(), ["cat", "abcdefghijklmnopqrst"], ["the {}"])


def test_more_labels_than_are_read_at_once_keep_their_order():
    names = [f"label {number}" for number in range(2 * BATCH + 3)]
    labels = embed_labels(Spelling(), names, ["{}", "a {}"])
    assert labels.embeddings[-1] == pytest.approx(embed_labels(Spelling(), names[-1:], ["{}", "a {}"]).embeddings[0])


def test_labels_that_are_all_unlikely_keep_their_order():
    labels = Labels(("a", "b", "c"), np.array([[-0.8, 0.6], [-0.6, 0.8], [-1.0, 0.0]], np.float32))
    (best,) = classify(np.array([[1.0, 0.0]], np.float32), labels, Similarity(112.7, -16.5, "sigmoid"), 3)
    assert [guess.label for guess in best] == ["b", "a", "c"]


def test_labels_are_the_lines_of_a_file_without_empty_ones(tmp_path):
    (tmp_path / "labels.txt").write_text("\ufeffa cat\r\n\r\n  ein Käse  \n", "utf-8")
    assert read_labels(tmp_path / "labels.txt") == ("a cat", "ein Käse")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "`file` has no labels"),
        (["a", "b", "a", "a"], "`file` has the label `a` 3 times"),
        ([str(index) for index in range(MOST_LABELS + 1)], "has 100001 labels, at most 100000 are allowed"),
    ],
)
def test_a_list_that_cannot_be_one_is_refused(labels, message):
    with pytest.raises(InputError, match=message):
        check_labels(labels, "`file`")


def test_as_many_labels_as_may_be_are_fine():
    assert len(check_labels([str(index) for index in range(MOST_LABELS)], "`file`")) == MOST_LABELS


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    if content:
        (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read the labels `.*labels\.txt`"):
        read_labels(tmp_path / "labels.txt")


def bundle_with(**files) -> SimpleNamespace:
    """A bundle of a model whose embeddings are 3 wide, with these assets."""
    ports = (Port("pixel_values", "float32", ("batch", 3, 8, 8)),), (Port("image_embeds", "float32", ("batch", 3)),)
    assets = {name: f"assets/{name}" for name in files}
    manifest = SimpleNamespace(assets=assets, graphs=(Graph("vision", "graphs/vision.onnx", *ports, "float32"),))
    return SimpleNamespace(path="sorter", manifest=manifest, read=lambda name: files[name.removeprefix("assets/")])


def test_labels_of_a_bundle_come_back():
    found = own_labels(bundle_with(**to_assets(COLOURS)))
    assert found.names == COLOURS.names and np.array_equal(found.embeddings, COLOURS.embeddings)
    assert own_labels(bundle_with()) is None


@pytest.mark.parametrize(
    "change",
    [
        {NAMES: b"[]"},
        {NAMES: b"{}"},
        {NAMES: b"\xff"},
        {NAMES: b'["red"]'},
        {ROWS: b"PK\x03\x04"},
        {ROWS: b""},
        {ROWS: to_bytes({"embeddings": np.zeros((3, 4), np.float32)})},
        {ROWS: to_bytes({"embeddings": np.full((3, 3), np.nan, np.float32)})},
        {ROWS: to_bytes({"embeddings": np.zeros((3, 3), np.float64)})},
        {ROWS: to_bytes({"rows": np.zeros((3, 3), np.float32)})},
    ],
)
def test_labels_of_a_bundle_that_cannot_be_any_are_refused(change):
    with pytest.raises(BundleError):
        own_labels(bundle_with(**{**to_assets(COLOURS), **change}))


def test_a_template_has_a_place_for_the_label():
    assert check_templates(()) == ()
    with pytest.raises(InputError, match=r"the template `a photo` has no \{\}"):
        check_templates(["a photo"])
