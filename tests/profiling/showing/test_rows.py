import csv
import io

from msgspec.structs import replace

from mmedge.profiling.showing.rows import rows_of


def read(run):
    return list(csv.DictReader(io.StringIO(rows_of(run), newline="")))


def test_there_is_one_row_a_sample_in_order(make_run):
    run = make_run(rounds=4)
    rows = read(run)
    assert [(row["candidate"], row["phase"], float(row["start_ms"])) for row in rows] == [
        (run.candidates[s.c].name, s.phase, s.start_ns / 1e6) for s in run.samples
    ]


def test_stages_and_the_rest_add_up_to_the_answer(make_run):
    row = read(make_run(rounds=1))[-1]
    stages = [name for name in row if name.endswith("_ms") and name.split("_ms")[0] not in NOT_STAGES]
    assert abs(sum(float(row[name]) for name in stages) - float(row["answer_ms"])) < 1e-6
    assert {"encode_ms", "decode_loop_ms", "other_ms"} <= set(stages)


NOT_STAGES = {"start", "due", "answer", "ttft", "tpot"}


def test_what_is_not_known_is_empty_and_never_zero(make_run):
    row = read(make_run(rounds=1, tokens=0))[-1]
    assert (row["due_ms"], row["ttft_ms"], row["tpot_ms"], row["tokens"]) == ("", "", "", "0")


def test_texts_with_commas_quotes_and_lines_come_back_whole(make_run):
    text = 'a "red"\ncircle, and = more'
    run = make_run(rounds=1)
    rows = read(replace(run, answers=tuple(replace(answer, text=text) for answer in run.answers)))
    assert {row["answer"] for row in rows} == {text}


def test_marks_are_in_every_row(make_run):
    run = make_run(rounds=1, complete=False)
    doubtful = tuple(replace(candidate, unverified=True) for candidate in run.candidates)
    rows = read(replace(run, candidates=doubtful))
    assert {(row["unverified"], row["complete_run"]) for row in rows} == {("True", "False")}


def test_rails_are_columns(make_run):
    run = make_run(rounds=1)
    first, *others = run.samples
    rows = read(replace(run, samples=(replace(first, energy_mj={"VDD_IN": 12.5}), *others)))
    assert (rows[0]["VDD_IN_mj"], rows[1]["VDD_IN_mj"]) == ("12.5", "")
