"""A profile as text of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from mmedge.core.board import Board
from mmedge.profiling.report import Profile, Result, Share
from mmedge.profiling.statistics import MARGIN, WIDEST, Interval, Spread

WIDTH = 80

_MIB = 1 << 20
_TWIN = "="
"""Stands for the first candidate's second part; the others have numbers."""
_NONE = "-"
_RATIOS = ("{:<14}", "{:>2}", "{:>11}", "{:>10}", "{:>8}", "{:>18}", "  {}")
_COSTS = ("{:>2}", "{:>9}", "{:>8}", "{:>9}", "{:>10}", "{:>10}", "{:>10}", "{:>11}", "{:>11}")


def lines(profile: Profile) -> Iterator[str]:
    """What a person should know: who took part, how fast in all and by stage, at what cost, and what to doubt."""
    yield from _heading(profile)
    yield ""
    yield from _ratios(profile)
    yield ""
    yield from _costs(profile)
    yield from _power(profile)
    if profile.doubts:
        yield ""
    for doubt in profile.doubts:
        yield from _wrapped("doubt: ", f"{doubt.what}; {doubt.advice}")


def _heading(profile: Profile) -> Iterator[str]:
    machine, settings = profile.machine, profile.settings
    asked = len({run.query for run in profile.rounds})
    tasks = " and ".join(sorted({query.task for query in profile.queries}))
    yield from _wrapped("", f"{machine.name}, {settings.threads or machine.cores} of {machine.cores} cores")
    if machine.board and machine.board.l4t:
        yield from _wrapped("", _jetson(machine.board))
    yield f"{tasks}: {settings.rounds} rounds on {asked} pictures in {settings.sittings} sittings"
    for mark, candidate in zip(_marks(profile), profile.candidates, strict=True):
        precisions = ", ".join(f"{component} {precision}" for component, precision in candidate.precisions.items())
        said = "tells what is chance" if mark == _TWIN else precisions
        yield from _wrapped(f"{mark:>2}  ", f"{candidate.name} ({said})")


def _ratios(profile: Profile) -> Iterator[str]:
    """One block of lines a stage, one line a candidate."""
    yield _row(_RATIOS, ("", "", "median ms", "quartiles", "ratio", "95 % interval", ""))
    for first in profile.results[0].metrics:
        name = first.name.replace("_", " ")
        for mark, result in zip(_marks(profile), profile.results, strict=True):
            if metric := result.metric(first.name):
                numbers = _number(metric.ms.median), _number(metric.ms.quartiles), *_interval(metric.ratio)
                yield _row(_RATIOS, (name, mark, *numbers, metric.verdict or ""))
                name = ""
    yield from _wrapped("", f"ratio: to 1 in the same round; {_bounds(profile)} (stages: by their own lines {_TWIN})")


def _costs(profile: Profile) -> Iterator[str]:
    yield _row(_COSTS, ("", "start s", "load s", "PSS MiB", "peak MiB", "file MiB", "tokens/s", "right", "as 1"))
    for mark, candidate, result in zip(_marks(profile), profile.candidates, profile.results, strict=True):
        yield _row(
            _COSTS,
            (
                mark,
                _middle(result.start_s),
                _middle(result.load_s),
                *_memory(result),
                f"{candidate.size / _MIB:.1f}",
                _middle(result.tokens_per_second),
                _share(result.right),
                _share(result.equal),
            ),
        )
    yield from _wrapped(
        "", "start: from asking for the process to its first answer, files being in memory; right, as 1: pictures"
    )


def _power(profile: Profile) -> Iterator[str]:
    """Energy of an answer by supply rail, and how hot it became; nothing of profiles that were made without."""
    machine = profile.machine
    if machine.power and machine.power.missing:
        yield from _wrapped("", f"energy: not measurable here: {machine.power.missing}")
    elif machine.power:
        for mark, result in zip(_marks(profile), profile.results, strict=True):
            rails = (f"{name} {_number(energy.median)}" for name, energy in result.energy_mj.items())
            yield from _wrapped(f"{mark:>2}  ", f"energy, mJ an answer: {', '.join(rails)}")
        said = f"{machine.power.whole} carries" if machine.power.whole else "no one of them carries"
        yield from _wrapped("", f"energy: through supply rails, idle power included; {said} all that is measured")
    if machine.temperatures_after:
        zone, after = max(machine.temperatures_after.items(), key=lambda item: item[1])
        before = machine.board.temperatures.get(zone) if machine.board else None
        grew = f"{before:.1f} before, {after:.1f} after" if before is not None else f"{after:.1f} after"
        yield from _wrapped("", f"temperature of {zone}, degrees C: {grew}")


def _jetson(board: Board) -> str:
    jetpack = f"JetPack {board.jetpack}, " if board.jetpack else ""
    clocks = "clocks fixed" if board.clocks_fixed else "clocks vary"
    return f"{jetpack}Jetson Linux {board.l4t}, power mode {board.power_mode or 'unknown'}, {clocks}"


def _bounds(profile: Profile) -> str:
    """What `verdict` went by for whole answers."""
    twin = profile.results[-1].metric("answer")
    bound = max(1 + MARGIN, twin.ratio.reach if twin and twin.ratio else 1.0)
    return f"faster, slower: by more than {bound - 1:.1%}; same: within {min(bound, WIDEST) - 1:.1%}"


def _marks(profile: Profile) -> list[str]:
    return [*(str(number) for number in range(1, len(profile.candidates))), _TWIN]


def _memory(result: Result) -> tuple[str, str]:
    if result.memory is None:
        return _NONE, _NONE
    return f"{result.memory.pss / _MIB:.0f}", f"{result.memory.peak / _MIB:.0f}"


def _interval(found: Interval | None) -> tuple[str, str]:
    return (f"x{found.ratio:.2f}", f"{found.low:.3f} .. {found.high:.3f}") if found else ("", "")


def _middle(found: Spread | None) -> str:
    return _number(found.median) if found else _NONE


def _share(found: Share | None) -> str:
    return f"{found.count}/{found.of}" if found else _NONE


def _number(value: float) -> str:
    return f"{value:.{3 if value < 1 else 2 if value < 100 else 1}f}"


def _row(formats: Sequence[str], cells: Sequence[str]) -> str:
    return "".join(form.format(cell) for form, cell in zip(formats, cells, strict=True)).rstrip()


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=label, subsequent_indent=" " * len(label))
