"""Small graphs with one thing wrong, checked as a bundle's graphs are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import msgspec
import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.manifest import Graph
from mmedge.core.ports import Port, Span
from mmedge.core.target import Stack, Target
from mmedge.export.check.findings import Findings
from mmedge.export.check.run import check_graphs

VERSIONS = ("10.3", "10.13", "10.16", "11.x")


@pytest.fixture(scope="session")
def device() -> Target:
    """A large device with one system for each version of TensorRT, whose engine chooses types by itself."""
    stacks = tuple(Stack(version, "3.12", tensorrt=version, operators=version) for version in VERSIONS)
    return replace(find.target("jetson"), stacks=stacks, typed=False)


@pytest.fixture
def check(device, tmp_path) -> Callable[..., Findings]:
    """``check("float[4] x => float[4] y { y = Relu(x) }")``: the findings about the graph called ``part``."""

    def run(
        text: str | onnx.ModelProto,
        target: Target = device,
        *,
        opset: int = 20,
        ranges: dict[str, float] | None = None,
        **manifest: object,
    ) -> Findings:
        model = parse(text, opset) if isinstance(text, str) else text
        onnx.save(model, tmp_path / "part.onnx")
        if ranges is not None:
            (tmp_path / "ranges").mkdir()
            (tmp_path / "ranges" / "part.json").write_bytes(msgspec.json.encode(ranges))
        return check_graphs([describe(model, **manifest)], tmp_path, target)

    return run


@pytest.fixture
def rejected(check) -> Callable[..., dict[str, tuple[str, ...]]]:
    """Errors and warnings by check, each with the versions that it was found for."""

    def run(*arguments: object, **named: object) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for each in check(*arguments, **named).found:
            if each.severity != "note":
                found.setdefault(each.check, set()).update(each.stacks)
        return {name: tuple(sorted(stacks, key=VERSIONS.index)) for name, stacks in found.items()}

    return run


def parse(text: str, opset: int = 20) -> onnx.ModelProto:
    """``inputs => outputs <constants> { nodes }`` in the text form of ONNX; ``ones`` fills a constant."""
    text = re.sub(r"\[([\d,]+)\] (\w+) = ones", _ones, text)
    text = re.sub(r"(float16\S* \w+ = )\{([^}]*)\}", _halves, text)
    inputs, outputs, opener, rest = re.fullmatch(r"(.*?)=>(.*?)([<{])(.*)", text, re.DOTALL).groups()
    domains = "".join(f', "{name}" : 1' for name in ("com.microsoft", "trt.plugins", "local") if name in text)
    header = f'<ir_version: 10, opset_import: ["" : {opset}{domains}]>'
    return onnx.parser.parse_model(f"{header} part ({inputs}) => ({outputs}) {opener}{rest}")


def _ones(found: re.Match[str]) -> str:
    count = math.prod(map(int, found[1].split(",")))
    return f"[{found[1]}] {found[2]} = {{{','.join(['1'] * count)}}}"


def _halves(found: re.Match[str]) -> str:
    """ONNX reads float16 as its bits."""
    bits = np.array([float(word) for word in found[2].split(",")], np.float16).view(np.uint16)
    return f"{found[1]}{{{','.join(map(str, bits))}}}"


def describe(model: onnx.ModelProto, **manifest: object) -> Graph:
    """What the manifest would say of a graph that is as it should be."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(map(_port, (value for value in model.graph.input if value.name not in constants)))
    words = {size for port in inputs for size in port.shape if isinstance(size, str)}
    profiles = ({word: Span(1, 2, 4) for word in sorted(words)},) if words else ()
    outputs = tuple(map(_port, model.graph.output))
    values = {"precision": "float32", "profiles": profiles, "inputs": inputs, "outputs": outputs, **manifest}
    return Graph("part", "part.onnx", **values)


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else "object"
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim)
    return Port(value.name, dtype, shape)
