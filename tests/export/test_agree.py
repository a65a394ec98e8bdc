import copy
import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec.structs
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mmedge.core import find
from mmedge.core.bundle import Graph
from mmedge.core.plan import make_plan
from mmedge.core.recipe import Acceptance, Recipe
from mmedge.core.report import Answers
from mmedge.errors import QualityError
from mmedge.export.agree import Score, compare_answers, compare_graphs, compare_preprocessing, judge
from mmedge.export.examples import make_examples
from mmedge.export.load import load_model, read_checkpoint
from mmedge.export.tidy import tidy, write
from mmedge.export.trace import trace
from mmedge.media.text import Tokenizer
from mmedge.runtime.engine import Engine
from mmedge.runtime.pipeline import Pipeline

EXAMPLES = 4


@pytest.fixture(scope="module")
def traced(tiny_checkpoint, tmp_path_factory):
    """A captioning checkpoint, its plan in float32, and its graphs in a folder."""
    work = tmp_path_factory.mktemp("traced")
    checkpoint = read_checkpoint(tiny_checkpoint(0, work / "checkpoint"))
    recipe = Recipe(name="tiny", model=str(checkpoint.folder))
    plan = make_plan(recipe, find.target("cpu"), checkpoint.family, checkpoint.config)
    model = load_model(checkpoint)
    graphs = [export(component, model, work) for component in plan.components]
    examples = make_examples((), plan.family.tasks(plan.config), work, EXAMPLES)
    return SimpleNamespace(checkpoint=checkpoint, plan=plan, model=model, graphs=graphs, folder=work, examples=examples)


def export(component, model, folder: Path) -> Graph:
    file = f"{component.name}.onnx"
    write(tidy(trace(component, model, 23)), folder / file)
    return Graph(component.name, file, component.inputs, component.outputs, "float32", component.cache)


def verdict(traced, folder: Path, plan=None) -> tuple:
    """Compare the graphs in ``folder`` with torch and judge them, as an export does."""
    plan = plan or traced.plan
    backend = find.backend("onnxruntime")
    sessions = {graph.component: backend.open(graph, folder / graph.file) for graph in traced.graphs}
    tokenizer = Tokenizer((traced.checkpoint.folder / "tokenizer.json").read_bytes(), clean_up_spaces=False)
    with Pipeline(plan.family, plan.config, tokenizer, Engine(traced.graphs, sessions), ("caption", "ask")) as pipeline:
        agreement = compare_graphs(plan, traced.model, pipeline, traced.examples)
        answers = compare_answers(plan, traced.model, traced.checkpoint.processor, pipeline, traced.examples)
        judge(plan, agreement, answers)
        return agreement, answers, compare_preprocessing(pipeline, traced.checkpoint.processor, traced.examples)


@pytest.fixture
def plant(traced, tmp_path):
    """``plant(component, change)``: a copy of the graphs of which one is changed."""

    def copied(component: str, change) -> Path:
        for graph in traced.graphs:
            for name in (graph.file, f"{graph.file}.data"):
                shutil.copyfile(traced.folder / name, tmp_path / name)
        model = onnx.load(tmp_path / f"{component}.onnx")
        change(model.graph)
        (tmp_path / f"{component}.onnx.data").unlink()
        onnx.save(model, tmp_path / f"{component}.onnx")
        return tmp_path

    return copied


def weights(graph: onnx.GraphProto, *shape: int) -> list[onnx.TensorProto]:
    return [tensor for tensor in graph.initializer if tuple(tensor.dims) == shape]


def scale(tensor: onnx.TensorProto, factor: float, rows=slice(None)) -> None:
    values = numpy_helper.to_array(tensor).copy()
    values[rows] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]


def test_faithful_graphs_pass(traced):
    agreement, answers, preprocessing = verdict(traced, traced.folder)
    assert [seen.component for seen in agreement] == ["encoder", "decoder"]
    for seen in agreement:
        assert seen.max_abs < 1e-3 and seen.cosine > 0.9999 and seen.samples == EXAMPLES
    assert answers == Answers(EXAMPLES, EXAMPLES) and preprocessing <= 2 / 255


@pytest.mark.parametrize(("component", "shape"), [("encoder", (32, 32)), ("decoder", (32, 64))])
def test_a_changed_weight_is_found(component, shape, traced, plant):
    def change(graph):
        scale(weights(graph, *shape)[0], 1.5)

    with pytest.raises(QualityError) as caught:
        verdict(traced, plant(component, change))
    assert re.fullmatch(
        rf"`{component}` in float32 has a cosine of [01]\.[0-9]+ to torch, the recipe accepts 0.9999; "
        r"worst on drawn [0-3] \([a-z.0-9]+\)",
        caught.value.message,
    )
    assert caught.value.exit_code == 7 and f"`{component}`" in caught.value.hint


