from msgspec.structs import replace

from mmedge.profiling.run import Layer
from mmedge.profiling.showing.html.layers import figure, grouped


def layer(c, names, us, node=None, snr=None):
    return Layer(c, "vision", node or "+".join(names), "MatMul", names, us, us / 100, snr_db=snr)


def test_what_one_engine_fuses_is_beside_the_parts_of_the_other(make_run):
    run = replace(make_run(), layers=(layer(0, ("a",), 10.0), layer(0, ("b",), 20.0), layer(1, ("a", "b"), 12.0)))
    (group,) = grouped(run)
    assert group.name == "a +1" and group.us(0) == 30 and group.us(1) == 12


def test_layers_that_share_nothing_stay_apart(make_run):
    run = replace(make_run(), layers=(layer(0, ("a",), 10.0), layer(1, ("b",), 12.0)))
    assert [group.name for group in grouped(run)] == ["a", "b"]


def test_the_same_name_in_another_component_is_another_layer(make_run):
    other = replace(layer(0, ("a",), 5.0), component="decoder")
    assert len(grouped(replace(make_run(), layers=(layer(0, ("a",), 10.0), other)))) == 2


def test_the_table_has_the_difference_and_the_worst_snr(make_run):
    run = replace(make_run(), layers=(layer(0, ("a",), 10.0), layer(1, ("a",), 12.5, snr=31.25)))
    assert '<td class="n">2.50</td><td class="n">31.25</td>' in figure(run).table
