"""Cold starts of a worker that sleeps for known times, and of files that are really dropped from memory."""

import mmap
import os
import sys
import time
from pathlib import Path

import pytest

from mmedge.profiling.machine import cold, page_cache
from mmedge.profiling.machine.cold import cold_starts
from mmedge.profiling.messages import Ask
from mmedge.profiling.run import Candidate

MIB = 1 << 20

SLEEPER = """
import os, sys, time
from pathlib import Path
from mmedge.core.ledger import spent, tell_compiled
from mmedge.profiling.worker import main
from mmedge.runtime.pipeline import Answer

PLACE = Path(os.environ.get("MMEDGE_READY") or {place!r})

class Sleeper:
    backends = {{}}

    def __init__(self, path, backend, threads):
        with spent("verify"):
            time.sleep(0.03)
        if {compiles}:
            tell_compiled(found=(PLACE / "compiled").exists())
            if not (PLACE / "compiled").exists():
                with spent("compile"):
                    time.sleep(0.06)
                (PLACE / "compiled").touch()
        time.sleep(0.02)

    def answer(self, task, picture, text, *, limit, show, clock):
        time.sleep(0.05)
        return Answer("", (), "stop", {{}})

    def close(self):
        pass

main(Sleeper)
"""


@pytest.fixture
def sleeper(tmp_path):
    """A candidate whose parts take known times, the command that starts it, and where it keeps what it compiles."""

    def make(compiles: bool):
        (place := tmp_path / "place").mkdir()
        (script := tmp_path / "sleeper.py").write_text(SLEEPER.format(place=str(place), compiles=compiles))
        (bundle := tmp_path / "bundle").write_bytes(os.urandom(MIB))
        return Candidate("sleeper", str(bundle), "0", None, {}, MIB), (sys.executable, str(script)), place

    return make


def parts(row) -> list[float]:
    return [row.process_s, row.import_s, row.verify_s, row.compile_s, row.load_s, row.answer_s]


def start(candidate, command, **options):
    return cold_starts(1, candidate, Ask("caption", candidate.bundle, None), command=command, **options)


def test_an_engine_that_compiles_is_started_with_hits_and_with_misses(sleeper):
    candidate, command, place = sleeper(compiles=True)
    found = start(candidate, command, starts=1)
    assert found.flags == ()
    assert [(row.pages, row.compiled) for row in found.rows] == [("cold", "hit"), ("warm", "hit"), ("cold", "miss")]
    for row in found.rows:
        assert row.c == 1 and row.total_s == pytest.approx(sum(parts(row)), abs=1e-4)
        assert row.verify_s >= 0.03 and row.load_s >= 0.02 and row.answer_s >= 0.05
        assert row.compile_s >= 0.06 if row.compiled == "miss" else row.compile_s == 0
    assert [path.name for path in place.iterdir()] == ["compiled"]


def test_an_engine_that_opens_files_as_they_are_has_neither(sleeper):
    candidate, command, _ = sleeper(compiles=False)
    began = time.perf_counter()
    found = start(candidate, command, starts=1)
    assert [(row.pages, row.compiled) for row in found.rows] == [("cold", "none"), ("warm", "none")]
    assert sum(row.total_s for row in found.rows) < time.perf_counter() - began


@pytest.mark.slow
def test_compiling_that_takes_long_is_done_once(sleeper, monkeypatch):
    candidate, command, _ = sleeper(compiles=True)
    monkeypatch.setattr(cold, "LONGEST_MISSES_S", 0.01)
    rows = start(candidate, command, starts=2).rows
    assert [row.compiled for row in rows].count("miss") == 1 and len(rows) == 5


@pytest.mark.parametrize(("resident", "code"), [(MIB // 2, "pages_stay"), (None, "pages_unknown")])
def test_files_that_stay_in_memory_are_no_cold_start(resident, code, sleeper, monkeypatch):
    candidate, command, _ = sleeper(compiles=True)
    monkeypatch.setattr(page_cache, "drop", lambda files: page_cache.Cached(MIB, resident))
    found = start(candidate, command, starts=1)
    assert [(row.pages, row.compiled) for row in found.rows] == [("warm", "hit"), ("warm", "miss")]
    assert [flag.code for flag in found.flags] == [code] and "sleeper" in found.flags[0].text


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk, with a file in it."""
    (folder := tmp_path / "files").mkdir()
    (folder / "weights").write_bytes(os.urandom(4 * MIB + 5))
    (folder / "empty").touch()
    (folder / "link").symlink_to("weights")
    if page_cache.drop([folder / "weights"]).resident != 0:
        pytest.skip("temporary files lie in memory, or belong to someone else")
    return folder


def test_files_are_dropped_and_read_again(disk):
    files = page_cache.files_in([disk, disk / "missing"])
    assert [file.name for file in files] == ["empty", "weights"]
    assert page_cache.cached(files) == (4 * MIB + 4096, 0)
    page_cache.fill(files)
    full = page_cache.cached(files)
    assert full.share == 1.0 and full.resident == full.bytes
    assert page_cache.drop(files).share == 0.0


def test_pages_that_are_mapped_stay_and_are_counted(disk):
    with (disk / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[: 2 * MIB]
        left = page_cache.drop([disk / "weights"])
    assert left.resident is not None and left.resident >= 2 * MIB


def test_what_the_kernel_does_not_tell_is_not_known(disk, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    left = page_cache.cached([Path(disk / "weights")])
    assert left.bytes and left.resident is None and left.share is None
