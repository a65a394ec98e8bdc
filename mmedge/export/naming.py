"""Node names that say which module of the model they come from: ``vision_model.encoder.layers.3.mlp.fc1/MatMul``.

People read them in the findings of a check and write them, with ``*``, into the ``keep`` of a recipe. What is computed
outside of any module, such as an attention that a family spells itself, is named after the parent of the next module.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a traced node: the names of the modules around it, outermost first, and its own name."""

ROOT = "model."
"""Under which `export.trace.TracedComponent` holds the model."""


def name_nodes(graph: onnx_ir.Graph) -> None:
    """Name every node after its module and operator; later ones of the same name are counted."""
    nodes = list(graph)
    modules = [_module(node) for node in nodes]
    following = ""
    for index in reversed(range(len(nodes))):
        if modules[index]:
            following = modules[index].rpartition(".")[0]
        else:
            modules[index] = following
    seen: Counter[str] = Counter()
    for node, module in zip(nodes, modules, strict=True):
        name = f"{module}/{node.op_type}" if module else node.op_type
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def module_of(name: str) -> str:
    """The module in a node's name; empty where there is none."""
    return name.rpartition("/")[0]


def _module(node: onnx_ir.Node) -> str:
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    inner = [scope for scope in scopes[:-1] if scope.startswith(ROOT)]
    return inner[-1].removeprefix(ROOT) if inner else ""
