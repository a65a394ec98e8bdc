"""``mmedge doctor``"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmedge.runtime.doctor import Diagnosis

WIDTH = 79


def doctor(*, json: bool = False) -> int:
    """Say what this machine has to run bundles, what it lacks, and the next command for each thing.

    Args:
        json: Print everything as JSON.
    """
    import msgspec

    from mmedge.errors import BackendError
    from mmedge.runtime.doctor import diagnose

    found = diagnose()
    if json:
        print(
            msgspec.json.format(msgspec.json.encode({"can_run": found.can_run, **msgspec.to_builtins(found)})).decode()
        )
    else:
        print("\n".join(lines(found)))
    return 0 if found.can_run else BackendError.exit_code


def lines(found: Diagnosis) -> Iterator[str]:
    """For a terminal of 80 columns."""
    for title, rows in (("machine", _machine(found)), ("software", _software(found)), ("engines", _engines(found))):
        yield title
        for name, value in rows:
            yield from _row(name, value)
        yield ""
    if not found.advice:
        yield "nothing is missing"
    for number, each in enumerate(found.advice, 1):
        yield from _wrapped(f"{number}. {each.weight}: {each.what}", "   ")
        for command in each.todo:
            yield from _command(command)


def _machine(found: Diagnosis) -> Iterator[tuple[str, str]]:
    device, board = found.device, found.board
    yield "name", f"{board.model or device.name} ({device.arch}, {device.cores} cores)"
    yield "memory", f"{found.free_memory_mb:,} of {device.memory_mb:,} MiB free, {found.swap_mb:,} MiB of swap"
    yield "disk", f"{found.interpreter.free_disk_mb:,} MiB free here"
    if board.jetson:
        yield "system", f"JetPack {board.jetpack or 'unknown'}, Jetson Linux (L4T) {board.l4t or 'not told'}"
        yield "power mode", board.power_mode or "not told"
    if board.clocks:
        how = "fixed" if board.clocks_fixed else "changing"
        yield "clocks", f"{how}; " + ", ".join(f"{clock.name} {clock.now:,.0f} MHz" for clock in board.clocks)
    if board.temperatures:
        zone, hottest = max(board.temperatures.items(), key=lambda each: each[1])
        yield "temperature", f"{hottest:.1f} °C ({zone}, the hottest of {len(board.temperatures)})"


def _software(found: Diagnosis) -> Iterator[tuple[str, str]]:
    interpreter = found.interpreter
    kind = "" if not interpreter.virtual else ", virtual environment"
    kind += "" if interpreter.sees_system else " without the system's packages"
    yield "Python", f"{interpreter.version} at {interpreter.executable}{kind}"
    yield "packages", ", ".join(f"{name} {version}" for name, version in interpreter.packages.items())
    if found.cuda:
        yield "CUDA", found.cuda
    if found.tensorrt.library or found.board.jetson:
        modules = ", ".join(found.tensorrt.modules)
        module = f"module for Python {modules}" if modules else "no Python module"
        yield "TensorRT", f"{found.tensorrt.library or 'not found'}; {module}"
        yield "trtexec", found.tensorrt.trtexec or "not found"


def _engines(found: Diagnosis) -> Iterator[tuple[str, str]]:
    for engine in found.interpreter.engines:
        ties = "".join(f", {name.replace('_', ' ')} {value}" for name, value in engine.tied_to.items() if value)
        yield engine.name, f"{engine.version}{ties}" if engine.usable else f"no: {engine.problem}"


def _row(name: str, value: str) -> Iterator[str]:
    yield from _wrapped(f"  {name:<16} {value}", " " * 19)


def _command(text: str) -> Iterator[str]:
    """To be copied into a shell, also where it takes more than one line."""
    parts = _wrapped(f"     {text}", " " * 7, width=WIDTH - 2)
    yield from (f"{part} \\" for part in parts[:-1])
    yield parts[-1]


def _wrapped(text: str, indent: str, width: int = WIDTH) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
