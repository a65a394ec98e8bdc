"""Two small real graphs, a tower and a decoder with cross-attention, and what they compute written again in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import helper, numpy_helper

from mmedge.core import find
from mmedge.core.backend import Backend, Session
from mmedge.core.manifest import Graph
from mmedge.core.ports import CacheShape, Port, Span, Tensors

LAYERS, HEADS, HEAD_DIM, VOCABULARY, POSITIONS = 2, 2, 8, 20, 32
WIDTH = HEADS * HEAD_DIM
PARTS = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]

TOWER = Graph(
    component="tower",
    file="graphs/tower.onnx",
    inputs=(Port("pixels", "float32", (1, 3, 8, "width")), Port("wanted", "int64", (1, "count"))),
    outputs=(Port("features", "float32", (1, "count", 4)), Port("total", "float32", ())),
    precision="float32",
)
DECODER = Graph(
    component="decoder",
    file="graphs/decoder.onnx",
    inputs=(
        Port("input_ids", "int64", (1, "length")),
        Port("position_ids", "int64", (1, "length")),
        *(Port(f"cross.{part}", "float32", (1, HEADS, "source", HEAD_DIM)) for part in PARTS),
    ),
    outputs=(Port("logits", "float32", (1, 1, VOCABULARY)),),
    precision="float32",
    cache=CacheShape(LAYERS, HEADS, HEAD_DIM),
)
CAPACITY = 16
SOURCE = Span(1, 5, 9)
ENGINES = ("onnxruntime", "openvino")


def fixed_decoder(dtype: str = "float32") -> Graph:
    """The decoder with a cache of fixed length, which chooses the token itself: as engines that are built want it."""
    return replace(
        DECODER,
        outputs=(Port("token", "int64", (1, 1)), *DECODER.outputs),
        cache=CacheShape(LAYERS, HEADS, HEAD_DIM, dtype, CAPACITY),
        profiles=({"length": Span(1, 1, 1), "source": SOURCE}, {"length": Span(1, 4, 12), "source": SOURCE}),
    )


@dataclass
class Draft:
    """An ONNX graph in the making; calling it adds a node and returns the name of its output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, kind: str, *inputs: str | np.ndarray, name: str = "", **attributes: object) -> str:
        name = name or f"{kind}_{len(self.nodes)}"
        names = [entry if isinstance(entry, str) else self.constant(entry) for entry in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def write(self, graph: Graph, path: Path, opset: int = 23) -> Path:
        cache = graph.cache
        made = (*cache.past(), *cache.steering()) if cache else ()
        inputs = [_value(port) for port in (*graph.inputs, *made)]
        outputs = [_value(port) for port in (*graph.outputs, *(cache.present() if cache else ()))]
        model = helper.make_model(
            helper.make_graph(self.nodes, graph.component, inputs, outputs, self.constants),
            ir_version=10,
            opset_imports=[helper.make_opsetid("", opset)],
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=512)
        return path


def _value(port: Port) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, kind, list(port.shape))


