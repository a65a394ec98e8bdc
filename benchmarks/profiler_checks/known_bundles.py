"""Three pipelines to look into: captions in float32, answers in int8, and the other architecture that answers."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import mmedge
from mmedge.core.bundle import open_bundle
from mmedge.families.blip import FAMILY

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "benchmarks" / ".work" / "profiler_checks"
ENGINES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "int8")
QUESTION = "what colour is the circle?"


class Known(NamedTuple):
    """A bundle and what it is asked."""

    name: str
    bundle: Path
    task: str
    picture: Path
    text: str | None


@lru_cache
def known_bundles() -> list[Known]:
    """Exported by the mmedge that is checked, once a process."""
    scenes = {precision: _exported(f"scenes-{precision}", "builtin:scenes", precision) for precision in PRECISIONS}
    tiny = _tiny()
    return [
        Known("captions in float32", scenes["float32"], "caption", _picture(scenes["float32"]), None),
        Known("questions in int8", scenes["int8"], "ask", _picture(scenes["int8"]), QUESTION),
        Known("questions of another architecture", tiny, "ask", _picture(tiny), "what is it?"),
    ]


def _exported(name: str, model: str, precision: str) -> Path:
    path = WORK / f"{name}.bundle"
    path.parent.mkdir(parents=True, exist_ok=True)
    mmedge.export(model, output=path, target="cpu", precision=precision, force=True)
    return path


def _tiny() -> Path:
    spec = spec_from_file_location("checkpoints", ROOT / "tests" / "checkpoints.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        return _exported("tiny-answerer", str(module.make_blip(FAMILY.tiny[1], Path(folder))), "float32")


def _picture(bundle: Path) -> Path:
    return open_bundle(bundle).file(f"{open_bundle(bundle).manifest.golden[0].path}/picture.png")
