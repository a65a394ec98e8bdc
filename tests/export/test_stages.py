import signal
from contextlib import suppress

import pytest

from mmedge import signals
from mmedge.export.stages import Stages


def test_a_stop_that_other_code_swallowed_ends_the_export_after_the_stage(monkeypatch):
    monkeypatch.setattr(signals, "stopped", [])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    stages = Stages()
    try:
        signals.raise_on_signals()
        with pytest.raises(signals.Stopped, match="SIGTERM"), stages.stage("trace"), suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stages.done == []
