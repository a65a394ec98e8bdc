"""Candidates whose answers and times are set by the test (see `stand_in.py`), and runs that nobody measured."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from mmedge.core.bundle import Golden, Graph, Manifest
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.target import Target
from mmedge.core.writing import new_bundle
from mmedge.profiling.run import Candidate, Input, Inputs

GRAPHS = (
    Graph("encoder", "graphs/encoder.onnx", (), (), "int8"),
    Graph("decoder", "graphs/decoder.onnx", (), (), "float32"),
)
TARGET = Target("cpu", "Any CPU", "any", 4096, {"tower": "openvino", "decode": "onnxruntime"}, ("float32",), {}, 23)
MANIFEST = Manifest(
    schema=1,
    name="small",
    title="",
    model="builtin:small",
    family="blip",
    tasks=("caption", "ask"),
    target=TARGET,
    graphs=GRAPHS[:1],
    config={"model": {}, "image": {}, "text": {"clean_up_tokenization_spaces": True}, "generation": {}},
    assets={"tokenizer": "assets/tokenizer.json"},
    golden=(
        Golden("golden/0", "caption", None, (1,), "a cat"),
        Golden("golden/1", "ask", "is this a cat?", (1,), "yes"),
    ),
    accept=Acceptance(0.99, 1.0),
    agreement=(Agreement("encoder", "int8", 0.0, 1.0, "0", 1),),
    answers=Answers(0, 0),
    preprocess_max_abs=0.0,
    made_with={},
    files={},
)


@pytest.fixture(scope="session")
def stand_in() -> tuple[str, ...]:
    """The command that starts a worker which does what a file says."""
    return (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture(scope="session")
def make_candidate() -> Callable[..., Candidate]:
    """A candidate that is told by a file in a folder."""

    def make(folder: Path, name: str, **told: Any) -> Candidate:
        file = folder / f"{name}.json"
        file.write_text(json.dumps(told))
        return Candidate(name, str(file), "0" * 64, None, {"encoder": "float32"}, 1 << 20)

    return make


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., Inputs]:
    """Four files, each of which holds its own name."""

    def make(folder: Path, *expected: str) -> Inputs:
        items = []
        for number in range(4):
            file = folder / f"{number}.png"
            file.write_text(file.name)
            items.append(Input(f"{number}", "caption", str(file), None, expected, {"megapixels": 1.0 + number}))
        return Inputs("made", "0" * 64, tuple(items))

    return make


@pytest.fixture
def candidate(make_candidate: Callable[..., Candidate], tmp_path: Path) -> Callable[..., Candidate]:
    return lambda name="first", **told: make_candidate(tmp_path, name, **told)


@pytest.fixture
def inputs(make_inputs: Callable[..., Inputs], tmp_path: Path) -> Inputs:
    return make_inputs(tmp_path)


@pytest.fixture
def wait_for_end() -> Callable[[int], None]:
    """Wait until a process that is nobody's child here has ended."""

    def wait(pid: int) -> None:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended, _, _ = select.select([process], [], [], 30)
        os.close(process)
        assert ended, f"process {pid} is still there"

    return wait


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Any]:
    """Whole runs that nobody measured: see `made_up_runs.made_up_run` for what can be asked of them."""
    place = Path(__file__).with_name("made_up_runs.py")
    spec = spec_from_file_location("made_up_runs", place)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.made_up_run  # type: ignore[no-any-return]


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle whose graphs nobody opens, with two golden pictures of ``colours``."""

    def write(name: str = "small.bundle", colours: tuple[str, str] = ("red", "blue"), **changes: Any) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with new_bundle(tmp_path / name) as draft:
            for file in ("assets/tokenizer.json", "graphs/encoder.onnx"):
                (draft.folder / file).parent.mkdir(parents=True, exist_ok=True)
                (draft.folder / file).write_bytes(b"")
            for number, colour in enumerate(colours):
                picture = draft.folder / f"golden/{number}/picture.png"
                picture.parent.mkdir(parents=True)
                Image.new("RGB", (20, 30), colour).save(picture)
            return draft.finish(replace(MANIFEST, **changes)).path

    return write
