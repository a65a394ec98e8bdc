import numpy as np
import pytest

from mmedge.core.similarity import Similarity
from mmedge.errors import InputError
from mmedge.runtime.classify import (
    MOST_LABELS,
    TEMPLATES,
    Labels,
    check_labels,
    check_templates,
    classify,
    embed_labels,
    read_labels,
)

COLOURS = Labels(("red", "green", "blue"), np.eye(3, dtype=np.float32))


class Spelling:
    """Embeds a text by its letters."""

    def texts(self, texts):
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
    mean = Spelling().texts(["a dog", "the dog!"]).mean(0)
    assert labels.names == ("cat", "dog")
    assert labels.embeddings[1] == pytest.approx(mean / np.linalg.norm(mean))


def test_every_label_is_heard_of():
    heard = []
    embed_labels(Spelling(), ["cat", "dog"], TEMPLATES, heard.append)
    assert heard == ["cat", "dog"]


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


def test_a_template_has_a_place_for_the_label():
    assert check_templates(()) == ()
    with pytest.raises(InputError, match=r"the template `a photo` has no \{\}"):
        check_templates(["a photo"])
