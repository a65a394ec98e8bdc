import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.commands.gate import gate
from mmedge.errors import InputError, UsageError
from mmedge.profiling.keep import write_run
from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.showing.terminal_rows import WIDTH

TESTS = Path(__file__).parents[1]
EXAMPLE = TESTS.parent / "benchmarks" / "workloads" / "gate.toml"


@pytest.fixture(scope="module")
def make_run():
    spec = spec_from_file_location("made_up_runs", TESTS / "profiling" / "made_up_runs.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.made_up_run


@pytest.fixture
def kept(make_run, tmp_path):
    """The file of a made-up run."""

    def write(**told) -> Path:
        path = tmp_path / "run.json"
        write_run(finished(make_run(finished=False, **told)), path)
        return path

    return write


def test_a_run_that_keeps_the_rules_passes(kept, capsys):
    assert gate(kept(rounds=60), rules=EXAMPLE) == 0
    out = capsys.readouterr().out
    assert "passed: 4 hold, 0 broken, 1 inconclusive" in out and max(map(len, out.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ({"speeds": (1.0, 1.4)}, 8, "failed: slower or larger (exit 8)"),
        ({"speeds": (1.0, 1.05), "noise": 0.2}, 9, "inconclusive (exit 9)"),
        ({"complete": False}, 9, "DOUBTED: the run was not completed"),
    ],
)
def test_otherwise_the_exit_code_says_why(kept, capsys, told, code, said):
    assert gate(kept(rounds=40, **told), rules=EXAMPLE) == code
    assert said in capsys.readouterr().out


def test_worse_answers(kept, capsys, tmp_path):
    (tmp_path / "rules.toml").write_text('[[rule]]\nmetric = "agreement"\nnoninferior = 1.0')
    assert gate(kept(rounds=20, changed=8), rules=tmp_path / "rules.toml") == 7
    assert "failed: answers are worse (exit 7)" in capsys.readouterr().out


def test_json(kept, capsys):
    assert gate(kept(rounds=40, speeds=(1.0, 1.4)), rules=EXAMPLE, json=True) == 8
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 8 and found["findings"][0]["outcome"] == "broken"


def test_history(kept, capsys, tmp_path):
    history = tmp_path / "history.jsonl"
    for _ in range(2):
        gate(kept(rounds=40), rules=EXAMPLE, history=history)
    assert len(history.read_text().splitlines()) == 2
    assert "history of this machine" in capsys.readouterr().out


def test_history_of_a_machine_that_nothing_identifies(make_run, capsys, tmp_path):
    run = finished(make_run(finished=False, rounds=40))
    write_run(replace(run, machine=replace(run.machine, id="")), tmp_path / "run.json")
    assert gate(tmp_path / "run.json", rules=EXAMPLE, history=tmp_path / "history.jsonl") == 0
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "history" in line)
    assert said.startswith("no history of this machine in ") and "nothing identifies it" in said
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_history_without_the_package_that_finds_changes(kept, capsys, tmp_path, monkeypatch):
    (tmp_path / "ruptures.py").write_text("raise ModuleNotFoundError('gone', name='ruptures')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "ruptures", raising=False)
    assert gate(kept(rounds=40), rules=EXAMPLE, history=tmp_path / "history.jsonl") == 0
    assert "changes are not looked for: the package `ruptures` is not installed" in capsys.readouterr().out


def test_an_earlier_run_is_the_baseline_only_where_that_is_accepted(kept, make_run, capsys, tmp_path):
    earlier = tmp_path / "earlier.json"
    write_run(replace(finished(make_run(finished=False)), started="2025-12-31T12:00:00+00:00"), earlier)
    now = kept(rounds=40, speeds=(1.0, 0.9))
    with pytest.raises(UsageError, match="are two runs"):
        gate(now, rules=EXAMPLE, baseline=earlier)
    assert gate(now, rules=EXAMPLE, baseline=earlier, unpaired=True) == 8
    assert capsys.readouterr().out.startswith("UNPAIRED\n")


def test_what_cannot_be_read_is_refused(kept, tmp_path):
    with pytest.raises(UsageError, match="there is no run"):
        gate(tmp_path / "none.json", rules=EXAMPLE)
    with pytest.raises(UsageError, match="cannot read the rules"):
        gate(kept(rounds=8), rules=tmp_path / "none.toml")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="cannot read the run"):
        gate(tmp_path / "picture.json", rules=EXAMPLE)


def test_an_unverified_candidate_is_marked(make_run, tmp_path, capsys):
    run = make_run(finished=False)
    first, second, twin = run.candidates
    run = finished(replace(run, candidates=(first, replace(second, unverified=True), twin)))
    write_run(run, tmp_path / "run.json")
    with pytest.raises(UsageError, match="is not verified"):
        gate(tmp_path / "run.json", rules=EXAMPLE)
    assert gate(tmp_path / "run.json", rules=EXAMPLE, unverified=True) == 0
    assert "UNVERIFIED" in capsys.readouterr().out
