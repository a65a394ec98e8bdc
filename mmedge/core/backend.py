"""What an engine must do: compile a graph for this device, open it, run it and keep its cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

from mmedge.core.ports import Tensors

if TYPE_CHECKING:
    from mmedge.core.bundle import Graph


Options: TypeAlias = Mapping[str, "str | int | bool"]
"""A target's ``options``: each backend reads those it knows."""

NO_OPTIONS: Options = MappingProxyType({})


class Session(Protocol):
    """An open graph. A decoder's key/value cache stays with the session, on its device, between runs."""

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """Outputs by name, without the cache; only ``outputs`` where they are given, so that nothing else is copied
        from the device. The inputs held by ``reset`` need not be fed again.

        Raises:
            InputError: a feed has the wrong name, dtype or shape (`core.ports.check_feeds`); the cache is as it was.
            BackendError: the engine failed; what the cache holds is unknown until the next reset.
        """
        ...

    def reset(self, held: Tensors | None = None) -> None:
        """Empty the cache and hold ``held`` as inputs that stay the same until the next reset (the cross-attention
        keys and values of an encoder, bound once instead of at every step). They are not copied: leave them as they
        are until then."""
        ...

    def close(self) -> None:
        """Give the engine's memory back; a closed session cannot run."""
        ...


@runtime_checkable
class Shortening(Protocol):
    """A session whose cache can be shortened."""

    def keep(self, length: int) -> bool:
        """Forget all but the first ``length`` tokens; False where the cache cannot be shortened, and is as it was."""
        ...


@runtime_checkable
class Batching(Protocol):
    """A session whose cache has rows, one for each of several answers that are read at once."""

    def select(self, begin: int, end: int) -> bool:
        """Read and write the rows from ``begin`` to ``end``, new ones empty, at the runs that follow: inputs have as
        many rows. False where the cache has but one. A reset selects the first."""
        ...

    def move(self, old: int, new: int) -> None:
        """Put what row ``old`` holds in place of row ``new``."""
        ...


class Backend(Protocol):
    """A way of running graphs; a file of ``mmedge/backends`` ends in ``BACKEND = ...``."""

    name: str

    def version(self) -> str:
        """Version of the engine's library.

        Raises:
            BackendError: it is not installed; the hint names the extra that brings it.
        """
        ...

    def tied_to(self) -> dict[str, str]:
        """What a compiled graph depends on besides the processor and the engine's version, such as the GPU."""
        ...

    def compiles(self, graph: Graph) -> bool:
        """Whether there is something to `compile`; if not, `open` takes the ONNX file as it is."""
        ...

    def compile(self, graph: Graph, source: Path, output: Path, options: Options = NO_OPTIONS) -> Path:
        """Turn the ONNX file ``source`` into this engine's own form inside the existing folder ``output`` and return
        the file that `open` takes, which may read others beside it.

        Raises:
            BackendError: the engine refuses the graph.
        """
        ...

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> Session:
        """Open what `compile` returned on ``threads`` CPU threads; 0 means all cores that this process may use.

        Raises:
            BackendError: the engine refuses the graph.
        """
        ...


class NodeTime(NamedTuple):
    """What one node cost in one run, as the engine counted it."""

    node: str
    """As the engine calls it."""
    op: str
    onnx_names: tuple[str, ...]
    """Nodes of the ONNX graph that it stands for: several where the engine fused them, none where it added one."""
    us: float


class ProfiledSession(Session, Protocol):
    """An open graph whose engine keeps count of time; a little slower than others."""

    def node_times(self) -> tuple[tuple[NodeTime, ...], ...]:
        """Of every run since it was opened, one after the other. To be asked once, at the end.

        Raises:
            BackendError: what the engine wrote down cannot be read.
        """
        ...


@runtime_checkable
class Profiling(Protocol):
    """A backend that can tell the time of every node."""

    def open_profiled(
        self, graph: Graph, source: Path, threads: int = 0, options: Options = NO_OPTIONS
    ) -> ProfiledSession:
        """As `Backend.open`, but from the ONNX file, as what was compiled for use does not keep count.

        Raises:
            BackendError: the engine refuses the graph.
        """
        ...
