from pathlib import Path

import numpy as np
import pytest
import soundfile
from msgspec.structs import replace
from PIL import Image

from mmedge.core.samples import Sample
from mmedge.errors import InputError
from mmedge.export.examples import (
    EXAMPLES,
    JUDGED,
    LONGEST_SECONDS,
    QUESTION,
    SECONDS,
    hold_out,
    make_examples,
    request_of,
)


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


def test_drawn_sounds_are_of_several_lengths_and_at_the_rate_that_is_heard(tmp_path):
    examples = make_examples((), ("embed",), tmp_path, rate=8_000)
    heard = [example.request().sounds[0] for example in examples]
    assert {each.rate for each in heard} == {8_000}
    assert [len(each.samples) / 8_000 for each in heard] == list(SECONDS)
    assert not any(example.request().images for example in examples)
    assert len({len(example.text) for example in examples}) == EXAMPLES


def test_recorded_sounds_are_kept_short_and_at_the_rate_that_is_heard(tmp_path):
    file = tmp_path / "long.wav"
    soundfile.write(file, np.zeros((16_000 * 20, 2), np.float32), 16_000)
    first, *_ = make_examples([Sample("long", None, audio=file, caption="rain")], ("embed",), tmp_path, rate=8_000)
    (sound,) = first.request().sounds
    assert sound.rate == 8_000 and len(sound.samples) == 8_000 * LONGEST_SECONDS and first.text == "rain"


def test_a_sound_that_cannot_be_read_is_named_or_one_is_drawn_in_its_place(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    sample = Sample("bad", None, audio=tmp_path / "bad.wav")
    with pytest.raises(InputError, match=r"bad\.wav") as caught:
        make_examples([sample], ("embed",), tmp_path, rate=8_000)
    assert caught.value.hint
    assert make_examples([sample], ("embed",), tmp_path, rate=8_000, skip_bad=True)[0].name == "drawn 0"


def test_a_sample_that_is_heard_is_calibrated_with_as_it_is_judged(tmp_path):
    example = make_examples((), ("embed",), tmp_path, rate=8_000)[0]
    again = request_of(example.sample(), example.text)
    np.testing.assert_array_equal(again.sounds[0].samples, example.request().sounds[0].samples)
