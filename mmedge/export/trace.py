"""Component to ONNX graph; the only module that imports `transformers.exporters`.

Upstream calls that exporter experimental, and it carries patches for torch and onnxscript that plain
``torch.onnx.export`` lacks; so it comes first, and the plain one is the fall-back that is reported.

Both run in a thread of their own: where a signal's exception leaves one of torch's tracing modes behind, its C++ aborts
the process. Tracing goes on in the background then, and the next one waits for it: both patch torch.
"""

from __future__ import annotations

import inspect
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import onnx_ir
import torch

from mmedge.backends._cache import UNSEEN
from mmedge.core.family import Component
from mmedge.core.ports import Port, Span
from mmedge.errors import ModelError
from mmedge.export.cache import make_cache
from mmedge.export.lower import OLDEST, lower
from mmedge.export.naming import name_nodes
from mmedge.signals import in_its_own_thread

ATTENTION_OPSET = 23
"""Attention is one operator from here on."""

_ONE_AT_A_TIME = threading.Lock()

SAMPLE_SIZES = {"past": 3, "total": 7, "asked": 2, "batch": 3}
"""Sizes that vary are traced with numbers found nowhere else in a model, so that none is taken for a constant."""


class TracedComponent(torch.nn.Module):
    """A component's ``forward`` with the model's weights: named tensors in and out, a cache as flat tensors.

    Exporters read the signature of ``forward``, and a parameter cannot be called ``past.0.key``: so it is traced as
    ``past__0__key`` and named back in the graph.
    """

    def __init__(self, component: Component, model: torch.nn.Module) -> None:
        super().__init__()
        self.component = component
        self.model = model
        self.config = getattr(model, "config", None)
        self.forward = _with_parameters(self.run, [_parameter(port) for port in self.inputs])

    @property
    def inputs(self) -> tuple[Port, ...]:
        cache = self.component.cache
        return (*self.component.inputs, *((*cache.past(), *cache.steering()) if cache else ()))

    @property
    def outputs(self) -> tuple[Port, ...]:
        return (*self.component.outputs, *(self.component.cache.present() if self.component.cache else ()))

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by port name; inputs by port name with ``.`` as ``__``."""
        component, shape = self.component, self.component.cache

        def given(ports: Sequence[Port]) -> list[torch.Tensor]:
            return [tensors[_parameter(port)] for port in ports]

        if shape is None:
            return _named(component.outputs, component.forward(self.model, *given(component.inputs)))
        cache = make_cache(shape, given(shape.past()), given(shape.steering()))
        outputs = component.forward(self.model, *given(component.inputs), cache=cache)
        return _named(self.outputs, [*outputs, *(part for pair in cache.pairs for part in pair)])


def trace(component: Component, model: torch.nn.Module, opset: int) -> onnx_ir.Model:
    """The component as an ONNX graph whose inputs and outputs are its ports, the cache's included.

    Raises:
        ModelError: neither exporter can trace it, or not in so old an operator set.
    """
    module = TracedComponent(component, model).eval()
    sample = {_parameter(port): sample_tensor(port) for port in module.inputs}
    shapes = _dynamic_shapes(module.inputs, component.sizes)
    written = max(opset, OLDEST)

    def exported() -> onnx_ir.Model:
        with _ONE_AT_A_TIME, nullcontext() if opset >= ATTENTION_OPSET else _spelled_attention():
            try:
                return _transformers_export(module, sample, shapes, written)
            except Exception as first:  # an exporter raises whatever torch or one of its patches raises
                logging.getLogger(__name__).warning("`%s` falls back to torch.onnx.export: %s", component.name, first)
                return _torch_export(module, sample, shapes, written)

    with _quiet():  # in this thread, so that an error can be printed while tracing goes on
        program = in_its_own_thread(exported)
    _spell_ports(program.graph.inputs, module.inputs)
    _spell_ports(program.graph.outputs, module.outputs)
    name_nodes(program.graph)
    return lower(program, opset) if opset < OLDEST else program


@contextmanager
def _spelled_attention() -> Iterator[None]:
    """Attention as two products and a softmax, which TensorRT recognises, and rotation as products and sums.

    What the exporter makes of it below `ATTENTION_OPSET` scales all keys at every step as well as the queries, and
    guards the softmax against rows without any key, with five more nodes.
    """
    functional, own = torch.nn.functional, torch.onnx.ops
    whole, rotary = functional.scaled_dot_product_attention, own.rotary_embedding
    functional.scaled_dot_product_attention, own.rotary_embedding = _attention, _rotary_embedding
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, own.rotary_embedding = whole, rotary


def _rotary_embedding(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """`torch.onnx.ops.rotary_embedding` of ``[batch, heads, length, dim]`` by ``[batch, length, dim / 2]``."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, as its documentation spells it, without dropout."""
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros(attn_mask.shape).masked_fill(~attn_mask, UNSEEN)
    if attn_mask is not None:
        scores = scores + attn_mask
    return torch.softmax(scores, -1) @ value


