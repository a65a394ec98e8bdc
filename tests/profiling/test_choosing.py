import numpy as np

from mmedge.core.samples import Sample
from mmedge.core.similarity import Similarity
from mmedge.profiling.choosing import TOGETHER, Choosing, with_choices
from mmedge.profiling.run import Input
from mmedge.profiling.tasks import TASKS
from mmedge.runtime.clock import Clock


class Lengths:
    """Embeds pictures and texts by their lengths, and counts what it is asked for."""

    subject = "image"
    similarity = Similarity(10.0)

    def __init__(self):
        self.texts_embedded = 0

    def images(self, pictures, *, clock):
        with clock.stage("encode"):
            return self._rows(pictures)

    def prompt(self, modality, text):
        return text

    def run(self, modality, texts):
        self.texts_embedded += len(texts)
        return self._rows(texts)

    def _rows(self, things):
        angles = np.array([len(thing) for thing in things]) / 10
        return np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)


def embedded(number: int, text: str | None) -> Input:
    return Input(str(number), "embed", f"{number}.png", text)


def test_each_input_may_choose_from_the_texts_of_all():
    found = with_choices([embedded(0, "a cat"), embedded(1, "two\n dogs"), embedded(2, "a cat")])
    assert [item.text for item in found] == ["a cat\ntwo dogs"] * 3
    assert [item.expected for item in found] == [("a cat",), ("two dogs",), ("a cat",)]


def test_so_many_choose_from_each_other_that_a_run_does_not_grow_with_their_square():
    found = with_choices([embedded(number, f"text {number}") for number in range(2 * TOGETHER + 5)])
    assert [len(found[at].text.split("\n")) for at in (0, TOGETHER, -1)] == [TOGETHER, TOGETHER, 5]
    assert all(set(item.expected) <= set(item.text.split("\n")) for item in found)


def test_inputs_without_texts_have_nothing_to_choose_from():
    (found,) = with_choices([embedded(0, None)])
    assert not found.text and not found.expected


def test_other_tasks_stay_as_they_are():
    asked = Input("0", "ask", "0.png", "why?", ("so",))
    assert with_choices([asked]) == [asked]


def test_a_sample_is_embedded_to_find_its_caption_rather_than_an_answer(tmp_path):
    both = Sample("0", tmp_path, question="why?", answer="so", caption="a hill")
    assert TASKS["embed"](both).text == "a hill"


def test_the_answer_is_the_text_that_is_most_like_the_picture():
    answer = Choosing(Lengths()).answer("embed", b"12345", "1\n1234\n12345678")
    assert answer.text == "1234" and answer.tokens == ()


def test_texts_are_embedded_once():
    encoder, clock = Lengths(), Clock()
    choosing = Choosing(encoder)
    for _ in range(3):
        choosing.answer("embed", b"12", "1\n12", clock=clock)
    assert encoder.texts_embedded == 2
    assert set(clock.stages_ns) == {"encode", "search"}


def test_without_texts_there_is_no_answer():
    assert Choosing(Lengths()).answer("embed", b"12", "").text == ""