class TinyDecoder:
    """Post-norm transformer as BLIP's: self-attention with cache, cross-attention to held keys and values."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)

        def weight(*shape: int) -> np.ndarray:
            return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

        self.words, self.places = weight(VOCABULARY, WIDTH), weight(POSITIONS, WIDTH)
        self.layers = [{name: weight(WIDTH, WIDTH) for name in "qkvoxcud"} for _ in range(LAYERS)]
        self.head = weight(WIDTH, VOCABULARY)

    def logits(self, tokens: list[int], held: Tensors) -> np.ndarray:
        """Of the last token, everything computed anew."""
        hidden = self.words[tokens] + self.places[: len(tokens)]
        mask = np.where(np.tri(len(tokens), dtype=bool), 0.0, -np.inf)
        for index, layer in enumerate(self.layers):
            query, key, value = (_split(hidden @ layer[name]) for name in "qkv")
            hidden = _norm(hidden + _attend(query, key, value, mask) @ layer["o"])
            cross = (held[f"cross.{index}.{part}"][0] for part in ("key", "value"))
            hidden = _norm(hidden + _attend(_split(hidden @ layer["x"]), *cross, 0.0) @ layer["c"])
            hidden = _norm(hidden + np.maximum(hidden @ layer["u"], 0) @ layer["d"])
        return (hidden[-1:] @ self.head)[None]

    def write(self, path: Path) -> Path:
        draft = Draft()
        hidden = draft("Add", draft("Gather", self.words, "input_ids"), draft("Gather", self.places, "position_ids"))
        mask = _draft_mask(draft)
        for index, layer in enumerate(self.layers):
            query, key, value = (_draft_split(draft, draft("MatMul", hidden, layer[name])) for name in "qkv")
            key, value = (
                draft("Concat", f"past.{index}.{part}", new, axis=2, name=f"present.{index}.{part}")
                for part, new in (("key", key), ("value", value))
            )
            hidden = _draft_add(draft, hidden, _draft_join(draft, "Attention", query, key, value, mask), layer["o"])
            query = _draft_split(draft, draft("MatMul", hidden, layer["x"]))
            cross = (f"cross.{index}.{part}" for part in ("key", "value"))
            hidden = _draft_add(draft, hidden, _draft_join(draft, "Attention", query, *cross), layer["c"])
            hidden = _draft_add(draft, hidden, draft("Relu", draft("MatMul", hidden, layer["u"])), layer["d"])
        last = draft("Slice", hidden, np.array([-1]), np.array([1 << 40]), np.array([1]))
        draft("MatMul", last, self.head, name="logits")
        return draft.write(DECODER, path)

    def write_fixed(self, graph: Graph, path: Path, kind: str = "ScatterND") -> Path:
        """The same numbers with plain operators of opset 17, the cache written by ``kind``."""
        draft = Draft()
        hidden = draft("Add", draft("Gather", self.words, "input_ids"), draft("Gather", self.places, "position_ids"))
        slots = _draft_slots(draft)
        for index, layer in enumerate(self.layers):
            query, key, value = (_draft_split(draft, draft("MatMul", hidden, layer[name])) for name in "qkv")
            key, value = (
                _draft_keep(draft, f"{index}.{part}", new, slots, kind, graph.cache.dtype)
                for part, new in (("key", key), ("value", value))
            )
            hidden = _draft_add(draft, hidden, _draft_plain(draft, query, key, value, "attention_bias"), layer["o"])
            query = _draft_split(draft, draft("MatMul", hidden, layer["x"]))
            cross = (f"cross.{index}.{part}" for part in ("key", "value"))
            hidden = _draft_add(draft, hidden, _draft_plain(draft, query, *cross), layer["c"])
            hidden = _draft_add(draft, hidden, draft("Relu", draft("MatMul", hidden, layer["u"])), layer["d"])
        last = draft("Slice", hidden, np.array([-1]), np.array([1 << 40]), np.array([1]))
        logits = draft("MatMul", last, self.head, name="logits")
        draft("ArgMax", logits, axis=-1, keepdims=0, name="token")
        return draft.write(graph, path, opset=17 if kind == "ScatterND" else 24)


def _draft_slots(draft: Draft) -> str:
    """Slots of the cache that a step writes, [length, 1]."""
    length = draft("Squeeze", draft("Shape", "input_ids", start=1, end=2))
    slots = draft("Add", draft("Range", np.array(0), length, np.array(1)), "cache_position")
    return draft("Unsqueeze", slots, np.array([1]))


def _draft_keep(draft: Draft, name: str, new: str, slots: str, kind: str, dtype: str) -> str:
    """The past with ``new`` written into it."""
    past, present = f"past.{name}", f"present.{name}"
    new = draft("Cast", new, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    if kind == "TensorScatter":
        draft("TensorScatter", past, new, "cache_position", axis=2, name=present)
    else:
        by_slot = [draft("Transpose", value, perm=[2, 0, 1, 3]) for value in (past, new)]
        draft("Transpose", draft("ScatterND", by_slot[0], slots, by_slot[1]), perm=[1, 2, 0, 3], name=present)
    return draft("Cast", present, to=onnx.TensorProto.FLOAT)


def _draft_plain(draft: Draft, query: str, key: str, value: str, bias: str = "") -> str:
    """Attention without an operator of its own."""
    scale = np.float32(HEAD_DIM**-0.5)
    scores = draft("MatMul", draft("Mul", query, scale), draft("Transpose", key, perm=[0, 1, 3, 2]))
    weights = draft("Softmax", draft("Add", scores, bias) if bias else scores, axis=-1)
    heads = draft("Transpose", draft("MatMul", weights, value), perm=[0, 2, 1, 3])
    return draft("Reshape", heads, np.array([1, -1, WIDTH]))


def _draft_mask(draft: Draft) -> str:
    """0 for what a position may see, a large negative number for what comes later."""
    past, length = (
        draft("Shape", name, start=axis, end=axis + 1) for name, axis in (("past.0.key", 2), ("input_ids", 1))
    )
    total = draft("Squeeze", draft("Add", past, length))
    places = draft("Range", np.array(0), total, np.array(1))
    later = draft("Greater", places, draft("Reshape", "position_ids", np.array([-1, 1])))
    return draft("Unsqueeze", draft("Where", later, np.float32([-1e9]), np.float32([0])), np.array([0, 1]))


def _draft_split(draft: Draft, hidden: str) -> str:
    return draft("Transpose", draft("Reshape", hidden, np.array([1, -1, HEADS, HEAD_DIM])), perm=[0, 2, 1, 3])


def _draft_join(draft: Draft, kind: str, *inputs: str) -> str:
    heads = draft("Transpose", draft(kind, *inputs), perm=[0, 2, 1, 3])
    return draft("Reshape", heads, np.array([1, -1, WIDTH]))


def _draft_add(draft: Draft, hidden: str, block: str, weight: np.ndarray) -> str:
    ones = np.ones(WIDTH, np.float32)
    return draft("LayerNormalization", draft("Add", hidden, draft("MatMul", block, weight)), ones, epsilon=1e-5)


def _split(hidden: np.ndarray) -> np.ndarray:
    return hidden.reshape(-1, HEADS, HEAD_DIM).swapaxes(0, 1)


def _attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | float) -> np.ndarray:
    scores = np.exp(query @ key.swapaxes(1, 2) / np.sqrt(HEAD_DIM) + mask)
    return (scores / scores.sum(-1, keepdims=True) @ value).swapaxes(0, 1).reshape(-1, WIDTH)


def _norm(hidden: np.ndarray) -> np.ndarray:
    centred = hidden - hidden.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def write_tower(path: Path) -> Path:
    """Average of the picture's columns by 4 fixed weights, picked by ``wanted``, and the sum of the picture."""
    draft = Draft()
    columns = draft("Transpose", draft("ReduceMean", "pixels", axes=[1], keepdims=0), perm=[0, 2, 1])
    weights = np.arange(32, dtype=np.float32).reshape(8, 4)
    picked = draft("Gather", draft("MatMul", columns, weights), draft("Squeeze", "wanted", np.array([0])), axis=1)
    draft("Identity", picked, name="features")
    draft("ReduceSum", "pixels", name="total", keepdims=0)
    return draft.write(TOWER, path, opset=17)


