"""Every member of TensorRT that the code names exists in every version that can come by there.

`hasattr` narrows the versions: in the branch that it guards, in what follows a branch that returns, after `and`, and in
functions that are called from such places only.
"""

from __future__ import annotations

import ast
import json
from importlib.resources import files
from pathlib import Path

import mmedge_doubles.api as doubles
import pytest
from mmedge_doubles.settings import VERSIONS

import mmedge.backends

FOLDER = Path(mmedge.backends.__file__).parent
FILES = sorted([*FOLDER.glob("_tensorrt*.py"), FOLDER / "tensorrt.py"])
TABLE = json.loads(files("mmedge").joinpath("targets/data/tensorrt_python_api.json").read_text())["classes"]
ALL = frozenset(VERSIONS)
MODULE = "<module>"

# What the names in the code stand for.
NAMES = {
    "trt": MODULE,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timings": "ITimingCache",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "runtime": "Runtime",
}
LOCAL = {("_told", "error"): "ParserError", ("_check_network", "tensor"): "ITensor", ("build", "timings"): "Path"}


def versions_with(kind: str, member: str) -> frozenset[str]:
    if kind == MODULE:
        return frozenset(v for v in VERSIONS if doubles.members(member, v) or member in doubles.ALWAYS)
    found = {v for v in VERSIONS if member in doubles.members(kind, v)}
    if kind in ("ILogger", "Logger") and member in TABLE["Severity"]:  # the enum inside exports its values
        return ALL
    return ALL if member in doubles.MISSED.get(kind, ()) else frozenset(found)


class Reader(ast.NodeVisitor):
    """Collects the members that are missing somewhere, function by function."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.read: set[tuple[str, str]] = set()
        self.calls: dict[str, set[str]] = {}
        self.versions = ALL
        self.function = ""
        self.aliases: dict[str, str] = {}

    def kind_of(self, node: ast.AST) -> str | None:
        """What of TensorRT an expression is, if it is known."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "library":
            return MODULE
        if isinstance(node, ast.Name):
            local = LOCAL.get((self.function, node.id))
            return local or self.aliases.get(node.id) or NAMES.get(node.id)
        if isinstance(node, ast.Attribute):
            if self.kind_of(node.value) == MODULE:
                return node.attr
            return NAMES.get(node.attr)
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self.function, self.versions, self.aliases
        self.function, self.aliases = self.function or node.name, dict(self.aliases)
        if not outer[0]:
            self.versions = frozenset(self.calls.get(node.name, ALL))
        for default in node.decorator_list:
            self.visit(default)
        self.block(node.body)
        self.function, self.versions, self.aliases = outer

    def block(self, statements: list[ast.stmt]) -> None:
        before = self.versions
        for statement in statements:
            self.visit(statement)
            if isinstance(statement, ast.If) and isinstance(statement.body[-1], (ast.Return, ast.Raise)):
                self.versions = self.narrowed(statement.test, False)
        self.versions = before

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        targets, values = node.targets[0], node.value
        pairs = (
            zip(targets.elts, values.elts, strict=True)
            if isinstance(targets, ast.Tuple) and isinstance(values, ast.Tuple)
            else [(targets, values)]
        )
        for target, value in pairs:
            if isinstance(target, ast.Name) and isinstance(value, ast.Attribute) and self.kind_of(value):
                self.aliases[target.id] = self.kind_of(value) or ""

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.within(self.narrowed(node.test, True), node.body)
        self.within(self.narrowed(node.test, False), node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self.within(self.narrowed(node.test, True), [node.body])
        self.within(self.narrowed(node.test, False), [node.orelse])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        before = self.versions
        for value in node.values:
            self.visit(value)
            if isinstance(node.op, ast.And):
                self.versions = self.narrowed(value, True)
        self.versions = before

    def within(self, versions: frozenset[str], nodes: list) -> None:
        before, self.versions = self.versions, versions
        if nodes and isinstance(nodes[0], ast.stmt):
            self.block(nodes)
        else:
            for node in nodes:
                self.visit(node)
        self.versions = before

    def narrowed(self, test: ast.expr, holds: bool) -> frozenset[str]:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self.narrowed(test.operand, not holds)
        if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "hasattr":
            kind, member = self.kind_of(test.args[0]), ast.literal_eval(test.args[1])
            having = versions_with(kind, member) if kind else ALL
            return self.versions & having if holds else self.versions - having
        return self.versions

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name):
            self.calls.setdefault(node.func.id, set()).update(self.versions)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        kind = self.kind_of(node.value)
        if kind is None or (kind != MODULE and kind not in TABLE) or node.attr.startswith("__"):
            return  # what starts so is Python's own, or of the package's Python code (`__version__`)
        self.read.add((kind, node.attr))
        if missing := self.versions - versions_with(kind, node.attr):
            self.findings.append(f"line {node.lineno}: {kind}.{node.attr} is not in {', '.join(sorted(missing))}")


