from mmedge.profiling.showing.html.draw import colour, drawn, tell
from mmedge.profiling.showing.html.svg import inline

SOURCE = """<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">
 <defs><style type="text/css">*{stroke-linecap: butt}</style></defs>
 <g id="unused"><path id="tip one &amp; two" d="M 1.23456 2
L 3.1000 4" style="stroke: #010203; fill: url(#pattern)"/></g>
 <pattern id="pattern"><rect fill="#010203"/></pattern>
 <use xlink:href="#mark" x="1.0"/><path id="mark"/>
 <text style="font: 700 11px 'DejaVu Sans', sans-serif; text-anchor: middle">word</text>
</svg>"""


def shown():
    return inline(SOURCE, "plot", "A <title>", {"#010203": "ink"})


def test_styles_and_paints_become_classes_of_variables():
    assert "style" not in shown().markup and "fill=" not in shown().markup
    assert set(shown().rules.values()) == {
        "stroke:var(--ink);fill:url(#plot-pattern)",
        "fill:var(--ink)",
        "font-weight:700;font-size:11px;text-anchor:middle",
    }
    assert all(f'class="{name}"' in shown().markup for name in shown().rules)


def test_ids_that_are_used_carry_the_name_of_the_plot_and_others_go():
    assert 'id="plot-pattern"' in shown().markup and 'id="plot-mark"' in shown().markup
    assert 'href="#plot-mark"' in shown().markup and "unused" not in shown().markup


def test_what_is_told_becomes_a_title():
    assert "<title>one &amp; two</title>" in shown().markup


def test_it_scales_and_says_what_it_is():
    assert shown().markup.startswith('<svg viewBox="0 0 72 72" role="img" aria-label="A &lt;title&gt;">')


def test_coordinates_have_as_many_digits_as_can_be_seen():
    assert 'd="M 1.23 2 L 3.1 4"' in shown().markup


def test_text_stays_text_whatever_it_is():
    def draw(canvas):
        (line,) = canvas.subplots().plot([0, 1], [0, 1], label="x", color=colour("blue"))
        tell(line, "named \x07 名前")
        canvas.suptitle("$not maths$ 名前 & more")

    made = drawn("plot", "Title", draw, height=2)
    assert "$not maths$ 名前 &amp; more</text>" in made.markup
    assert "<title>named \N{REPLACEMENT CHARACTER} 名前</title>" in made.markup
    assert any("var(--blue)" in css for css in made.rules.values())
