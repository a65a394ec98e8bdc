"""The command lines of TensorRT's own tool that build what `mmedge compile` builds, for those who want to look closer.

They keep to the spellings of `targets/data/trtexec_flags.json`, which were read from the sources of each version.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import msgspec

from mmedge.backends._tensorrt_build import Shape, shapes_of
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.find import PACKAGE
from mmedge.core.ports import Span
from mmedge.errors import UsageError

Command: TypeAlias = tuple[str, ...]
Spans: TypeAlias = dict[str, Span]

_FLAGS = PACKAGE / "targets" / "data" / "trtexec_flags.json"
_ENDS = ("--minShapes", "--optShapes", "--maxShapes")

TOOL = "trtexec"
WHERE = "${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}"
"""For a shell: where JetPack puts it, which is not on the path, unless ``TRTEXEC`` says another."""


def command_lines(bundle: Bundle, version: str, output: Path | None = None) -> tuple[Command, ...]:
    """One for each graph, writing ``<component>.plan`` into ``output``, by default the current folder.

    Raises:
        UsageError: ``version`` is no version, or older than every one whose spellings are known.
        BackendError: a graph gives no range for a size that varies.
    """
    flags = flags_of(version)
    return tuple(_command(bundle, graph, version, flags, output or Path()) for graph in bundle.manifest.graphs)


def spelled(command: Command) -> str:
    """For a shell, one argument a line."""
    return " \\\n  ".join([WHERE, *map(shlex.quote, command[1:])])


def flags_of(version: str) -> frozenset[str]:
    """The flags of the newest known trtexec that is not newer than ``version``.

    Raises:
        UsageError: ``version`` is no version, or older than every known one.
    """
    wanted = _numbers(version)
    known = {_numbers(name): flags for name, flags in _known().items()}
    older = [numbers for numbers in known if numbers[: len(wanted)] <= wanted]
    if not wanted or not older:
        raise UsageError(
            f"the flags of trtexec {version} are not known", hint=f"known: {', '.join(sorted(_known(), key=_numbers))}"
        )
    return frozenset(known[max(older)])


def _command(bundle: Bundle, graph: Graph, version: str, flags: frozenset[str], output: Path) -> Command:
    options = bundle.manifest.target.options
    told = [f"--onnx={bundle.path / graph.file}", f"--saveEngine={output / graph.component}.plan"]
    if "workspace_mb" in options:
        told.append(f"--memPoolSize=workspace:{options['workspace_mb']}")
    if "builder_level" in options:
        told.append(f"--builderOptimizationLevel={options['builder_level']}")
    told.append(f"--timingCacheFile={output / f'tensorrt-{version}.timings'}")
    command = (TOOL, *told, *_types(graph, flags), *_profiles(graph, flags), "--skipInference")
    unknown = [flag for flag in command[1:] if flag.partition("=")[0] not in flags]
    assert not unknown, f"trtexec {version} has no {unknown}"
    return command


def _types(graph: Graph, flags: frozenset[str]) -> Iterator[str]:
    """In which types it computes: those of the graph where that can be said, or is the only way (11.x)."""
    if graph.precision == "float32":
        yield "--noTF32"
    if "--stronglyTyped" in flags:
        if "--fp16" in flags:  # later every network is strongly typed, and the flag does nothing
            yield "--stronglyTyped"
    elif graph.precision != "float32":
        yield from ("--fp16", "--int8") if graph.precision == "int8" else ("--fp16",)


def _profiles(graph: Graph, flags: frozenset[str]) -> Iterator[str]:
    shapes = shapes_of(graph)
    if len(shapes) > 1 and "--profile" not in flags:
        shapes = shapes_of(graph, (_widest(graph.profiles),))
    for number, profile in enumerate(shapes):
        if len(shapes) > 1:
            yield f"--profile={number}"
        for end, flag in enumerate(_ENDS):
            yield f"{flag}={','.join(_spelled(name, ends[end]) for name, ends in profile.items())}"


def _widest(profiles: tuple[Spans, ...]) -> Spans:
    """One profile for versions whose trtexec takes no more: it holds all of them, and is tuned for the last."""
    last = profiles[-1]
    return {
        name: Span(
            min(each[name].smallest for each in profiles), span.usual, max(each[name].largest for each in profiles)
        )
        for name, span in last.items()
    }


def _spelled(name: str, shape: Shape) -> str:
    return f"{name}:{'x'.join(map(str, shape))}"


@cache
def _known() -> dict[str, list[str]]:
    known = msgspec.json.decode(_FLAGS.read_bytes())
    return {name: flags for name, flags in known.items() if not name.startswith("_")}


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:3]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
