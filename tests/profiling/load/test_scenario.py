import pytest

from mmedge.errors import UsageError
from mmedge.profiling.load.scenario import Objective, Scenario, scenario_of

TTFT = Objective("ttft_ms", 500.0)


@pytest.mark.parametrize(
    ("text", "scenario"),
    [
        ("single", Scenario("single")),
        ("offline", Scenario("offline")),
        ("stream:25", Scenario("stream", 25.0)),
        ("stream", Scenario("stream")),
        ("server", Scenario("server")),
        ("server:2.5/s", Scenario("server", 2.5)),
        ("server:slo=ttft<500ms", Scenario("server", None, (TTFT,))),
        ("server:slo=ttft_ms<500", Scenario("server", None, (TTFT,))),
        ("server:4,slo=ttft<.5s+answer<2s", Scenario("server", 4.0, (TTFT, Objective("answer_ms", 2000.0)))),
    ],
)
def test_a_scenario_is_read(text, scenario):
    assert scenario_of(text) == scenario


@pytest.mark.parametrize(
    "text",
    [
        *("", "serve", "single:3", "offline:3", "stream:-1", "stream:slo=ttft<3"),
        *("server:", "server:0", "server:3,4", "server:1e3", "server,2", "server:slo=", "server:slo=ttft<0"),
        *("server:slo=p99<3", "server:slo=ttft>3ms", "server:slo=ttft<3h", "server:slo=ttft<3,slo=ttft<4"),
    ],
)
def test_what_is_no_scenario_is_refused_with_examples(text):
    with pytest.raises(UsageError, match="there is no scenario") as error:
        scenario_of(text)
    assert "server:RATE" in error.value.hint


def test_objectives_are_written_as_a_run_keeps_them():
    assert scenario_of("server:slo=ttft<0.5s+answer<2000.5").slo == "ttft_ms<500+answer_ms<2000.5"
    assert scenario_of("server").slo == ""
