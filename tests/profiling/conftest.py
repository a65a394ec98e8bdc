"""Candidates whose answers and times are set by the test (see `stand_in.py`), and profiles made up of given times."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mmedge.profiling.candidates import twin
from mmedge.profiling.messages import Memory
from mmedge.profiling.meters import State
from mmedge.profiling.report import (
    SCHEMA,
    Candidate,
    Machine,
    Profile,
    Query,
    Run,
    Settings,
    Start,
    Weight,
)
from mmedge.profiling.results import results_of

QUIET = State(load=0.5, governors=("performance",), on_battery=False, swap_mb=0.0)


@pytest.fixture(scope="session")
def stand_in() -> tuple[str, ...]:
    """The command that starts a worker which does what a file says."""
    return (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture(scope="session")
def make_candidate() -> Callable[..., Candidate]:
    """A candidate that is told by a file in a folder."""

    def make(folder: Path, name: str, **told: Any) -> Candidate:
        file = folder / f"{name}.json"
        file.write_text(json.dumps(told))
        return Candidate(name, str(file), "0" * 64, None, {"encoder": "float32"}, 1 << 20)

    return make


@pytest.fixture(scope="session")
def make_queries() -> Callable[..., tuple[Query, ...]]:
    def make(expected: str | None = None) -> tuple[Query, ...]:
        return tuple(Query(f"{number}", f"/{number}.png", "caption", None, expected) for number in range(4))

    return make


@pytest.fixture
def candidate(make_candidate: Callable[..., Candidate], tmp_path: Path) -> Callable[..., Candidate]:
    return lambda name="first", **told: make_candidate(tmp_path, name, **told)


@pytest.fixture
def queries(make_queries: Callable[..., tuple[Query, ...]]) -> tuple[Query, ...]:
    return make_queries()


@pytest.fixture
def wait_for_end() -> Callable[[int], None]:
    """Wait until a process that is nobody's child here has ended."""

    def wait(pid: int) -> None:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended, _, _ = select.select([process], [], [], 30)
        os.close(process)
        assert ended, f"process {pid} is still there"

    return wait


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Any]:
    """Whole runs that nobody measured: see `made_up_runs.made_up_run` for what can be asked of them."""
    place = Path(__file__).with_name("made_up_runs.py")
    spec = spec_from_file_location("made_up_runs", place)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.made_up_run  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def made_up() -> Callable[..., Profile]:
    """A whole profile in which candidate and round decide how long an answer took, in ms."""

    def make(
        times: Callable[[int, int], float] = lambda candidate, index: 10.0,
        *,
        rounds: int = 30,
        text: Callable[[int, int], str] = lambda candidate, index: "a picture",
        tokens: Callable[[int], int] = lambda candidate: 3,
        names: Sequence[str] = ("float32 onnxruntime", "int8 onnxruntime"),
        pictures: int = 3,
        expected: str | None = None,
        state: State = QUIET,
    ) -> Profile:
        own = [Candidate(name, f"/{name}", "0" * 64, None, {"encoder": "float32"}, 5 << 20) for name in names]
        candidates = (*own, twin(own[0]))
        order = tuple(tuple(range(len(candidates))) for _ in range(rounds))
        runs = [
            _run(number, index, pictures, rounds, times(number, index), text(number, index), tokens(number))
            for index, row in enumerate(order)
            for number in row
        ]
        everyone = range(len(candidates))
        profile = Profile(
            schema=SCHEMA,
            mmedge="0",
            begun="2025-01-01T00:00:00+00:00",
            complete=True,
            settings=Settings(rounds, warmup=5, sittings=5, threads=0, limit=None, seed=0),
            machine=Machine("Some CPU", "x86_64", 4, 4096, "", "6.1", state, state),
            software={},
            candidates=candidates,
            queries=tuple(
                Query(str(number), f"/{number}.png", "caption", None, expected) for number in range(pictures)
            ),
            order=order,
            starts=tuple(Start(number, "sitting", 0.2, 0.5, 0.3, 0.6) for number in everyone),
            weights=tuple(Weight(number, "alone", Memory(50 << 20, 40 << 20, 70 << 20)) for number in everyone[:-1]),
            runs=tuple(runs),
        )
        return replace(profile, results=results_of(profile))

    return make


def _run(number: int, index: int, pictures: int, rounds: int, ms: float, text: str, tokens: int) -> Run:
    stages = {"encode": ms * 0.6, "prefill": ms * 0.1, "decode_loop": ms * 0.3}
    times = tuple(ms * (0.7 + 0.3 * token / max(tokens - 1, 1)) for token in range(tokens))
    return Run(number, index % pictures, min(4, index * 5 // rounds), index, text, ms, stages, times)
