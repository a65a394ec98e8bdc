"""``mmedge compile``"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmedge.core.bundle import Bundle
    from mmedge.errors import BackendError
    from mmedge.runtime.building import Moment
    from mmedge.runtime.compile import Compilation, Here, Made, Step

WIDTH = 79


def compile(
    bundle: Path,
    /,
    *,
    backend: str | None = None,
    builder_mb: int | None = None,
    threads: int = 0,
    dry_run: bool = False,
    trtexec: bool = False,
    version: str | None = None,
    json: bool = False,
) -> int:
    """Make a bundle ready for this device: compile its graphs, and replay its golden samples on them.

    Graphs are compiled one at a time, each in a process of its own. What is ready already is kept, so that it can be
    stopped at any time and called again. What disagrees with the golden samples is removed.

    Args:
        bundle: A folder that `mmedge export` wrote.
        backend: Compile every graph for this engine instead of the target's choice.
        builder_mb: Memory that compiling one graph may take, MiB, instead of what the target says; 0 means all.
        threads: CPU threads of the replay; 0 means all cores.
        dry_run: Only say what would be done.
        trtexec: Only print the command lines of TensorRT's own tool that would build the same engines.
        version: For --trtexec, the TensorRT they are for, such as 10.3; without it the one that is installed here.
        json: Print everything as JSON.
    """
    from mmedge.core.bundle import open_bundle
    from mmedge.errors import UsageError
    from mmedge.runtime.compile import compile_bundle, steps

    if version is not None and not trtexec:
        raise UsageError("--version says which TensorRT --trtexec is for, and has no meaning without it")
    if trtexec:
        _check_alone(backend=backend is not None, builder_mb=builder_mb is not None, threads=threads, dry_run=dry_run)
    if builder_mb is not None and builder_mb < 0:
        raise UsageError(f"--builder-mb is {builder_mb}, it must be at least 0")
    opened = open_bundle(bundle)
    if trtexec:
        return _show_trtexec(opened, version, as_json=json)
    if dry_run:
        return _show_steps(*steps(opened, backend), as_json=json)
    with ProgressLines() as watcher:
        found = compile_bundle(opened, watcher, backend=backend, builder_mb=builder_mb, threads=threads)
    missed = None if backend else _missed(opened, found)
    code = _show_result(opened, found, as_json=json)
    if missed and not json:
        raise missed
    return code or (missed.exit_code if missed else 0)


def _check_alone(**given: object) -> None:
    """
    Raises:
        UsageError: an option has no meaning for command lines that are only printed.
    """
    from mmedge.errors import UsageError

    if names := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise UsageError(f"--trtexec only prints command lines, {' and '.join(names)} cannot be given with it")


class ProgressLines:
    """One line per graph on standard error with its time and peak memory; one under way shows both as they are now."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self._shown = 0.0

    def warn(self, warning: str) -> None:
        print(f"warning: {warning}", file=sys.stderr, flush=True)

    def begin(self, step: Step) -> None:
        self._now(f"{step.component} for {step.engine} ...")

    def moment(self, step: Step, moment: Moment) -> None:
        if time.monotonic() - self._shown >= 0.5:
            done = "" if moment.done is None else f"{moment.done:6.0%}"
            self._now(_line(step.component, step.engine, moment.seconds, moment.taken_mb, done))

    def end(self, made: Made) -> None:
        self._clear()
        if made.state != "compiled":
            note = "ready already" if made.state == "kept" else "needs no compiling"
            print(f"{made.component:<20} {made.engine:<16} {note}"[:WIDTH], file=sys.stderr, flush=True)
        else:
            print(_line(made.component, made.engine, made.seconds, made.peak_mb, "peak"), file=sys.stderr, flush=True)

    def replay(self, line: str) -> None:
        self._now(line)

    def _now(self, line: str) -> None:
        self._shown = time.monotonic()
        if self.live:
            print(f"\r{line[:WIDTH]:<{WIDTH}}", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self.live:
            print(f"\r{'':<{WIDTH}}\r", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()


def _line(component: str, engine: str, seconds: float, megabytes: float, note: str) -> str:
    return f"{component:<20} {engine:<16} {seconds:8.1f} s {megabytes:9,.0f} MiB  {note}"[:WIDTH].rstrip()


def _show_steps(here: Here, planned: tuple[Step, ...], *, as_json: bool) -> int:
    if as_json:
        _print_json({"here": here, "steps": planned})
        return 0
    from mmedge.commands._table import show_table

    print("\n".join(_told(here)) + "\n")
    rows = ((step.component, step.engine, step.state, _needs(step), _key(step)) for step in planned)
    show_table(("graph", "engine", "state", "MiB to compile", "key"), rows, wrap="state")
    for step in planned:
        if step.refused:
            print(f"\n`{step.component}` was refused before: {step.refused}")
    if places := {Path(step.folder).parent: None for step in planned if step.state != "as it is"}:
        print(f"\nkept in {', '.join(map(str, places))}")
    return 0


def _needs(step: Step) -> str:
    return f"about {step.expected_mb:,.0f}" if step.expected_mb else ""


def _key(step: Step) -> str:
    return "" if step.state == "as it is" else Path(step.folder).name.rpartition("-")[2]


def _show_result(bundle: Bundle, found: Compilation, *, as_json: bool) -> int:
    from mmedge.errors import QualityError

    if as_json:
        _print_json({"passed": found.passed, **_builtins(found)})
        return 0 if found.passed else QualityError.exit_code
    if not found.passed:
        raise _disagreement(bundle, found)
    compiled = [made for made in found.made if made.state == "compiled"]
    checks = f"{len(found.verification.checks)} checks passed on {', '.join(found.here.engines)}"
    print(f"{len(found.made)} graphs ready, {len(compiled)} compiled now; {checks}")
    return 0


def _missed(bundle: Bundle, found: Compilation) -> BackendError | None:
    """What a fall-back runs is not what this command is called for, although it answers."""
    from mmedge.errors import BackendError

    wanted = {graph.component: bundle.manifest.target.backends[graph.role] for graph in bundle.manifest.graphs}
    others = {made.component: made.engine for made in found.made if made.engine != wanted[made.component]}
    if not others:
        return None
    component, engine = next(iter(others.items()))
    return BackendError(
        f"{len(others)} of {len(wanted)} graphs are not ready for {wanted[component]}: {engine} answers instead",
        hint="`mmedge doctor` says what is missing; with `--backend` a fall-back is what you ask for",
    )


def _disagreement(bundle: Bundle, found: Compilation) -> Exception:
    from mmedge.errors import QualityError

    removed = [f"`{component}` was removed: {reason}" for component, reason in found.refused.items()]
    failed = [check for check in found.verification.checks if not check.passed]
    first = f"`{failed[0].what}` of {failed[0].sample}: {failed[0].value:.6g}, the bound is {failed[0].bound:.6g}"
    return QualityError(
        f"{bundle.path} does not answer here as where it was made: {'; '.join(removed) or first}",
        hint="what was removed is not used: the next engine of the target answers instead; "
        f"`mmedge verify {bundle.path} --backend onnxruntime` tells whether the graphs themselves are sound here",
    )


def _show_trtexec(bundle: Bundle, version: str | None, *, as_json: bool) -> int:
    from mmedge.backends._trtexec import command_lines, spelled

    version = version or _installed_tensorrt()
    lines = command_lines(bundle, version)
    if as_json:
        _print_json({"version": version, "commands": lines})
        return 0
    print("\n".join(spelled(line) for line in lines))
    return 0


def _installed_tensorrt() -> str:
    from mmedge.core import find
    from mmedge.errors import BackendError

    try:
        return find.backend("tensorrt").version()
    except BackendError as missing:
        raise BackendError(missing.message, hint="say for which TensorRT with --version, such as 10.3") from missing


def _told(here: Here) -> Iterable[str]:
    system = f", JetPack {here.jetpack or '?'} (Jetson Linux {here.l4t})" if here.l4t else ""
    yield f"device   {here.device.name}{system}"
    for name, facts in here.engines.items():
        rest = ", ".join(
            f"{what.replace('_', ' ')} {value}" for what, value in facts.items() if value and what != "version"
        )
        yield f"engine   {name} {facts['version']}" + (f" ({rest})" if rest else "")
    for warning in here.warnings:
        yield f"warning: {warning}"


def _builtins(value: object) -> dict[str, object]:
    import msgspec

    built: dict[str, object] = msgspec.to_builtins(value)
    return built


def _print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value)).decode())
