"""The checkpoint behind `builtin:scenes-vlm` in transformers, on held-out scenes."""

from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("sklearn")  # the scenes have handwritten digits
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SEEDS = range(12_900_000, 12_900_100)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def scoring():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield import_module("score_scenes")


@pytest.fixture(scope="module")
def model(scoring):
    checkpoint = import_module("score_scenes_vlm")
    return checkpoint.VisionLanguageModel(checkpoint.CHECKPOINT)


@pytest.fixture(scope="module")
def training():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS / "models")
        yield import_module("train_scenes_vlm")


def share_right(model, tasks) -> float:
    answers = model.answers(tasks)
    return sum(answer == task.expected for answer, task in zip(answers, tasks, strict=True)) / len(tasks)


def test_scenes_are_described(scoring, model):
    assert share_right(model, [scoring.caption_task(seed) for seed in SEEDS]) >= 0.93


def test_questions_are_answered(scoring, model):
    assert share_right(model, [scoring.question_task(seed) for seed in SEEDS]) >= 0.97


def test_a_conversation_is_learned_as_the_chat_template_writes_it(training, model):
    asked = [("what colour is the heart?", "red"), ("Is there a big ring?", "no")]
    turns = []
    for number, (question, answer) in enumerate(asked):
        parts = [{"type": "image"}] if number == 0 else []
        turns.append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    written = model.tokenizer.apply_chat_template(turns, tokenize=False)
    written = written.replace("<image>", model.picture_text).removesuffix("\n")
    learned = training.pack([asked], model.tokenizer.backend_tokenizer)
    assert learned[0].tolist() == model.tokenizer(written)["input_ids"]


def test_pictures_are_learned_as_the_image_processor_makes_them(training, model):
    torch = pytest.importorskip("torch")
    batch = training.make_batch([training.draw.imagine(SEEDS[0])], [[[("", "")]]], model.tokenizer.backend_tokenizer)
    made = model.pictures(training.draw.paint(training.draw.imagine(SEEDS[0])), return_tensors="pt")
    assert torch.equal(made["pixel_values"][0], training.normalized(batch.pixels))
