"""The flow of values between graphs, on recorded outputs."""

import numpy as np

from mmedge.backends.replay import ReplaySession, replay
from mmedge.core.bundle import Graph
from mmedge.core.family import Prompt
from mmedge.core.ports import Port
from mmedge.runtime.decode import Reading
from mmedge.runtime.engine import Engine

FEATURES = Port("features", "float32", (1, 2))
SEEN = np.array([[1.5, 2.5]], np.float32)


def prompt_of(**feeds: np.ndarray) -> Prompt:
    return Prompt(feeds, np.array([1]), stop=(), capacity=9)


def tower() -> ReplaySession:
    graph = Graph("encoder", "graphs/encoder.onnx", (Port("pixels", "float32", (1, 1)),), (FEATURES,), "float32")
    return ReplaySession(graph, [{"features": SEEN}])


def embedding() -> ReplaySession:
    """A graph that runs at every step, because it reads the tokens, and needs what the tower saw."""
    ids, embeds = Port("input_ids", "int64", (1, "length")), Port("embeds", "float32", (1, "length"))
    graph = Graph("embed", "graphs/embed.onnx", (ids, FEATURES), (embeds,), "float32")
    return ReplaySession(graph, [{"embeds": np.zeros((1, 1), np.float32)}] * 4)


def test_what_a_tower_saw_is_held_by_the_decoder_and_not_fed_again():
    encoder, decoder = tower(), replay(logits_of=[4, 5], held=(FEATURES,))
    engine = Engine((encoder.graph, decoder.graph), {"encoder": encoder, "decoder": decoder})
    engine.begin(engine.encode(prompt_of(pixels=np.zeros((1, 1), np.float32))))
    engine.step(Reading(np.array([[1]]), np.array([[0]])))
    assert decoder.held == {"features": SEEN}
    assert sorted(decoder.runs[0]) == ["input_ids", "position_ids"]


def test_the_logits_are_those_of_the_last_position():
    decoder = replay(logits_of=[4])
    engine = Engine((decoder.graph,), {"decoder": decoder})
    engine.begin({})
    assert engine.step(Reading(np.array([[1, 2]]), np.array([[0, 1]]))).argmax() == 4


def test_a_graph_that_reads_tokens_runs_at_every_step():
    encoder, embed, decoder = tower(), embedding(), replay(logits_of=[4, 5])
    sessions = {"encoder": encoder, "embed": embed, "decoder": decoder}
    engine = Engine((encoder.graph, embed.graph, decoder.graph), sessions)
    engine.begin(engine.encode(prompt_of(pixels=np.zeros((1, 1), np.float32))))
    for position in range(2):
        engine.step(Reading(np.array([[1]]), np.array([[position]])))
    assert (len(encoder.runs), len(embed.runs), len(decoder.runs)) == (1, 2, 2)
    assert list(embed.held) == ["features"]


def test_a_new_answer_empties_the_cache():
    decoder = replay(logits_of=[4, 5])
    engine = Engine((decoder.graph,), {"decoder": decoder})
    for _ in range(2):
        engine.begin({})
        engine.step(Reading(np.array([[1, 2]]), np.array([[0, 1]])))
    assert decoder.length == 2
