"""What a model will cost, from its configuration alone: nothing is loaded, the model is built without storage.

The components run on torch's meta device, where tensors have shapes and no values; on the way it is noted which weights
each component reads, how many multiplications it does, and the most memory that one operation holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mmedge.core.family import Component
from mmedge.core.machine import usable_memory
from mmedge.core.plan import Plan
from mmedge.core.ports import Port
from mmedge.core.recipe import PRECISIONS
from mmedge.core.target import Target
from mmedge.errors import ModelError, ResourceError
from mmedge.export.cache import make_cache
from mmedge.export.load import Checkpoint
from mmedge.export.weights import first_line

BYTES = dict(zip(PRECISIONS, (4.0, 2.0, 1.0, 1.07, 0.57), strict=True))
"""Per weight; a block of 64 shares a float32 scale in the weight-only forms, an int4 block of 32 too."""

RUNTIME_MB = 130
"""An engine, numpy and Python without any model: measured with ONNX Runtime 1.31, MiB resident."""

BUILD_COPIES = 3
"""Of the float32 weights: torch's, the graph's, and the one being quantized or compared."""

PAST = 32
"""Tokens before the step that is estimated."""

MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """One component."""

    component: str
    precision: str
    parameters: int
    gflop: float
    """Of one run: a picture, or one token."""
    weights_mb: float
    working_mb: float
    """The most that one operation reads and writes, weights aside, plus what is handed to other graphs."""


@dataclass(frozen=True)
class Estimate:
    """The whole model on its target."""

    costs: tuple[Cost, ...]
    run_mb: float
    build_mb: float


def estimate(plan: Plan, checkpoint: Checkpoint) -> Estimate:
    """Parameters, operations and memory of every component."""
    model = checkpoint.outline
    costs = tuple(_cost(plan, component, model) for component in plan.components)
    run = RUNTIME_MB + sum(cost.weights_mb for cost in costs) + sum(cost.working_mb for cost in costs)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    build = RUNTIME_MB + 400 + BUILD_COPIES * parameters * 4 / MIB + max(cost.working_mb for cost in costs)
    return Estimate(costs, round(run, 1), round(build, 1))


def too_large(costs: Estimate, target: Target) -> ResourceError | None:
    """Why the target cannot run it: what is needed and what there is."""
    if costs.run_mb <= target.memory_mb:
        return None
    return ResourceError(
        f"running it takes about {costs.run_mb:.0f} MiB, `{target.name}` has {target.memory_mb}",
        hint="choose a smaller precision, a smaller model or a larger target",
    )


def check_builder(costs: Estimate) -> None:
    """Refuse what this machine has no memory for, before any is taken.

    Raises:
        ResourceError: naming what is needed and what there is.
    """
    if costs.build_mb > (here := usable_memory() / MIB):
        raise ResourceError(
            f"exporting it takes about {costs.build_mb:.0f} MiB, this machine has {here:.0f}",
            hint="export on a larger machine; the bundle can be copied",
        )


class _Witness(TorchFunctionMode):
    """Notes the parameters that pass through torch functions, and the largest working set of one."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters: dict[int, int] = {}
        self.working = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = list(_tensors((args, kwargs or {})))
        for tensor in tensors:
            if isinstance(tensor, torch.nn.Parameter):
                self.parameters[id(tensor)] = tensor.numel()
        moved = [tensor for tensor in (*tensors, *_tensors(result)) if not isinstance(tensor, torch.nn.Parameter)]
        self.working = max(self.working, sum(tensor.numel() * tensor.element_size() for tensor in moved))
        return result


def _cost(plan: Plan, component: Component, model: torch.nn.Module) -> Cost:
    witness, counter = _Witness(), FlopCounterMode(display=False)
    try:
        with torch.device("meta"), torch.no_grad(), counter, witness:
            _run_empty(component, model)
    except RuntimeError as error:
        if "overflow" in str(error):
            raise ResourceError(f"`{component.name}` works on tensors too large to be counted") from error
        raise ModelError(
            f"`{component.name}` cannot be computed: {first_line(error)}",
            hint="do the sizes in config.json fit together?",
        ) from error
    precision = plan.choices[component.name].precision
    parameters = sum(witness.parameters.values())
    handed_on = sum(math.prod(_sizes(port)) * 4 for port in component.outputs)
    return Cost(
        component.name,
        precision,
        parameters,
        round(counter.get_total_flops() / 1e9, 3),
        round(parameters * BYTES[precision] / MIB, 1),
        round((witness.working + handed_on) / MIB, 1),
    )


def _run_empty(component: Component, model: torch.nn.Module) -> None:
    inputs = [_empty(port) for port in component.inputs]
    if component.cache:
        shape = component.cache
        past, steering = ([_empty(port) for port in ports] for ports in (shape.past(), shape.steering()))
        component.forward(model, *inputs, cache=make_cache(shape, past, steering))
    else:
        component.forward(model, *inputs)


def _empty(port: Port) -> torch.Tensor:
    return torch.empty(_sizes(port), dtype=getattr(torch, port.dtype), device="meta")


def _sizes(port: Port) -> list[int]:
    words = {"past": PAST, "length": 1, "total": PAST + 1, "batch": 1}
    return [size if isinstance(size, int) else words.get(size, PAST) for size in port.shape]


def _tensors(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
