"""The profile from start to end: each candidate alone, then all of them in turns, then what came of it."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from mmedge import __version__
from mmedge.core.board import temperatures, this_board
from mmedge.errors import UsageError
from mmedge.profiling.candidates import twin
from mmedge.profiling.doubts import doubts_of
from mmedge.profiling.measure import ALONE, Measurement
from mmedge.profiling.meters import state_of_machine
from mmedge.profiling.order import Order, rounds_of, whole_blocks
from mmedge.profiling.power import Meter, Power
from mmedge.profiling.report import SCHEMA, Candidate, Machine, Profile, Query, Run, Settings
from mmedge.profiling.results import results_of
from mmedge.profiling.workers import COMMAND
from mmedge.runtime.device import this_device

SECONDS = 60
"""That all rounds together should take where nobody says how many."""
FEWEST_ROUNDS, MOST_ROUNDS = 30, 240
"""Of those; a longer list of pictures is answered whole if it fits the time."""
SAVE_EVERY = 10
"""Rounds."""


def profile(
    candidates: Sequence[Candidate],
    queries: Sequence[Query],
    *,
    rounds: int | None = None,
    warmup: int = 5,
    sittings: int = 5,
    threads: int = 0,
    limit: int | None = None,
    seed: int = 0,
    save: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    command: Sequence[str] = COMMAND,
) -> Profile:
    """Compare candidates (`candidates.candidates_of`) on the same queries (`queries`).

    Args:
        candidates: the first is what the others are compared with, and takes part a second time.
        queries: what is asked, in turn.
        rounds: each candidate answers once a round; None takes as many as fit a minute.
        warmup: answers of every fresh process that do not count.
        sittings: groups of fresh processes that the rounds are spread over.
        threads: CPU threads of each candidate; 0 means all cores.
        limit: longest answer, in tokens.
        seed: of the order in which candidates answer.
        save: JSON file that is written every few rounds, and is complete when this returns.
        say: hears what is being done.
        command: what starts a worker.

    Raises:
        MmedgeError: what a worker met, with its exit code.
    """
    settings = Settings(FEWEST_ROUNDS if rounds is None else rounds, warmup, sittings, threads, limit, seed)
    _check(candidates, queries, settings)
    everyone = (*candidates, twin(candidates[0]))
    meter = Meter()
    measurement = Measurement(everyone, queries, warmup, threads, limit, command, meter=meter)
    draft = _draft(everyone, queries, settings, meter.power)
    _keep(draft, save)
    _measure_alone(measurement, say)
    draft = _planned(draft, rounds or choose_rounds(measurement.runs, len(everyone), len(queries)))
    _measure_in_turns(draft, measurement, save, say)
    finished = _finished(_filled(draft, measurement))
    _keep(finished, save)
    return finished


def _measure_alone(measurement: Measurement, say: Callable[[str], None]) -> None:
    """Everyone but the twin."""
    for doing, step in (("preparing", measurement.prepare), ("starting", measurement.alone)):
        for number, candidate in enumerate(measurement.candidates[:-1]):
            say(f"{doing} {candidate.name}")
            step(number)


def _measure_in_turns(draft: Profile, measurement: Measurement, save: Path | None, say: Callable[[str], None]) -> None:
    def done(index: int) -> None:
        say(f"round {index + 1} of {len(draft.order)}")
        if (index + 1) % SAVE_EVERY == 0:
            _keep(_filled(draft, measurement), save)

    for sitting, part in enumerate(_split(draft.order, draft.settings.sittings)):
        say(f"sitting {sitting + 1} of {draft.settings.sittings}")
        measurement.sitting(sitting, part, done)


def choose_rounds(runs: Sequence[Run], candidates: int, queries: int) -> int:
    """As many whole blocks as fit `SECONDS`, judged by the answers of each candidate alone (all but the twin's)."""
    alone = [run for run in runs if run.sitting == ALONE]
    seconds = [
        float(np.median([run.answer_ms for run in alone if run.candidate == number])) / 1e3
        for number in range(candidates - 1)
    ]
    fitting = SECONDS / max(sum(seconds) + seconds[0], 1e-6)
    return whole_blocks(candidates, int(min(max(fitting, FEWEST_ROUNDS), max(MOST_ROUNDS, queries))))


def _check(candidates: Sequence[Candidate], queries: Sequence[Query], settings: Settings) -> None:
    if not candidates or not queries:
        raise UsageError("there is nothing to profile", hint="name at least one bundle and one picture")
    for option, least in (("rounds", 1), ("warmup", 1), ("sittings", 1), ("threads", 0)):
        if (value := getattr(settings, option)) < least:
            raise UsageError(f"--{option} is {value}, it must be at least {least}")


def _split(order: Sequence[Order], parts: int) -> list[list[tuple[int, Order]]]:
    """Numbered rounds in consecutive parts that differ in length by one at most."""
    edges = [len(order) * part // parts for part in range(parts + 1)]
    numbered = list(enumerate(order))
    return [numbered[begin:end] for begin, end in pairwise(edges)]


def _draft(candidates: tuple[Candidate, ...], queries: Sequence[Query], settings: Settings, power: Power) -> Profile:
    return Profile(
        schema=SCHEMA,
        mmedge=__version__,
        begun=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        complete=False,
        settings=settings,
        machine=_machine(power),
        software={"python": platform.python_version(), "numpy": version("numpy"), "pillow": version("pillow")},
        candidates=candidates,
        queries=tuple(queries),
        order=(),
    )


def _planned(draft: Profile, rounds: int) -> Profile:
    settings = replace(draft.settings, rounds=rounds, sittings=min(draft.settings.sittings, rounds))
    return replace(draft, settings=settings, order=rounds_of(len(draft.candidates), rounds, settings.seed))


def _machine(power: Power) -> Machine:
    device = this_device()
    return Machine(
        **{field: getattr(device, field) for field in device.__struct_fields__},
        kernel=platform.release(),
        before=state_of_machine(),
        board=this_board(),
        power=power,
    )


def _filled(draft: Profile, measurement: Measurement) -> Profile:
    return replace(
        draft,
        software=draft.software | measurement.versions,
        starts=tuple(measurement.starts),
        weights=tuple(measurement.weights),
        runs=tuple(measurement.runs),
    )


def _finished(measured: Profile) -> Profile:
    machine = replace(measured.machine, after=state_of_machine(), temperatures_after=temperatures())
    whole = replace(measured, complete=True, machine=machine, results=results_of(measured))
    return replace(whole, doubts=doubts_of(whole))


def _keep(profile: Profile, path: Path | None) -> None:
    """Write the profile so that the file is whole at every moment."""
    if path is None:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(profile) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise UsageError(f"cannot write `{path}`: {(error.strerror or '').lower()}") from error
    finally:
        if draft.exists():
            draft.unlink()
