"""Several tasks: nothing of one is told of another, and what is of all says so."""

import re

import pytest
from msgspec.structs import replace

from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.run import Energy, Results
from mmedge.profiling.showing.html import answers, sizes, spread, stages, tradeoff
from mmedge.profiling.showing.html.header import header_of, verdicts
from mmedge.profiling.showing.html.page import page

NAME = "scenes float32 onnxruntime"


def cells(markup: str) -> list[list[str]]:
    return [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", markup)]


def summary(run) -> list[list[str]]:
    return cells(header_of(run).partition('id="summary"')[2].partition("</section>")[0])


def test_the_summary_has_a_row_for_each_task_and_none_with_what_lies_between(two_tasks):
    rows = summary(two_tasks)
    assert [row[1] for row in rows] == ["all", "caption", "ask"] * 3
    first = [float(row[2].split()[0]) for row in rows[1:3]]
    wanted = [two_tasks.absolute(0, f"{task}.answer_ms").value for task in ("caption", "ask")]
    assert first == pytest.approx(wanted, abs=0.1) and first[1] > 1.8 * first[0]
    assert rows[0][2] == "" and rows[0][3] == "baseline" and float(rows[0][6]) > 0


def test_quality_is_of_the_task_and_agreement_names_the_reference(two_tasks):
    _, caption, ask, _, one, other, *_ = summary(two_tasks)
    assert caption[-2] == "1.00 exact" and ask[-2] == "37.5\N{NO-BREAK SPACE}% equal"
    assert f"share of answers equal to {two_tasks.candidates[1].name}." in header_of(two_tasks)
    assert one[-2] == "0.375 exact" and other[-2] == "reference"


def test_the_sentence_names_what_is_lost_by_task(two_tasks):
    said = " ".join(verdicts(two_tasks))
    assert "points" in said and "of quality (caption): worse" in said
    third = next(line for line in verdicts(two_tasks) if line.startswith(two_tasks.candidates[2].name))
    assert f"of agreement with {two_tasks.candidates[1].name} (ask): inconclusive" in third


def test_a_candidate_alone_takes_its_time_for_each_task(two_tasks):
    alone = replace(two_tasks, results=Results(two_tasks.results.abs))
    (said,) = verdicts(alone)
    assert re.search(r"ms \[.*\] for an answer \(caption\) and .* for an answer \(ask\); nothing was", said)


def test_another_verdict_than_worse_is_told(two_tasks):
    quality = tuple(replace(each, verdict="differs") if each.lost else each for each in two_tasks.quality)
    assert ": differs" in " ".join(verdicts(replace(two_tasks, quality=quality)))


def test_quality_and_time_are_weighed_within_a_task(two_tasks):
    found = tradeoff.figure(two_tasks)
    rows = cells(found.table)
    assert [row[1] for row in rows] == ["caption"] * 3 + ["ask"] * 3
    assert float(rows[3][2]) > 1.8 * float(rows[0][2])
    assert found.note == (
        "Quality of caption: mean exact. Quality of ask: share of equal answers, to those of "
        f"{two_tasks.candidates[1].name}."
    )
    assert {"yes"} <= {row[-1] for row in rows[:3]} and {"yes"} <= {row[-1] for row in rows[3:]}


def test_stages_and_distributions_are_of_a_task(two_tasks):
    for module in (stages, spread):
        found = module.figure(two_tasks)
        assert [row[1] for row in cells(found.table)].count("ask") == 3, module.NAME
        assert ">caption<" in found.drawing.markup and ">ask<" in found.drawing.markup, module.NAME
    assert "of all tasks together: caption, ask" in sizes.figure(two_tasks).note


def test_changed_answers_stand_beside_the_references(two_tasks):
    name = two_tasks.candidates[1].name
    found = answers.figure(two_tasks)
    assert f"not what {name} said" in found.reading
    card = found.body.partition("</article>")[0]
    assert re.findall(r'<dt>([^<]*)</dt><dd class="changed">', card) == [two_tasks.candidates[0].name]


def test_one_task_has_no_column_of_tasks(make_run):
    assert '<th scope="col">task</th>' not in page(make_run(rounds=8))


@pytest.mark.parametrize(("whole", "rail"), [("VIN", ""), ("", r" \(VIN\)")])
def test_energy_is_said_to_be_of_any_task_and_of_which_rail(two_tasks, whole, rail):
    samples = tuple(replace(each, energy_mj={"VIN": 250.0}, energy_s=0.1) for each in two_tasks.samples)
    run = finished(replace(two_tasks, samples=samples, energy=Energy("INA3221", whole=whole, rails=("VIN",))))
    assert re.search(rf"INA3221 \(VIN\): {NAME} 250.0 mJ an answer of any task{rail};", header_of(run))
