import pytest

from mmedge.errors import UsageError
from mmedge.profiling import yardstick
from mmedge.profiling.extras import extras_of
from mmedge.profiling.profile import Settings, profile
from mmedge.profiling.run import Run

QUICK = Settings(rounds=6, processes=1, warmup_answers=2)


def test_nothing_is_measured_besides_unless_it_is_asked_for():
    assert extras_of() == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "storm"}, "there is no scenario `storm`"),
        ({"memory": "much"}, "--memory-limit is `much`, no size"),
    ],
)
def test_what_cannot_be_read_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        extras_of(**options)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The yardstick, whose processes compute, with everything that needs no model."""
    folder = tmp_path_factory.mktemp("extras")
    extras = extras_of(scenario="server:20", budget_s=2.0, is_cold=True, memory="2 GiB", counted=True)
    return profile([yardstick.candidate()], yardstick.inputs(folder), QUICK, extras)


@pytest.mark.slow
def test_requests_of_an_open_loop_are_samples_that_say_when_they_were_due(run):
    assert [load.rate for load in run.load] == [20.0, 20.0]
    loaded = [sample for sample in run.samples if sample.phase == "load"]
    assert len(loaded) == sum(load.answered for load in run.load) > 0
    assert all(sample.start_ns >= sample.due_ns for sample in loaded)


@pytest.mark.slow
def test_starts_are_repeated(run):
    assert len([start for start in run.cold if start.c == 0]) >= 5


@pytest.mark.slow
def test_a_limit_that_is_asked_for_is_tried_once(run):
    assert [(limit.bytes, limit.works) for limit in run.limits] == [(2 << 30, True)]


@pytest.mark.slow
def test_other_programs_have_no_bundle_whose_preparing_could_be_counted(run):
    assert run.instructions == () and run.peaks is None and run.complete
