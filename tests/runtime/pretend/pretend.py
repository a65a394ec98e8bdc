"""An engine as a plugin, so that other processes find it too: what it is to do, it reads from the environment.

``PRETEND_<COMPONENT>`` says what befalls the compiling of a component; ``PRETEND`` what befalls the engine.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from mmedge.errors import BackendError, InputError, ResourceError


class Pretend:
    """Compiles to a file that says who compiled it; opens graphs as the tests' numpy engine does."""

    name = "pretend"
    progress = staticmethod(lambda phase, done: None)

    def version(self) -> str:
        if os.environ.get("PRETEND") == "missing":
            raise BackendError("the module `pretend` is not installed", hint="sudo apt install pretend")
        return "1.2"

    def tied_to(self) -> dict[str, str]:
        if os.environ.get("PRETEND") == "no gpu":
            raise BackendError("there is no GPU")
        return {"compute_capability": os.environ.get("PRETEND_CAPABILITY", "8.7")}

    def compiles(self, graph) -> bool:
        return True

    def compile(self, graph, source, output, options=None) -> Path:
        befall(os.environ.get(f"PRETEND_{graph.component.upper()}", ""), self.progress)
        artifact = output / f"{graph.component}.engine"
        artifact.write_text(f"{os.getpid()} {sorted((options or {}).items())}")
        return artifact

    def open(self, graph, artifact, threads=0, options=None):
        if os.environ.get("PRETEND") == f"closed {graph.component}":
            raise BackendError(f"pretend cannot open `{graph.component}`")
        if os.environ.get("PRETEND") == f"full {graph.component}":
            raise ResourceError(f"no memory for `{graph.component}`", hint="close other programs")
        wrong = os.environ.get("PRETEND") == f"wrong {graph.component}"
        return Altered(numpy_engine().open(graph, artifact), wrong)


class Altered:
    """A session whose numbers are off."""

    def __init__(self, session, wrong: bool) -> None:
        self._session, self._wrong = session, wrong

    def run(self, feeds, outputs=None):
        found = self._session.run(feeds)
        return {name: -tensor if self._wrong else tensor for name, tensor in found.items()}

    def __getattr__(self, name: str):
        return getattr(self._session, name)


def befall(what: str, progress) -> None:
    if what == "print":
        print("engines print")
    elif what == "tell":
        for done in (0.25, 0.5, 0.75):
            progress("tactics", done)
            time.sleep(0.11)
    elif what == "refuse":
        raise BackendError("the graph has an operator that nobody knows", hint="export it again")
    elif what == "bug":
        raise TypeError("a bug")
    elif what == "input":
        raise InputError("not this")
    elif what == "crash":
        print("assertion failed: never", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "eat":
        eaten = []
        while True:
            eaten.append(bytearray(b"x") * (8 << 20))
            time.sleep(0.02)
    elif what.startswith("wait "):
        (Path(what.removeprefix("wait ")) / str(os.getpid())).touch()
        time.sleep(600)


def numpy_engine():
    name = "tests_runtime_conftest"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).parent.parent / "conftest.py")
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name].Numpy()


BACKEND = Pretend()
