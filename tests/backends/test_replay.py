import time

import numpy as np
import pytest

from mmedge.backends.replay import Replay, replay
from mmedge.core.manifest import Graph
from mmedge.core.ports import Port
from mmedge.errors import BackendError, InputError

GRAPH = Graph("encoder", "graphs/encoder.onnx", (Port("x", "float32", (1, 2)),), (), "float32")
FEEDS = {"x": np.zeros((1, 2), np.float32)}


def step(position, *tokens):
    return {"input_ids": np.array([tokens]), "position_ids": np.arange(position, position + len(tokens))[None]}


def test_a_decoder_writes_the_given_tokens_again_after_each_reset():
    decoder = replay(logits_of=[4, 7, 9], vocabulary=16)
    for _ in range(2):
        decoder.reset()
        logits = [decoder.run(step(position, 1))["logits"] for position in range(3)]
        assert [one.shape for one in logits] == [(1, 1, 16)] * 3
        assert [int(one.argmax()) for one in logits] == [4, 7, 9]


def test_it_tells_what_was_done_with_it():
    decoder = replay(logits_of=[4, 7], held=[Port("cross.0.key", "float32", (1, 1, "source", 1))])
    cross = {"cross.0.key": np.zeros((1, 1, 3, 1), np.float32)}
    decoder.reset(cross)
    decoder.run(step(0, 1, 2, 3))
    decoder.run(step(3, 4))
    assert (decoder.length, decoder.resets, len(decoder.runs)) == (4, 1, 2)
    assert decoder.held.keys() == cross.keys()
    decoder.reset(cross)
    assert (decoder.length, decoder.resets, len(decoder.runs)) == (0, 2, 2)


def test_it_refuses_wrong_feeds_as_engines_do():
    with pytest.raises(
        InputError, match=r"input `position_ids` of `decoder` is int64 \[1, 1\], expected int64 \[1, 2\]"
    ):
        replay([1]).run({**step(0, 1, 2), "position_ids": np.array([[0]])})


def test_a_recording_that_ended_is_not_made_up():
    decoder = replay([5])
    decoder.run(step(0, 1))
    with pytest.raises(BackendError, match="the recording of `decoder` ends after 1 runs"):
        decoder.run(step(1, 1))


def test_a_closed_session_refuses_to_run():
    decoder = replay([5])
    decoder.close()
    with pytest.raises(BackendError, match="the session of `decoder` is closed"):
        decoder.run(step(0, 1))


def test_runs_take_the_given_time_one_after_the_other(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    session = Replay({"encoder": [{}] * 4}, {"encoder": [0.9, 0.1]}).open(GRAPH, "unused")
    for _ in range(4):
        session.run(FEEDS)
    assert slept == [0.9, 0.1, 0.1, 0.1]


def test_a_backend_answers_with_the_recorded_outputs_of_each_component():
    recorded = {"y": np.array([1.0])}
    backend = Replay({"encoder": [recorded]})
    assert backend.open(GRAPH, "unused").run(FEEDS) is recorded


def test_a_component_without_recording_is_refused():
    with pytest.raises(BackendError, match="there is no recording of `encoder`"):
        Replay().open(GRAPH, "unused")
