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
from mmedge.runtime import clock as stages
from mmedge.runtime import pipeline as runtime
from mmedge.runtime.engine import Engine
from mmedge.runtime.pipeline import Pipeline

STOP = 3
FEATURES = Port("features", "float32", (1, 2))


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (runtime, stages, backend):
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
    written = {"tasks": nothing, "components": nothing, "generate": nothing, "prepare": lambda *_: prompt}
    family = Family(name="stub", architectures=(), tiny=(), **written)
    engine = Engine((graph, decoder.graph), {"encoder": encoder, "decoder": decoder})
    return Pipeline(family, {}, tokenizer(), engine, ("caption",))


@pytest.fixture
def serve(clock):
    """Replies of a worker to being told to open a bundle and to look at pictures."""

    def serve(*pictures, **delays: float | list[float]):
        orders, replies = io.BytesIO(), io.BytesIO()
        send(Load("/bundle", None, 0), orders)
        for picture in pictures:
            send(Ask("caption", str(picture), None, spans=True), orders)
        worker = Worker(lambda path, backend, threads: pipeline(delays), clock_ns=clock.perf_counter_ns)
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
    assert {name: ns / 1e6 for name, ns in found.stages_ns.items() if ns} == stages
    assert found.answer_ns / 1e6 == sum(stages.values())


def test_spans_say_when_each_stage_ran(serve, picture):
    [found] = serve(picture, encoder=0.02, decoder=[0.01, 0.005])
    took = [(name, begin / 1e6, end / 1e6) for name, begin, end in found.spans if end > begin]
    assert took[:3] == [("encode", 0, 20), ("prefill", 20, 30), ("decode_loop", 30, 35)]


def test_tokens_come_one_after_the_other(serve, picture):
    [found] = serve(picture, encoder=0.02, decoder=[0.01, 0.005])
    assert found.token_ns == (30_000_000, 35_000_000, 40_000_000)
    assert found.answer_ns == 45_000_000  # the step that ends the answer gives no token


def test_an_error_of_the_pipeline_is_a_reply_and_the_worker_goes_on(serve, picture):
    failed, answered = serve(picture.with_name("none.png"), picture)
    assert failed.kind == "InputError" and answered.text == "4 5 6"
