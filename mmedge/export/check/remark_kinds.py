"""Remarks that are alike but for a name or a number; each gives a function that says what is wrong with a node."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import onnx_ir

from mmedge.export.check.opened import constant, given, is_fixed, rank

Remark: TypeAlias = Callable[[onnx_ir.Node, str], "str | None"]
"""What is wrong with a node by a sentence, which it is given too; or None."""


def initializer(index: int, what: str) -> Remark:
    """Where it is given, the input at ``index`` is an initializer."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        value = given(node, index)
        return f"`{what}` is computed" if value is not None and constant(value) is None else None

    return check


def fixed(index: int, what: str) -> Remark:
    """Where it is given, the input at ``index`` can be computed while the engine is built."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        value = given(node, index)
        return f"`{what}` is computed from inputs" if value is not None and not is_fixed(value) else None

    return check


def zero_attribute(name: str) -> Remark:
    """The attribute is 0 or absent."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        value = node.attributes.get_int(name, 0)
        return f"{name} {value}" if value else None

    return check


def only_outputs(count: int) -> Remark:
    """Outputs after the first ``count`` are not used."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        asked = [output for output in node.outputs[count:] if output.name]
        return f"its output {count + 1} or a later one is used (`{asked[0].name}`)" if asked else None

    return check


def listed(attribute: str, default: str) -> Remark:
    """The attribute has one of the values that the sentence itself lists."""

    def check(node: onnx_ir.Node, sentence: str) -> str | None:
        value = node.attributes.get_string(attribute, default)
        return None if value in re.findall(r"`(\w+)`", sentence) else f"{attribute} `{value}`"

    return check


def no_attribute(name: str) -> Remark:
    """The attribute is absent, whatever its value."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        return f"the attribute `{name}` is given" if name in node.attributes else None

    return check


def ranks(**indices: int) -> Remark:
    """The inputs at these indices have four dimensions."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        ranks = {name: rank(given(node, index)) for name, index in indices.items()}
        wrong = [f"`{name}` has {found} dimensions" for name, found in ranks.items() if found not in (None, 4)]
        return wrong[0] if wrong else None

    return check


def no_inputs(**indices: int) -> Remark:
    """The inputs at these indices are absent."""

    def check(node: onnx_ir.Node, _: str) -> str | None:
        found = [name for name, index in indices.items() if given(node, index) is not None]
        return f"the input `{found[0]}` is given" if found else None

    return check
