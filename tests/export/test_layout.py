from types import SimpleNamespace

import pytest

from mmedge.core import find
from mmedge.core.family import Component
from mmedge.core.plan import make_plan
from mmedge.core.ports import CacheShape, Port, Span
from mmedge.core.recipe import ComponentPlan, Recipe
from mmedge.export.layout import inner_edges, plan_graph

LENGTHS = {"words": Span(1, 12, 64)}
SIZES = {"length": Span(1, 4, 31), "total": Span(1, 8, 32), **LENGTHS}
PIXELS, SEEN = Port("pixels", "float32", (1, 3, 8, 8)), Port("seen", "float32", (1, 4, 8))
WORDS, READ = Port("words", "int64", (1, "words")), Port("read", "float32", (1, "words", 8))
IDS, LOGITS = Port("input_ids", "int64", (1, "length")), Port("logits", "float32", (1, 1, 9))
COMPONENTS = (
    Component("encoder", print, (PIXELS,), (SEEN,)),
    Component("reader", print, (WORDS, SEEN), (READ,), sizes=LENGTHS),
    Component("decoder", print, (IDS, READ, SEEN), (LOGITS,), CacheShape(1, 2, 4), SIZES),
)
FAMILY = SimpleNamespace(name="small", components=lambda config: COMPONENTS)
CACHE = {"past.0.key", "past.0.value", "present.0.key", "present.0.value"}


def planned(target: str, *components: ComponentPlan):
    recipe = Recipe(name="small", model="small", component=components)
    return make_plan(recipe, find.target(target), FAMILY, {})


def test_a_decoder_with_a_fixed_cache_is_built_for_a_token_and_for_a_prompt():
    graph = plan_graph(planned("jetson").components[2])
    assert [port.name for port in graph.outputs] == ["token", "logits"] and graph.cache.capacity == 32
    one, prompt = graph.profiles
    assert (one["length"], prompt["length"]) == (Span(1, 1, 1), Span(1, 4, 31))
    assert one["words"] == prompt["words"] == LENGTHS["words"]


def test_a_graph_has_ranges_for_the_sizes_that_vary_in_it():
    encoder, reader, decoder = (plan_graph(component) for component in planned("cpu").components)
    assert (encoder.profiles, reader.profiles) == ((), (LENGTHS,))
    assert [port.name for port in decoder.outputs] == ["logits"] and decoder.cache.capacity == 0


def test_what_float16_graphs_hand_on_and_caches_are_float16():
    edges = inner_edges(planned("jetson"))
    assert edges == {"encoder": {"seen"}, "reader": {"seen", "read"}, "decoder": {"seen", "read", *CACHE}}


@pytest.mark.parametrize(("exact", "left"), [("encoder", {"read"}), ("reader", set()), ("decoder", set())])
def test_what_a_float32_graph_makes_or_reads_stays_float32(exact, left):
    edges = inner_edges(planned("jetson", ComponentPlan(exact, "float32")))
    assert edges[exact] == set() and edges["decoder"] - CACHE == (left if exact != "decoder" else set())


def test_an_engine_that_chooses_its_own_types_keeps_float32_edges():
    components = [ComponentPlan(component.name, "float16") for component in COMPONENTS]
    assert set().union(*inner_edges(planned("cpu", *components)).values()) == set()
