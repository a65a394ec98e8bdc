"""Real runs of the profiler over work that is known (`known_work.py`), on a machine that something else uses too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmedge.profiling.profile import Settings, profile
from mmedge.profiling.run import Candidate, Input, Inputs, Run

COMMAND = (sys.executable, str(Path(__file__).with_name("known_work.py")))
BUSY = "while True: sum(range(10_000))"


def run_of(more: Sequence[float], processes: int, rounds: int, seed: int = 7) -> Run:
    """Candidates whose answers take longer than the first's by these shares, in ``processes`` groups.

    One thread each, as what else runs is to have a core of its own to disturb.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        candidates = [_candidate(Path(folder, f"{at}.json"), share) for at, share in enumerate(more)]
        picture = Path(folder, "picture")
        picture.write_bytes(b"nothing")
        inputs = Inputs("known", "0" * 64, (Input("known", "caption", str(picture)),))
        settings = Settings(processes=processes, rounds=rounds, seed=seed, warmup_s=0.1, warmup_answers=10)
        return profile(candidates, inputs, settings, command=COMMAND)


@contextmanager
def one_thread() -> Iterator[None]:
    """For numpy in the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def noise() -> Iterator[str]:
    """One core busy with something else: stress-ng, where it is installed."""
    found = shutil.which("stress-ng")
    command = [found, "--cpu", "1", "--quiet"] if found else [sys.executable, "-c", BUSY]
    with subprocess.Popen(command) as process:
        try:
            yield "stress-ng --cpu 1" if found else "a busy Python process"
        finally:
            process.terminate()


def _candidate(bundle: Path, more: float) -> Candidate:
    bundle.write_text(json.dumps({"more": more}))
    return Candidate(f"{bundle.stem} +{more:.0%}", str(bundle), "0" * 64, None, {"all": "float64"}, 1)