def test_a_slightly_changed_weight_is_found_by_the_largest_difference(traced, plant):
    def change(graph):
        scale(weights(graph, 32, 32)[0], 1.005)

    with pytest.raises(QualityError) as caught:
        verdict(traced, plant("encoder", change))
    assert re.fullmatch(
        r"`encoder` in float32 differs from torch by [0-9.e-]+, the recipe accepts 0.001; worst on drawn [0-3] \(.*\)",
        caught.value.message,
    )


def test_the_worst_sample_is_named(traced, plant):
    """Only questions have this word, and they are every second example."""
    token = traced.checkpoint.processor.tokenizer.convert_tokens_to_ids("w")

    def change(graph):
        scale(weights(graph, 64, 32)[0], -1, rows=token)

    with pytest.raises(QualityError, match=r"`decoder` .* worst on drawn [13] \(logits\)"):
        verdict(traced, plant("decoder", change))


def test_swapped_outputs_are_found(traced, plant):
    def change(graph):
        rename(graph, {"cross.0.key": "cross.0.value", "cross.0.value": "cross.0.key"})

    with pytest.raises(QualityError, match=r"`encoder` .* cosine .* worst on drawn [0-3] \(cross.0.(key|value)\)"):
        verdict(traced, plant("encoder", change))


def test_a_decoder_that_forgets_the_past_is_found(traced, plant):
    def change(graph):
        zero = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.float32(0)))
        names = [value.name for value in graph.input if value.name.startswith("past.")]
        rename(graph, {name: f"{name}.forgotten" for name in names})
        nodes = [zero, *(helper.make_node("Mul", [name, "zero"], [f"{name}.forgotten"]) for name in names), *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)

    with pytest.raises(QualityError, match=r"`decoder` in float32 has a cosine .* \(logits\)"):
        verdict(traced, plant("decoder", change))


def test_values_that_are_not_finite_are_no_agreement(traced, plant):
    def change(graph):
        scale(weights(graph, 32, 32)[0], np.inf)

    with pytest.raises(
        QualityError, match=r"`encoder` in float32: the graph gives values that are not finite on drawn 0"
    ):
        verdict(traced, plant("encoder", change))


def test_a_family_that_forgets_a_layer_is_found_by_the_answers(traced, tmp_path):
    """Its graph agrees with its torch component: both are wrong alike."""
    encoder, decoder = traced.plan.components
    shallow = copy.deepcopy(traced.model)
    del shallow.vision_model.encoder.layers[-1]
    forgetful = dataclasses.replace(encoder, forward=lambda model, pixels: encoder.forward(shallow, pixels))
    plan = dataclasses.replace(traced.plan, components=(forgetful, decoder))
    export(forgetful, traced.model, tmp_path)
    for name in ("decoder.onnx", "decoder.onnx.data"):
        shutil.copyfile(traced.folder / name, tmp_path / name)
    with pytest.raises(QualityError) as caught:
        verdict(traced, tmp_path, plan)
    assert re.fullmatch(
        r"[0-3] of 4 answers are those of torch, the recipe accepts a share of 1; drawn [0-3]: `.*`, torch `.*`",
        caught.value.message,
    )


def test_the_recipe_says_what_is_accepted(traced, plant):
    def change(graph):
        scale(weights(graph, 32, 32)[0], 1.005)

    folder = plant("encoder", change)
    lenient = Acceptance(cosine=0.99, answers=0.0, max_abs=1.0)
    verdict(traced, folder, dataclasses.replace(traced.plan, accept=lenient))
    strict = msgspec.structs.replace(lenient, max_abs=1e-9)
    with pytest.raises(QualityError, match="the recipe accepts 1e-09"):
        verdict(traced, folder, dataclasses.replace(traced.plan, accept=strict))


def test_a_component_that_never_ran_is_no_agreement():
    with pytest.raises(QualityError, match="`encoder` was not run"):
        Score("encoder", "float32").result()


def test_a_score_remembers_where_each_was_worst():
    score = Score("encoder", "int8")
    score.add(np.array([1.0, 0.0]), np.array([1.0, 0.1]), "a", "x")
    score.add(np.array([100.0, 0.0]), np.array([101.0, 0.0]), "b", "y")
    seen = score.result()
    assert (seen.worst, seen.farthest, seen.samples) == ("a (x)", "b (y)", 2)
    assert seen.max_abs == 1.0 and seen.cosine == pytest.approx(1 / 1.01**0.5)


def test_outputs_of_nothing_but_zeros_agree_only_with_themselves():
    score = Score("encoder", "float32")
    score.add(np.zeros(3), np.zeros(3), "a", "x")
    assert score.result().cosine == 1
    score.add(np.zeros(3), np.array([0, 1e-9, 0]), "b", "x")
    assert score.result().cosine == 0
