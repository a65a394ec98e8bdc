"""The worker around the real pipeline, its graphs replaced by recordings that take a set time."""

import io

import numpy as np
import pytest

from mmedge.backends import replay as backend
from mmedge.backends.replay import ReplaySession, replay
from mmedge.core.bundle import Graph
from mmedge.core.family import Family, Prompt
from mmedge.core.ports import Port
from mmedge.media.text import Tokenizer
from mmedge.profiling.messages import Ask, Load, read_reply, send
from mmedge.profiling.worker import Worker
from mmedge.runtime import pipeline as runtime
from mmedge.runtime.engine import Engine
from mmedge.runtime.pipeline import Pipeline

STOP = 3
FEATURES = Port("features", "float32", (1, 2))


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (runtime, backend):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def picture(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer as Words
    from tokenizers import models

    return Tokenizer(Words(models.WordLevel({str(number): number for number in range(16)}, "0")).to_str().encode())


def pipeline(delays: dict[str, float | list[float]]) -> Pipeline:
    graph = Graph("encoder", "graphs/encoder.onnx", (Port("pixels", "float32", (1, 1)),), (FEATURES,), "float32")
    encoder = ReplaySession(graph, [{"features": np.zeros((1, 2), np.float32)}], delays.get("encoder", 0.0))
    decoder = replay(logits_of=[4, 5, 6, STOP], held=(FEATURES,), delay=delays.get("decoder", 0.0))
    prompt = Prompt({"pixels": np.zeros((1, 1), np.float32)}, np.array([1]), stop=(STOP,), capacity=16)
    nothing = lambda *_: ()  # noqa: E731
    family = Family("stub", (), nothing, nothing, lambda *_: prompt, nothing, ())
    engine = Engine((graph, decoder.graph), {"encoder": encoder, "decoder": decoder})
    return Pipeline(family, {}, tokenizer(), engine, ("caption",))


@pytest.fixture
def serve(clock):
    """Replies of a worker to being told to open a bundle and to look at pictures."""

    def serve(*pictures, **delays: float | list[float]):
        orders, replies = io.BytesIO(), io.BytesIO()
        send(Load("/bundle", None, 0), orders)
        for picture in pictures:
            send(Ask("caption", str(picture), None, None), orders)
        worker = Worker(lambda path, backend, threads: pipeline(delays), clock.perf_counter)
        worker.serve(orders.getvalue().splitlines(), replies)
        return [read_reply(line) for line in replies.getvalue().splitlines()][2:]

    return serve


@pytest.mark.parametrize(
    ("delays", "stages"),
    [
        ({"encoder": 0.02}, {"encode": 20.0}),
        ({"decoder": [0.02, 0.0]}, {"prefill": 20.0}),
        ({"decoder": [0.0, 0.02]}, {"decode_loop": 60.0}),
    ],
)
def test_a_delay_lands_in_the_stage_that_it_is_in(delays, stages, serve, picture):
    [found] = serve(picture, **delays)
    assert {name: ms for name, ms in found.stages_ms.items() if ms} == pytest.approx(stages)
    assert found.answer_ms == pytest.approx(sum(stages.values()))


def test_tokens_come_one_after_the_other(serve, picture):
    [found] = serve(picture, encoder=0.02, decoder=[0.01, 0.005])
    assert found.token_ms == pytest.approx((30.0, 35.0, 40.0))
    assert found.answer_ms == pytest.approx(45.0)  # the step that ends the answer gives no token


def test_an_error_of_the_pipeline_is_a_reply_and_the_worker_goes_on(serve, picture):
    failed, answered = serve(picture.with_name("none.png"), picture)
    assert failed.kind == "InputError" and answered.text == "4 5 6"
