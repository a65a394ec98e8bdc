import base64
import hashlib
import re

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from mmedge.profiling.run import Flag, Sample, Validity
from mmedge.profiling.showing.html import (
    answers,
    chance,
    cold,
    layers,
    limits,
    load,
    noise,
    ratios,
    roofline,
    spread,
    stages,
)
from mmedge.profiling.showing.html.figures import Absent
from mmedge.profiling.showing.html.page import PARTS, page
from mmedge.profiling.showing.html.text import UNKNOWN

FIGURES = re.compile(r'<figure id="([a-z]+)">(.*?)</figure>', re.DOTALL)
PLOTS = [module.NAME for module in PARTS if module.NAME != "answers"]


def test_a_full_run_has_every_plot_each_with_marks_and_a_table(full_page):
    figures = dict(FIGURES.findall(full_page))
    assert list(figures) == PLOTS
    for name, content in figures.items():
        assert content.count("<svg") == 1 and len(re.findall("<(path|use)", content)) > 5, name
        assert re.search(r"<details>.*<tbody><tr><td", content, re.DOTALL), name
        assert re.search(r"<figcaption><h2>[^<]+</h2><p>[^<]+\.</p></figcaption>", content), name


def test_nothing_is_loaded_from_anywhere(full_page):
    assert not re.search(r"https?:|//[a-z]", full_page)
    assert set(re.findall(r"url\((.)", full_page)) <= {"#"}
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)', full_page))
    assert not re.search(r"@import|<script|<link|<iframe|<object|javascript:|\son\w+=", full_page, re.IGNORECASE)


def test_the_policy_allows_this_style_sheet_alone(full_page):
    css = re.search(r"<style>(.*?)</style>", full_page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:" in full_page
    assert full_page.count("<style") == 1 and "style=" not in full_page


def test_ids_are_unique_and_references_lead_somewhere(full_page):
    ids = re.findall(r'\bid="([^"]+)"', full_page)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', full_page))
    assert wanted and wanted <= set(ids)


def test_colours_are_variables_that_the_dark_page_changes(full_page):
    assert "#0102" not in full_page
    assert {"var(--blue)", "var(--vermillion)", "var(--ink)"} <= set(re.findall(r"var\(--\w+\)", full_page))


def test_the_same_run_makes_the_same_plot(make_run):
    run = make_run(rounds=4)
    assert ratios.figure(run) == ratios.figure(run)


HOSTILE = (
    '<script>alert(1)</script> "><img src=x onerror=alert(1)>',
    "$\\frac{1}{ back\x00ward\u202e\ud800s" + "名前 🙂 " * 40,
)


def test_names_and_texts_from_strangers_stay_texts(make_run):
    run = make_run(HOSTILE, extras=True, rounds=8, changed=2)
    evil = "</dd></table><script>alert(2)</script>"
    run = replace(
        run,
        machine=replace(run.machine, name=evil),
        inputs=replace(run.inputs, items=tuple(replace(item, id=evil, text=evil) for item in run.inputs.items)),
        answers=tuple(replace(answer, text=f"{evil}{answer.c}") for answer in run.answers),
        validity=Validity(False, (Flag(evil, "error", evil, evil),)),
        notes={evil: evil},
    )
    made = page(run)
    assert not re.search("<script|<img", made)
    assert "&lt;script&gt;alert(2)" in made and "$\\frac{1}{" in made
    assert not re.search("[\x00\u202e\ud800]", made)


def test_an_unverified_candidate_is_marked_wherever_it_is_named(full_run):
    run = full_run()
    first, marked, *others = run.candidates
    run = replace(run, candidates=(first, replace(marked, name="doubtful", unverified=True), *others))
    made = page(run)
    text = re.sub(r"</text>\s*<text[^>]*>", " ", made)
    assert text.count("doubtful") > 15
    assert not re.search(r"doubtful(?! \(unverified\))", text)


def test_what_holds_for_the_whole_run_stands_at_every_part(make_run):
    run = make_run(rounds=4)
    made = page(replace(run, complete=False, protocol=replace(run.protocol, interleave="blocks")))
    titles = re.findall(r"<h[12]>.*?</h[12]>", made)
    for mark in ("incomplete run", "unpaired comparison"):
        assert sum(mark in title for title in titles) >= len(PARTS)
        assert f"({mark})" in made.partition("</title>")[0]


def test_a_run_that_measured_nothing_says_why_every_part_is_missing(make_run):
    run = make_run(finished=False)
    run = replace(run, samples=(), answers=(), sentinel=(), host=(), memory=(), complete=False)
    for module in PARTS:
        part = module.figure(run)
        assert isinstance(part, Absent) and part.why.endswith("."), module.NAME
    assert page(run).count('class="absent"') == len(PARTS)


def test_a_machine_that_tells_nothing_is_said_to_tell_nothing(make_run):
    run = make_run(rounds=6)
    hosts = tuple(replace(host, celsius=None, mhz=None, steal=None) for host in run.host)
    assert (
        "Not told by this machine: temperature, clock rate, stolen time." in noise.figure(replace(run, host=hosts)).note
    )


def test_one_answer_of_one_candidate_is_enough_for_a_page(make_run):
    run = make_run(("alone",), rounds=1, inputs=1, finished=False)
    alone = replace(run, candidates=run.candidates[:1], samples=run.samples[-2:-1], answers=run.answers[:1], memory=())
    alone = replace(alone, samples=tuple(replace(sample, c=0, answer=0) for sample in alone.samples))
    assert len(FIGURES.findall(page(alone))) == 3  # distribution, stages, noise


def test_a_percentile_without_enough_answers_is_never_made_up(make_run):
    """The table has what the results have, and a dash for the rest."""
    found = spread.figure(make_run(rounds=6, finished=False)).table
    assert re.findall(r"<td>([^<]*)</td></tr>", found) == [UNKNOWN, UNKNOWN]


def test_changed_answers_stand_beside_the_picture_if_it_is_there(make_run, tmp_path):
    picture = tmp_path / "two.png"
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(picture)
    run = make_run(changed=3, rounds=4)
    files = [str(picture), str(tmp_path / "gone.png"), str(tmp_path)]
    items = [replace(item, file=file) for item, file in zip(run.inputs.items, files, strict=False)]
    made = answers.figure(replace(run, inputs=replace(run.inputs, items=(*items, *run.inputs.items[3:])))).body
    assert made.count("<article>") == 3 and made.count("≠ a purple cat") == 3
    (source,) = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)', made)
    assert len(base64.b64decode(source)) < 4000


