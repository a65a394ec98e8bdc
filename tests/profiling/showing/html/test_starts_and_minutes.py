import re

from msgspec.structs import replace

from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.showing.html import cold, soak
from mmedge.profiling.showing.html.header import header_of
from mmedge.profiling.showing.html.text import UNKNOWN


def test_starts_with_nothing_compiled_are_called_so_and_have_their_range(make_run):
    run = make_run(extras=True, rounds=6, finished=False)
    missed = [replace(start, compiled="miss", total_s=9.0 + at) for at, start in enumerate(run.cold[:3])]
    found = cold.figure(finished(replace(run, cold=(*missed, *run.cold[3:]))))
    name = re.escape(run.candidates[0].name)
    cells = re.search(f"<tr><td>{name}</td><td>cold, with nothing compiled</td>.*?</tr>", found.table)[0]
    assert cells.endswith('<td class="n">10.00</td><td class="n">9.00</td><td class="n">11.00</td></tr>')
    words = re.sub(r"</text>\s*<text[^>]*>", " ", found.drawing.markup)
    assert words.count("cold, with nothing compiled<") == 1
    assert "compile for this machine" in found.note and "hit" not in found.table


def test_few_starts_have_no_range(make_run):
    run = make_run(extras=True, rounds=6, finished=False)
    found = cold.figure(finished(replace(run, cold=run.cold[:2])))
    assert found.table.endswith(f'<td class="n">{UNKNOWN}</td><td class="n">{UNKNOWN}</td></tr></tbody></table></div>')
    assert "nothing compiled" not in found.table + found.note


def test_a_minute_tells_how_warm_it_began(make_run):
    run = make_run(extras=True, rounds=6)
    run = replace(run, minutes=tuple(replace(each, celsius_before=41.25) for each in run.minutes))
    found = soak.figure(run)
    assert "°C before</th>" in found.table and '<td class="n">41.25</td><td class="n">50.00</td>' in found.table


def test_a_machine_that_nothing_identifies_is_unknown(make_run):
    run = make_run(rounds=6)
    assert f"id {'5' * 12}<" in header_of(run)
    assert "id unknown<" in header_of(replace(run, machine=replace(run.machine, id="")))