def read(source: str) -> Reader:
    """Twice: only then it is known from where every function is called."""
    tree, first = ast.parse(source), Reader()
    first.visit(tree)
    second = Reader()
    second.calls = first.calls
    second.visit(tree)
    return second


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_every_member_is_there_wherever_it_is_used(path):
    assert read(path.read_text()).findings == []


def test_the_reader_sees_what_the_code_uses():
    seen = set().union(*(read(path.read_text()).read for path in FILES))
    assert len(seen) > 60
    for pair in (
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "get_aliased_input_tensor"),
        ("IBuilderConfig", "progress_monitor"),
        ("BuilderFlag", "FP16"),
        ("TensorIOMode", "INPUT"),
        ("ParserError", "node_operator"),
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
    ):
        assert pair in seen, pair


PLANTED = [
    ("def f(trt): return trt.BuilderFlag.FP16", "BuilderFlag.FP16 is not in 11.1"),
    ("def f(trt): return trt.IProgressMonitor", "<module>.IProgressMonitor is not in 8.6"),
    ("def f(config): config.max_workspace_size = 1", "IBuilderConfig.max_workspace_size is not in 10.13"),
    ("def f(engine): return engine.num_bindings", "ICudaEngine.num_bindings is not in 10.13"),
    ("def f(self): self._context.execute_async_v2()", "IExecutionContext.execute_async_v2 is not in 10.13"),
    ("def f(builder): builder.biuld()", "Builder.biuld is not in"),
    ("def f(): return library().DataType.INT64", "DataType.INT64 is not in 8.6"),
    (
        "def f(trt):\n  if not hasattr(trt.BuilderFlag, 'FP16'):\n    return trt.BuilderFlag.FP16",
        "BuilderFlag.FP16 is not in 11.1",
    ),
    (
        "def f(trt):\n  if hasattr(trt.BuilderFlag, 'FP16'):\n    g(trt)\n  g(trt)\ndef g(trt): trt.BuilderFlag.FP16",
        "BuilderFlag.FP16 is not in 11.1",
    ),
]
FINE = [
    "def f(trt): return trt.BuilderFlag.TF32",
    "def f(trt):\n  if hasattr(trt.BuilderFlag, 'FP16'):\n    return trt.BuilderFlag.FP16",
    "def f(trt):\n  if not hasattr(trt.BuilderFlag, 'FP16'):\n    return 0\n  return trt.BuilderFlag.FP16",
    "def f(trt):\n  if hasattr(trt.BuilderFlag, 'FP16'):\n    g(trt)\ndef g(trt): trt.BuilderFlag.FP16",
    "def f(engine): return hasattr(engine, 'get_aliased_input_tensor') and engine.get_aliased_input_tensor('x')",
    "def f(trt):\n  flags = trt.BuilderFlag\n  return flags.FP16 if hasattr(flags, 'FP16') else 0",
]


@pytest.mark.parametrize(("source", "told"), PLANTED)
def test_a_member_that_a_version_lacks_is_found(source, told):
    assert told in " ".join(read(source).findings)


@pytest.mark.parametrize("source", FINE)
def test_one_that_is_guarded_is_not(source):
    assert read(source).findings == []
