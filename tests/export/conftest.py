"""Two small real graphs as the tracer writes them: a picture tower, and a decoder with a cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mmedge.core import find
from mmedge.core.manifest import Graph
from mmedge.core.ports import CacheShape, Port, Tensors

SIDE, PATCH, WIDTH, HEADS, INNER, VOCABULARY = 32, 8, 64, 2, 128, 96
TOKENS, HEAD_DIM = (SIDE // PATCH) ** 2, WIDTH // HEADS

TOWER = Graph(
    component="tower",
    file="graphs/tower.onnx",
    inputs=(Port("pixels", "float32", (1, 3, SIDE, SIDE)),),
    outputs=(
        Port("key", "float32", (1, HEADS, TOKENS, HEAD_DIM)),
        Port("value", "float32", (1, HEADS, TOKENS, HEAD_DIM)),
    ),
    precision="float32",
)
DECODER = Graph(
    component="decoder",
    file="graphs/decoder.onnx",
    inputs=(
        Port("input_ids", "int64", (1, "length")),
        Port("position_ids", "int64", (1, "length")),
        Port("key", "float32", (1, HEADS, TOKENS, HEAD_DIM)),
        Port("value", "float32", (1, HEADS, TOKENS, HEAD_DIM)),
    ),
    outputs=(Port("logits", "float32", (1, 1, VOCABULARY)),),
    precision="float32",
    cache=CacheShape(layers=1, heads=HEADS, head_dim=HEAD_DIM),
)


@dataclass
class Draft:
    """A graph in the making; its methods add nodes and return the names of their outputs."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, *inputs: str | np.ndarray, name: str = "", outputs: int = 1, **attributes: object) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        names = [entry if isinstance(entry, str) else self.constant(entry) for entry in inputs]
        made = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Equal values share one constant, as the tracer's clean-up leaves them."""
        for tensor in self.constants:
            if np.array_equal(numpy_helper.to_array(tensor), value) and tensor.dims == list(value.shape):
                return tensor.name
        self.constants.append(numpy_helper.from_array(value, f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def weights(self, *shape: int) -> np.ndarray:
        return self.random.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

    def linear(self, source: str, inputs: int, outputs: int, name: str) -> str:
        product = self.add("MatMul", source, self.weights(inputs, outputs), name=name)
        bias = np.zeros(outputs, np.float32) if name.endswith("zero") else self.random.normal(0, 0.5, outputs)
        return self.add("Add", product, bias.astype(np.float32), name=f"{name}_bias")

    def norm(self, source: str) -> str:
        scale, shift = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        return self.add("LayerNormalization", source, scale, shift, axis=-1)

    def heads(self, source: str, name: str = "") -> str:
        rows = self.add("Reshape", source, np.array([1, -1, HEADS, HEAD_DIM]))
        return self.add("Transpose", rows, perm=[0, 2, 1, 3], name=name)

    def joined(self, heads: str) -> str:
        return self.add("Reshape", self.add("Transpose", heads, perm=[0, 2, 1, 3]), np.array([1, -1, WIDTH]))

    def mlp(self, source: str) -> str:
        wide = self.add("Gelu", self.linear(source, WIDTH, INNER, "mlp_in"))
        return self.linear(wide, INNER, WIDTH, "mlp_out_zero")

    def attention(self, query: str, key: str, value: str, opset: int) -> str:
        """A single operator since opset 23."""
        if opset >= 23:
            return self.add("Attention", query, key, value, name="attention")
        turned = self.add("Transpose", key, perm=[0, 1, 3, 2])
        scaled = self.add("Mul", query, np.array(HEAD_DIM**-0.5, np.float32))
        return self.add(
            "MatMul", self.add("Softmax", self.add("MatMul", scaled, turned, name="scores")), value, name="attention"
        )

    def model(self, graph: Graph, opset: int = 23) -> onnx.ModelProto:
        past, present = (graph.cache.past(), graph.cache.present()) if graph.cache else ((), ())
        infos = [
            [helper.make_tensor_value_info(port.name, _kind(port), port.shape) for port in ports]
            for ports in ((*graph.inputs, *past), (*graph.outputs, *present))
        ]
        body = helper.make_graph(self.nodes, graph.component, *infos, self.constants)
        return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _kind(port: Port) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))