@pytest.fixture(scope="session")
def tiny() -> TinyDecoder:
    return TinyDecoder()


@pytest.fixture(scope="session")
def fixed_source(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Graph, Path]]:
    """``fixed_source(dtype, kind)``: the decoder with a fixed cache, and its file."""
    folder = tmp_path_factory.mktemp("fixed")

    def write(dtype: str = "float32", kind: str = "ScatterND") -> tuple[Graph, Path]:
        graph, path = fixed_decoder(dtype), folder / f"{dtype}-{kind}.onnx"
        return graph, path if path.exists() else tiny.write_fixed(graph, path, kind)

    return write


@pytest.fixture(scope="session")
def sources(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    return {"tower": write_tower(folder / "tower.onnx"), "decoder": tiny.write(folder / "decoder.onnx")}


@pytest.fixture(scope="session", params=ENGINES)
def backend(request: pytest.FixtureRequest) -> Backend:
    if find_spec(request.param) is None:  # importing openvino here would report home
        pytest.skip(f"{request.param} is not installed")
    return find.backend(request.param)


@pytest.fixture(scope="session")
def artifact(backend, sources, tmp_path_factory) -> Callable[[Graph], Path]:
    folder = tmp_path_factory.mktemp(backend.name)
    made: dict[str, Path] = {}

    def compile_once(graph: Graph) -> Path:
        name, source = graph.component, sources[graph.component]
        if name not in made:
            made[name] = backend.compile(graph, source, folder) if backend.compiles(graph) else source
        return made[name]

    return compile_once


@pytest.fixture
def open_graph(backend, artifact) -> Iterator[Callable[..., Session]]:
    """Open one of the two graphs by name; closed after the test."""
    with ExitStack() as stack:

        def open_by_name(name: str, threads: int = 0) -> Session:
            graph = {"tower": TOWER, "decoder": DECODER}[name]
            session = backend.open(graph, artifact(graph), threads)
            stack.callback(session.close)
            return session

        yield open_by_name


@pytest.fixture
def tower(open_graph) -> Session:
    return open_graph("tower")


@pytest.fixture
def decoder(open_graph) -> Session:
    return open_graph("decoder")


@pytest.fixture(scope="session")
def held() -> Callable[..., Tensors]:
    """Cross-attention keys and values for ``source`` positions."""

    def random_held(seed: int = 0, source: int = 5) -> Tensors:
        random = np.random.default_rng(seed)
        shape = (1, HEADS, source, HEAD_DIM)
        return {f"cross.{part}": random.standard_normal(shape, dtype=np.float32) for part in PARTS}

    return random_held


@pytest.fixture(scope="session")
def tower_graph() -> Graph:
    return TOWER


@pytest.fixture(scope="session")
def decoder_graph() -> Graph:
    return DECODER
