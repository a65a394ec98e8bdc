import numpy as np

from mmedge.backends.replay import ReplaySession, replay
from mmedge.core.family import Prompt
from mmedge.runtime.decode import decode, picking
from mmedge.runtime.pick import greedy

STOP = 3
PROMPT = Prompt({}, np.array([7, 8, 9], np.int64), stop=(STOP,), capacity=32)


def step_of(session: ReplaySession):
    return lambda reading: session.run({"input_ids": reading.tokens, "position_ids": reading.positions})["logits"][
        0, -1
    ]


def run(session: ReplaySession, limit: int = 10) -> list[int]:
    return list(decode(picking(step_of(session), greedy), PROMPT, limit=limit))


def test_stops_at_the_first_stop_token():
    assert run(replay(logits_of=[4, 7, STOP, 9])) == [4, 7]


def test_stops_at_the_limit_without_another_run():
    session = replay(logits_of=[4, 5, 6])
    assert run(session, limit=2) == [4, 5]
    assert len(session.runs) == 2


def test_an_answer_may_be_empty():
    assert run(replay(logits_of=[STOP])) == []


def test_prefill_reads_the_prompt_at_once_and_every_step_one_token_at_the_next_position():
    session = replay(logits_of=[4, 5, STOP])
    run(session)
    assert [feeds["input_ids"].tolist() for feeds in session.runs] == [[[7, 8, 9]], [[4]], [[5]]]
    assert [feeds["position_ids"].tolist() for feeds in session.runs] == [[[0, 1, 2]], [[3]], [[4]]]
    assert session.length == 5