def draw_tower(opset: int = 23) -> Draft:
    """Patches, one layer of attention and MLP, and the keys and values that a decoder reads."""
    draft = Draft(np.random.default_rng(1))
    patches = draft.add("Conv", "pixels", draft.weights(WIDTH, 3, PATCH, PATCH), strides=[PATCH, PATCH], name="patches")
    rows = draft.add("Transpose", draft.add("Reshape", patches, np.array([1, WIDTH, -1])), perm=[0, 2, 1])
    draft.linear(draft.norm(rows), WIDTH, 3 * WIDTH, "qkv")
    draft.add("Split", "qkv_bias", axis=-1, num_outputs=3, outputs=3, name="parts")
    context = draft.attention(*(draft.heads(f"parts.{index}") for index in range(3)), opset)
    seen = draft.add("Add", draft.linear(draft.joined(context), WIDTH, WIDTH, "projection_zero"), rows)
    final = draft.norm(draft.add("Add", seen, draft.mlp(draft.norm(seen))))
    for name in ("key", "value"):
        draft.heads(draft.linear(final, WIDTH, WIDTH, f"to_{name}"), name=name)
    return draft


def draw_decoder() -> Draft:
    """Embeddings, attention over the cache, cross-attention and logits of the last position; norms come after
    the sums, and query, key and value weights are joined by the graph itself."""
    draft = Draft(np.random.default_rng(2))
    words = draft.add("Gather", draft.weights(VOCABULARY, WIDTH) * 4, "input_ids", name="words")
    places = draft.add("Gather", draft.weights(WIDTH, WIDTH), "position_ids", name="places")
    hidden = draft.norm(draft.add("Add", words, places))
    joint = draft.add("Concat", *(draft.weights(WIDTH, WIDTH) for _ in range(3)), axis=0)
    qkv = draft.add("MatMul", hidden, draft.add("Transpose", joint, perm=[1, 0]), name="qkv")
    draft.add("Split", qkv, axis=-1, num_outputs=3, outputs=3, name="parts")
    query, key, value = (draft.heads(f"parts.{index}") for index in range(3))
    past = [
        draft.add("Concat", f"past.0.{part}", new, axis=2, name=f"present.0.{part}")
        for part, new in (("key", key), ("value", value))
    ]
    total = draft.add("Squeeze", draft.add("Shape", past[0], start=2, end=3))
    keys = draft.add("Range", np.array(0), total, np.array(1))
    mask = draft.add("LessOrEqual", keys, draft.add("Transpose", "position_ids", perm=[1, 0]))
    context = draft.add("Attention", query, *past, mask, name="attention")
    hidden = draft.norm(draft.add("Add", draft.linear(draft.joined(context), WIDTH, WIDTH, "projection_zero"), hidden))
    looked = draft.add("Attention", draft.heads(draft.linear(hidden, WIDTH, WIDTH, "query")), "key", "value")
    hidden = draft.norm(draft.add("Add", draft.joined(looked), hidden))
    hidden = draft.norm(draft.add("Add", draft.mlp(hidden), hidden))
    last = draft.add("Slice", hidden, np.array([-1]), np.array([1 << 60]), np.array([1]))
    draft.add("MatMul", last, draft.weights(WIDTH, VOCABULARY), name="logits")
    return draft


def save(model: onnx.ModelProto, path: Path) -> Path:
    """As the export does: large weights beside the graph."""
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    return path


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    return save(draw_tower().model(TOWER), tmp_path / "tower.onnx")


@pytest.fixture
def old_tower(tmp_path: Path) -> Path:
    """In the operator set that every TensorRT reads."""
    return save(draw_tower(opset=20).model(TOWER, opset=20), tmp_path / "old_tower.onnx")


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return save(draw_decoder().model(DECODER), tmp_path / "decoder.onnx")


@pytest.fixture
def pictures() -> list[Tensors]:
    """Smooth pictures of different brightness, as feeds of the tower."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    return [
        {"pixels": (np.sin(6 * (a * rows + b * columns + c)) + d)[None].astype(np.float32)}
        for a, b, c, d in random.uniform(-1, 1, (16, 4, 3, 1, 1))
    ]


@pytest.fixture
def graphs() -> SimpleNamespace:
    return SimpleNamespace(tower=TOWER, decoder=DECODER)


@pytest.fixture
def sessions(tower: Path, decoder: Path) -> SimpleNamespace:
    """Both graphs, open on the reference engine."""
    backend = find.backend("onnxruntime")
    return SimpleNamespace(tower=backend.open(TOWER, tower, 1), decoder=backend.open(DECODER, decoder, 1))