def _spell_ports(values: Sequence[onnx_ir.Value], ports: tuple[Port, ...]) -> None:
    """Names and sizes as the ports say: exporters write fixed sizes as words ("2") and words as symbols ("s70")."""
    for value, port in zip(values, ports, strict=True):
        value.name = port.name
        value.shape = onnx_ir.Shape(port.shape)


def _sample_size(word: str) -> int:
    return SAMPLE_SIZES.get(word, 4)


def sample_tensor(port: Port) -> torch.Tensor:
    """A deterministic tensor of the port's dtype and shape."""
    shape = [size if isinstance(size, int) else _sample_size(size) for size in port.shape]
    if port.dtype.startswith("int"):
        kind = getattr(torch, port.dtype)
        return torch.arange(shape[-1], dtype=kind).expand(*shape).clone() if shape else torch.tensor(1, dtype=kind)
    if port.dtype == "bool":
        return torch.ones(*shape, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator)


def _with_parameters(function: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """``function`` with a signature of its own, so that exporters see its parameters one by one."""

    def forward(**tensors: torch.Tensor) -> Any:
        return function(**tensors)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return forward


def _parameter(port: Port) -> str:
    return port.name.replace(".", "__")


def _named(ports: tuple[Port, ...], tensors: Any) -> dict[str, torch.Tensor]:
    return {port.name: tensor for port, tensor in zip(ports, tensors, strict=True)}


def _dynamic_shapes(ports: tuple[Port, ...], spans: Mapping[str, Span]) -> dict[str, dict[int, Any]]:
    words = {size for port in ports for size in port.shape if isinstance(size, str)}
    sizes = {word: torch.export.Dim(word, max=_largest(word, spans)) for word in sorted(words)}
    return {
        _parameter(port): {axis: sizes[size] for axis, size in enumerate(port.shape) if isinstance(size, str)}
        for port in ports
    }


def _largest(word: str, spans: Mapping[str, Span]) -> int | None:
    """A model that looks its positions up in a table cannot be traced without; where a size is to be no larger than the
    one that is traced with, that would be refused."""
    span = spans.get(word)
    return span.largest if span and span.largest > _sample_size(word) else None


def _transformers_export(
    module: TracedComponent, sample: dict[str, torch.Tensor], shapes: dict[str, Any], opset: int
) -> onnx_ir.Model:
    from transformers.exporters import OnnxConfig, OnnxExporter

    config = OnnxConfig(dynamic_shapes=shapes, opset_version=opset)
    program, _ = OnnxExporter().export_program(module, sample, config)
    return program


def _torch_export(
    module: TracedComponent, sample: dict[str, torch.Tensor], shapes: dict[str, Any], opset: int
) -> onnx_ir.Model:
    try:
        program = torch.onnx.export(
            module, kwargs=sample, dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
        )
    except Exception as error:
        raise ModelError(f"`{module.component.name}` cannot be traced: {_root_cause(error)}") from error
    assert program is not None
    return program.model


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print and warn about their own internals; a failure still raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
