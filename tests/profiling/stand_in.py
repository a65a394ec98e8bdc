"""A worker that computes nothing: the real protocol, around answers and times that a JSON file sets.

Run as ``python stand_in.py PARENT``; the bundle that it is told to load is that file. Its clock moves by what it is
told that stages take, so that nothing in a test depends on how fast this machine is. Keys of the file: ``stages`` (ms),
``tokens``, ``text`` (one, or one per picture, which holds its own name), ``first`` (the first answer of a process takes
so many times as long), ``noise`` (standard deviation of the logarithm of all times), ``drift`` (the same for a whole
process), ``error`` (name of an MmedgeError), ``failed`` (what golden samples say), ``die`` (exit code, or ``SIGNAME``),
``child``, ``hang``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmedge import errors
from mmedge.profiling.messages import Load
from mmedge.profiling.worker import main
from mmedge.runtime.pipeline import Answer, Piece

now = time.perf_counter_ns()
"""As the profiler's own clock, but it stands still."""


def clock_ns() -> int:
    return now


def failed(order: Load) -> tuple[str, ...]:
    return tuple(json.loads(Path(order.bundle).read_text()).get("failed", ()))


class StandIn:
    def __init__(self, path: Path, backend: str | None, threads: int) -> None:
        global now
        self.backends: dict[str, str] = {}
        self.told = json.loads(path.read_text())
        print(f"banner of an engine on {threads} threads", flush=True)
        os.write(1, b"more of it, past Python\n")
        if self.told.get("child"):
            child = subprocess.Popen(["sleep", "1000"])
            Path(f"{path}.child").write_text(str(child.pid))
        if kind := self.told.get("error"):
            raise getattr(errors, kind)("cannot go on", hint="do something")
        Path(f"{path}.pid").write_text(str(os.getpid()))
        self.chance = random.Random(f"{path.name} {self._starts(path)}")
        self.pace = self._noise("drift") * self.told.get("first", 1.0)
        now += 250_000_000

    def answer(self, task, picture, text, *, limit, show, clock) -> Answer:
        global now
        if self.told.get("hang"):
            time.sleep(1000)
        if "die" in self.told:
            self._die(self.told["die"])
        factor = self.pace * self._noise("noise")
        self.pace /= self.told.pop("first", 1.0)
        stages = {name: ms * factor for name, ms in self.told.get("stages", {"encode": 10.0}).items()}
        count = min(limit or 100, self.told.get("tokens", 3))
        loop = stages.get("decode_loop", 0.0)
        now += int((sum(stages.values()) - loop) * 1e6)
        clock.stages_ns |= {name: int(ms * 1e6) for name, ms in stages.items()}
        for token in range(count):
            now += int(loop / count * 1e6)
            show(Piece("a", token, 0.0))
        said = self.told.get("text", "a picture")
        said = said if isinstance(said, str) else said[picture.decode()]
        return Answer(said, tuple(range(count)), "stop", stages)

    def close(self) -> None:
        pass

    def _noise(self, kind: str) -> float:
        return self.chance.lognormvariate(0.0, self.told.get(kind, 0.0))

    def _starts(self, path: Path) -> int:
        """How often a process with this file has started: each gets noise of its own, the same in every run."""
        with Path(f"{path}.starts").open("a") as file:
            file.write(".")
            return file.tell()

    def _die(self, how: int | str) -> None:
        print("the engine: something terrible", file=sys.stderr, flush=True)
        if isinstance(how, str):
            os.kill(os.getpid(), getattr(signal, how))
        os._exit(how)


if __name__ == "__main__":
    main(StandIn, failed, clock_ns)
