"""A bundle that is open on this device: its family's numbers, its graphs on their engines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar, cast

from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.backend import Backend, Session
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.family import Config, Family, Prompt, Request
from mmedge.core.names import shown
from mmedge.errors import BundleError, ContextError, UsageError
from mmedge.media.text import Tokenizer
from mmedge.runtime.choose import open_chosen
from mmedge.runtime.engine import Engine, arranging
from mmedge.runtime.ready import ready


class Model:
    """What all open bundles have in common. Close it, or use it in a ``with`` block."""

    def __init__(
        self,
        family: Family,
        config: Config,
        tokenizer: Tokenizer | None,
        engine: Engine,
        tasks: tuple[str, ...],
        backends: dict[str, str] | None = None,
    ) -> None:
        self.family = family
        self.config = config
        self._tokenizer = tokenizer
        self.engine = engine
        self.tasks = tasks
        self.backends = backends or {}

    @property
    def tokenizer(self) -> Tokenizer:
        """
        Raises:
            BundleError: the bundle reads no texts.
        """
        if self._tokenizer is None:
            raise BundleError("the bundle has no tokenizer, it reads no texts")
        return self._tokenizer

    def prepare(self, request: Request) -> Prompt:
        """The request as the family's numbers.

        Raises:
            InputError: the request cannot be used.
            BundleError: the configuration, which may be anyone's, cannot be.
        """
        return self._fitted(prepared(self.family, self.config, self._tokenizer, request))

    def _fitted(self, prompt: Prompt) -> Prompt:
        """A fixed cache may be shorter than what the model could read."""
        slots = [graph.cache.capacity for graph in self.engine.graphs if graph.cache and graph.cache.capacity]
        capacity = min([prompt.capacity, *slots])
        if slots and len(prompt.tokens) >= capacity:
            raise ContextError(
                f"the text is {len(prompt.tokens)} tokens long, this bundle has room for {capacity - 1}",
                hint="shorten it, or export with a larger `total` in the recipe's `sizes`",
            )
        return replace(prompt, capacity=capacity)

    def close(self) -> None:
        """Give the engines' memory back."""
        self.engine.close()

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Opened = TypeVar("Opened", bound=Model)


def open_model(
    bundle: Bundle, kind: type[Opened], *, backend: str | None = None, threads: int = 0, remember: bool = False
) -> Opened:
    """Open a bundle's graphs, compiled first where the backend needs that.

    ``backend`` overrides the target's choice for every graph, and its fall-backs; ``threads`` 0 means all cores.
    Features of pictures, and what the cache holds, are used again where they can be if it shall ``remember``.

    Raises:
        UsageError: no backend has this name, or there are fewer cores than ``threads``.
        BundleError: its family or its tokenizer cannot be used.
        BackendError: an engine is missing or refuses a graph.
    """
    manifest = bundle.manifest
    _check_threads(threads)
    family = _family_of(bundle)

    def open_graph(graph: Graph, chosen: Backend) -> Session:
        own = graph.made_for(chosen.name)
        return chosen.open(own, ready(bundle, own, chosen), threads, manifest.target.options)

    engines, sessions = open_chosen(bundle, backend, open_graph)
    backends = {component: engine.name for component, engine in engines.items()}
    graphs = [graph.made_for(backends[graph.component]) for graph in manifest.graphs]
    engine = Engine(graphs, sessions, arranging(family, manifest.config), remember=remember)
    return kind(family, manifest.config, tokenizer_of(bundle), engine, manifest.tasks, backends)


def tokenizer_of(bundle: Bundle) -> Tokenizer | None:
    """The bundle's; None where it reads no texts."""
    if not (name := bundle.manifest.assets.get("tokenizer")):
        return None
    return Tokenizer(bundle.read(name), clean_up_spaces=bundle.manifest.config["text"]["clean_up_tokenization_spaces"])


def prepared(family: Family, config: Config, tokenizer: Tokenizer | None, request: Request) -> Prompt:
    """The request as the family's numbers.

    Raises:
        InputError: the request cannot be used.
        BundleError: the configuration, which may be anyone's, cannot be.
    """
    try:
        prompt = family.prepare(config, cast(Tokenizer, tokenizer), request)
        if type(prompt.capacity) is not int:
            raise TypeError(f"{prompt.capacity!r} is no number of positions")
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = shown(f"{type(error).__name__}: {error}", 200)
        raise BundleError(f"the bundle's configuration cannot be used: {reason}") from error
    return prompt


def check_task(task: str, tasks: Sequence[str]) -> None:
    """
    Raises:
        UsageError: a bundle cannot do this task; it names those that it can.
    """
    if task not in tasks:
        raise UsageError(f"this bundle cannot `{task}`", hint=f"it can: {', '.join(tasks)}")


def _family_of(bundle: Bundle) -> Family:
    try:
        return find.family(bundle.manifest.family)
    except UsageError as error:
        name = shown(bundle.manifest.family)
        raise BundleError(f"bundle `{bundle.path}` is of an unknown family `{name}`", hint=error.hint) from error


def _check_threads(threads: int) -> None:
    cores = os.cpu_count() or 1
    if not 0 <= threads <= cores:
        raise UsageError(f"{threads} threads are asked for, this machine has {cores} cores", hint="0 means all cores")