@pytest.mark.slow
def test_fifty_thousand_answers_of_nine_candidates_fit_one_and_a_half_megabytes(full_run):
    names = tuple(f"blip {precision} {engine}" for precision in "abcd" for engine in ("onnxruntime", "openvino"))
    run = full_run(names, rounds=5700, inputs=500, disturbed=300, changed=100)
    assert len(run.samples) > 50_000
    made = page(run)
    assert len(made.encode()) < 1_500_000
    assert "Thinned to 120 parts of the time" in made and "300 steps are drawn" in made


def test_a_load_is_drawn_from_samples_where_no_summary_is_kept(full_run):
    run = full_run()
    bare = tuple(replace(each, response_ms={}) for each in run.load)
    waits = [Sample(0, 0, place, 0, "load", 5, 7, {}, (), 0, due_ns=0) for place in range(len(bare))]
    assert "<svg" in load.figure(replace(run, load=bare, samples=(*run.samples, *waits))).drawing.markup


def test_zeros_where_times_and_sizes_should_be_are_drawn_as_zeros(full_run):
    run = full_run()
    zeros = replace(
        run,
        samples=tuple(replace(each, answer_ns=0, stages_ns={}, token_ns=()) for each in run.samples),
        limits=tuple(replace(each, bytes=0) for each in run.limits),
        layers=tuple(replace(each, us=0.0, flops=0, bytes=0) for each in run.layers),
        peaks=replace(run.peaks, triad_gbs=0.0, gemm_gflops={"onnxruntime float32": 0.0}),
        load=tuple(replace(each, rate=0.0, response_ms={"median": 0.0}) for each in run.load),
        cold=tuple(replace(each, **dict.fromkeys(COLD, 0.0)) for each in run.cold),
    )
    for module in (stages, limits, layers, roofline, load, cold, noise, chance):
        module.figure(zeros)


COLD = [f"{part}_s" for part in ("process", "import", "verify", "compile", "load", "answer", "total")]
