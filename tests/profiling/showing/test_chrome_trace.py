"""The rules of the Trace Event Format, which Perfetto reads: https://perfetto.dev/docs/getting-started/other-formats"""

import json
from itertools import pairwise

import msgspec
import pytest
from msgspec.structs import replace

from mmedge.profiling.run import Sample
from mmedge.profiling.showing.chrome_trace import trace_of

FIELDS = {
    "X": {"name", "ts", "dur", "pid", "tid"},
    "M": {"name", "pid", "tid", "args"},
    "C": {"name", "ts", "pid", "args"},
    "i": {"name", "ts", "pid", "tid", "s"},
}


def events(run, kind=None):
    """As another program reads them."""
    found = json.loads(msgspec.json.encode(trace_of(run)))["traceEvents"]
    return [event for event in found if kind is None or event["ph"] == kind]


@pytest.fixture
def run(make_run):
    return make_run(rounds=5, extras=True)


def test_every_event_has_the_fields_of_its_kind(run):
    assert {event["ph"] for event in events(run)} == set(FIELDS)
    for event in events(run):
        assert FIELDS[event["ph"]] <= event.keys()
        assert event.get("ts", 0) >= 0 and event.get("dur", 0) >= 0


def test_slices_of_a_thread_nest(run):
    threads: dict[tuple[int, int], list] = {}
    for event in events(run, "X"):
        threads.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for slices in threads.values():
        ends: list[float] = []
        for begin, end in sorted(slices, key=lambda pair: (pair[0], -pair[1])):
            while ends and ends[-1] <= begin + 1e-6:
                ends.pop()
            assert not ends or end <= ends[-1] + 1e-6
            ends.append(end)


def test_every_candidate_in_every_process_has_a_name(run):
    names = {event["pid"]: event["args"]["name"] for event in events(run, "M") if event["name"] == "process_name"}
    assert {event["pid"] for event in events(run, "X")} < set(names)
    assert len(names) == len(set(names.values()))
    assert "scenes float32 onnxruntime, process 0" in names.values()


def test_stages_are_where_they_were_measured(make_run):
    run = make_run(rounds=1)
    sample = next(sample for sample in run.rounds if sample.spans)
    found = {event["name"]: event for event in events(replace(run, samples=(sample,)), "X")}
    for stage, begin, end in sample.spans:
        assert found[stage]["ts"] == pytest.approx((sample.start_ns + begin) / 1e3)
        assert found[stage]["dur"] == pytest.approx((end - begin) / 1e3)


def test_stages_that_only_have_lengths_are_laid_out_and_said_to_be(make_run):
    run = make_run(rounds=3)
    sample = next(sample for sample in run.rounds if not sample.spans)
    answer, *stages = events(replace(run, samples=(sample,)), "X")
    assert [event["name"] for event in stages][:2] == ["decode (laid out)", "preprocess (laid out)"]
    assert "not measured" in answer["args"]["stages"]
    assert all(one["ts"] + one["dur"] == pytest.approx(other["ts"]) for one, other in pairwise(stages))
    assert stages[-1]["ts"] + stages[-1]["dur"] == pytest.approx(answer["ts"] + answer["dur"])


def test_answers_at_the_same_time_are_on_threads_of_their_own(make_run):
    run = make_run(rounds=1)
    samples = tuple(Sample(0, 0, -1, 0, "load", start, 100, {}, (), 0) for start in (0, 50, 100))
    assert [event["tid"] for event in events(replace(run, samples=samples), "X") if "args" in event] == [1, 2, 1]


def test_tokens_are_instants(run):
    sample = run.samples[0]
    found = events(replace(run, samples=(sample,)), "i")
    assert [event["ts"] for event in found] == [(sample.start_ns + at) / 1e3 for at in sample.token_ns]


def test_the_machine_has_counters_and_none_for_what_it_does_not_tell(run):
    told = {event["name"] for event in events(run, "C")}
    assert {"MHz", "temperature, °C", "steal, %", "sentinel, ms", "cpu pressure, %"} <= told
    silent = replace(run, host=tuple(replace(host, celsius=None, mhz=None, steal=None) for host in run.host))
    assert not {"MHz", "temperature, °C", "steal, %"} & {event["name"] for event in events(silent, "C")}


def test_an_incomplete_run_and_an_unverified_candidate_are_marked(make_run):
    run = make_run(rounds=1, complete=False)
    doubtful = replace(run, candidates=tuple(replace(each, unverified=True) for each in run.candidates))
    names = [event["args"]["name"] for event in events(doubtful, "M") if event["name"] == "process_name"][1:]
    assert names and all("(unverified) (incomplete)" in name for name in names)
