"""A bundle of the `blip` family whose graphs are computed by a few lines of numpy, and so can be spoiled at will."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mmedge.backends.replay import Replay
from mmedge.core import find
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.bundle import Bundle, Golden, Graph, Manifest
from mmedge.core.family import Request
from mmedge.core.ports import CacheShape, Port, Tensors
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.target import Target
from mmedge.core.writing import new_bundle
from mmedge.media.image import decode_picture
from mmedge.media.text import Tokenizer
from mmedge.runtime.engine import Engine
from mmedge.runtime.golden import prompt_arrays, record, to_bytes
from mmedge.runtime.pipeline import Pipeline

WORDS, SIDE = 16, 4
SEEN = Port("cross.0.key", "float32", (1, WORDS))
IDS = tuple(Port(name, "int64", (1, "length")) for name in ("input_ids", "position_ids"))
ENCODER = Graph(
    "encoder",
    "graphs/encoder.onnx",
    (Port("pixel_values", "float32", (1, 3, SIDE, SIDE)),),
    (SEEN,),
    "float32",
)
DECODER = Graph(
    "decoder",
    "graphs/decoder.onnx",
    (*IDS, SEEN),
    (Port("logits", "float32", (1, 1, WORDS)),),
    "float32",
    CacheShape(1, 1, 1),
)
TEXT = {"bos_token_id": 2, "sep_token_id": 3, "max_position_embeddings": 12}
MANIFEST = Manifest(
    schema=1,
    name="small",
    title="",
    model="builtin:small",
    family="blip",
    tasks=("caption",),
    target=Target("cpu", "Any CPU", "any", 4096, {"tower": "numpy", "decode": "numpy"}, ("float32",), {}, 23),
    graphs=(ENCODER, DECODER),
    config={
        "model": {"architectures": ["BlipForConditionalGeneration"], "text_config": TEXT},
        "image": {"do_resize": False, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False},
        "text": {"clean_up_tokenization_spaces": False},
        "generation": {},
    },
    assets={"tokenizer": "assets/tokenizer.json"},
    golden=(),
    accept=Acceptance(0.98, 0.5),
    agreement=tuple(Agreement(name, "float32", 0.0, 1.0, "0", 1) for name in ("encoder", "decoder")),
    answers=Answers(2, 2),
    preprocess_max_abs=0.0,
    made_with={},
    files={},
)


class Numpy(Replay):
    """An engine: what was seen, and a sum over every token read so far, weighted by its place.

    ``forgets`` keeps nothing from one step to the next; ``leans`` is added to the logits of one token.
    """

    name = "numpy"

    def __init__(self, forgets: bool = False, leans: dict[int, float] | None = None) -> None:
        super().__init__()
        self.forgets = forgets
        self.leans = leans or {}

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> NumpySession:
        return NumpySession(graph, self)


class NumpySession:
    """One graph of `Numpy`."""

    def __init__(self, graph: Graph, engine: Numpy) -> None:
        self.graph = graph
        self.engine = engine
        self.read = np.zeros(WORDS)
        self.held: Tensors = {}
        self.rows = np.random.default_rng(5).normal(size=(WORDS, WORDS))

    def reset(self, held: Tensors | None = None) -> None:
        self.held, self.read = held or {}, np.zeros(WORDS)

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        if self.graph.component == "encoder":
            return {"cross.0.key": np.resize(feeds["pixel_values"].mean(axis=2), (1, WORDS)).astype(np.float32)}
        if self.engine.forgets:
            self.read = np.zeros(WORDS)
        for token, position in zip(feeds["input_ids"][0], feeds["position_ids"][0], strict=True):
            self.read = self.read + self.rows[token] * np.cos(position)
        logits = self.read + self.held["cross.0.key"][0]
        logits[TEXT["sep_token_id"]] = logits.min()  # every answer is as long as it may be
        for token, extra in self.engine.leans.items():
            logits[token] += extra
        return {"logits": logits[None, None].astype(np.float32)}

    def close(self) -> None:
        self.reset()


def engine_of(backend: Numpy) -> Engine:
    graphs = (ENCODER, DECODER)
    return Engine(graphs, {graph.component: backend.open(graph, Path()) for graph in graphs})


def vocabulary() -> bytes:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    words = {"[PAD]": 0, "[UNK]": 1, "[DEC]": 2, "[SEP]": 3} | {chr(97 + index): 4 + index for index in range(12)}
    return Library(models.WordLevel(words, unk_token="[UNK]")).to_str().encode()


def picture(seed: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def model(graph: Graph) -> bytes:
    """A model file that no engine of these tests opens, but every digest and reference check reads."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], graph.component, [value], [])
    return onnx.ModelProto.SerializeToString(helper.make_model(made, ir_version=10))


def golden_files(index: int) -> tuple[Golden, dict[str, bytes]]:
    """A sample recorded on the sound engine."""
    config = MANIFEST.config
    pipeline = Pipeline(find.family("blip"), config, Tokenizer(vocabulary()), engine_of(Numpy()), ("caption",))
    prompt = pipeline.prepare(Request((decode_picture(picture(index), "picture").pixels,)))
    seen = record(pipeline.engine, prompt)
    files = {
        "picture.png": picture(index),
        "inputs.npz": to_bytes(prompt_arrays(prompt)),
        "outputs.npz": to_bytes(seen.outputs),
    }
    path = f"golden/{index}"
    return Golden(path, "caption", None, seen.tokens, ""), {f"{path}/{name}": data for name, data in files.items()}


@pytest.fixture
def small_bundle(tmp_path) -> Callable[..., Bundle]:
    """``small_bundle(change, files)`` writes and seals it with ``change(manifest)`` and other content of ``files``."""

    def write(
        change: Callable[[Manifest], Manifest] = lambda manifest: manifest, files: dict[str, bytes] | None = None
    ) -> Bundle:
        recorded = [golden_files(index) for index in range(2)]
        content = {"assets/tokenizer.json": vocabulary()} | {graph.file: model(graph) for graph in MANIFEST.graphs}
        for _, more in recorded:
            content |= more
        with new_bundle(tmp_path / "small.bundle", force=True) as draft:
            for name, data in (content | (files or {})).items():
                (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (draft.folder / name).write_bytes(data)
            manifest = msgspec.structs.replace(MANIFEST, golden=tuple(golden for golden, _ in recorded))
            return draft.finish(change(manifest))

    return write


@pytest.fixture
def on_engine(monkeypatch) -> Callable[..., None]:
    """``on_engine(**faults)``: bundles are opened on `Numpy` with these faults."""

    def choose(**faults) -> None:
        for lookup in ("backend", "engine"):
            monkeypatch.setattr(find, lookup, lambda name: Numpy(**faults), raising=False)

    choose()
    return choose


@pytest.fixture
def pretend(monkeypatch) -> Callable[[str, str], None]:
    """The engine of ``pretend/pretend.py`` is installed; ``pretend(name, value)`` sets what it reads."""
    monkeypatch.syspath_prepend(str(Path(__file__).with_name("pretend")))
    return monkeypatch.setenv
