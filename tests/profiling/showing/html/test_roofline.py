import re

import pytest
from msgspec.structs import replace

from mmedge.profiling.run import Peaks
from mmedge.profiling.showing.html.roofline import figure
from mmedge.profiling.showing.html.text import UNKNOWN


@pytest.fixture
def run(make_run):
    return make_run(extras=True, rounds=6)


def marks(drawing: str, name: str) -> int:
    return len(re.findall(f"<title>[^<]*: {name}</title>", drawing))


def test_what_cannot_be_is_a_dash_and_not_drawn(run):
    first, *others = run.roofline
    assert first.stage == "encode" and marks(figure(run).drawing.markup, "encode") == 2
    found = figure(replace(run, roofline=(replace(first, share=1.4, valid=False), *others)))
    assert marks(found.drawing.markup, "encode") == 1
    assert f"<td>{UNKNOWN}</td><td>compute</td>" in found.table and "140" not in found.table
    assert found.note.endswith(f"is not drawn: {run.candidates[0].name}, encode.")


def test_what_the_cache_explains_stays(run):
    first, *others = run.roofline
    found = figure(replace(run, roofline=(replace(first, share=1.4, in_cache=True), *others)))
    assert marks(found.drawing.markup, "encode") == 2 and "140.0\N{NO-BREAK SPACE}%" in found.table
    assert "only where the data fit the last level cache" in found.note and found.note.endswith("is not drawn.")


def test_it_says_what_was_answered_and_how_often(run):
    assert "answers to the bundles' golden samples." in figure(run).reading
    judged = tuple(replace(roof, input=2, n=4 + roof.c) for roof in run.roofline)
    found = figure(replace(run, roofline=judged))
    assert found.reading.endswith("Stages are medians of 4 to 5 answers to picture-2.")
    assert '<td>picture-2</td><td class="n">4</td></tr>' in found.table


def test_every_number_of_threads_has_its_roofs_and_its_table(run):
    one = Peaks(1, 7.25, {"onnxruntime float32": 44.5}, 32 << 20)
    found = figure(replace(run, peaks=replace(run.peaks, others=(one,))))
    words = re.sub("<[^>]*>", " ", found.drawing.markup)
    assert "peak onnxruntime float32, 2 threads" in words and "peak onnxruntime float32, 1 thread" in words
    assert found.table.count("<h3>Peaks, ") == 2 and "<h3>Peaks, 1 thread," in found.table
    assert '<td class="n">44.50</td>' in found.table


def test_one_number_of_threads_is_not_named_at_each_roof(run):
    assert "threads" not in re.sub("<[^>]*>", " ", figure(run).drawing.markup)
