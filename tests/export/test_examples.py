from pathlib import Path

import numpy as np
from msgspec.structs import replace
from PIL import Image

from mmedge.core.samples import Sample
from mmedge.export.examples import EXAMPLES, JUDGED, QUESTION, hold_out, make_examples


def samples(folder: Path, count: int) -> tuple[Sample, ...]:
    Image.fromarray(np.zeros((700, 20, 3), np.uint8)).save(folder / "one.png")
    return tuple(Sample(f"sample {index}", folder / "one.png", question="why?") for index in range(count))


def test_a_model_is_judged_by_samples_it_was_not_calibrated_with(tmp_path):
    judged, rest, warnings = hold_out(samples(tmp_path, 4 * JUDGED))
    assert len(judged) == JUDGED and len(rest) == 3 * JUDGED
    assert not {sample.id for sample in judged} & {sample.id for sample in rest}
    assert not warnings


def test_too_few_samples_are_used_twice_and_that_is_said(tmp_path):
    judged, rest, (warning,) = hold_out(samples(tmp_path, 8))
    assert len(judged) == JUDGED and len(rest) == 8
    assert "8 are too few" in warning


def test_drawn_pictures_of_several_sizes_fill_up(tmp_path):
    examples = make_examples(samples(tmp_path, 2), ("caption", "ask"), tmp_path)
    assert len(examples) == EXAMPLES
    assert [example.name for example in examples[:3]] == ["sample 0", "sample 1", "drawn 2"]
    assert len({example.request().images[0].shape for example in examples[2:]}) > 3


def test_only_questions_have_a_text(tmp_path):
    examples = make_examples(samples(tmp_path, 2), ("caption", "ask"), tmp_path)
    assert [example.text for example in examples[:4]] == [None, "why?", None, QUESTION]


def test_what_is_embedded_has_a_text_each_its_caption_if_it_has_one(tmp_path):
    with_caption = [replace(sample, caption="a hill") for sample in samples(tmp_path, 1)]
    texts = [example.text for example in make_examples(with_caption, ("embed",), tmp_path)]
    assert texts[0] == "a hill" and len({len(text) for text in texts}) == EXAMPLES


def test_recorded_pictures_are_kept_small(tmp_path):
    first, *_ = make_examples(samples(tmp_path, 1), ("caption",), tmp_path)
    assert max(first.request().images[0].shape) == 512
