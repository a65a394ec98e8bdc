"""Graphs that were made for another target."""

import pytest
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.ports import CacheShape
from mmedge.errors import BundleError, PlanError
from mmedge.export.check.findings import refuse

ALL = ("10.3", "10.13", "10.16", "11.x")
RELU = "float[1,4] x => float[1,4] y { y = Relu(x) }"


def test_a_precision_that_the_target_does_not_run_is_refused(rejected):
    assert rejected(RELU, precision="int8-weights") == {"target/precision": ALL}


def test_an_experimental_precision_is_warned_about(rejected):
    assert rejected(RELU, precision="int4-weights") == {"target/experimental": ALL}


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_where_types_are_obeyed_float32_inside_is_warned_about(rejected, device, precision):
    assert rejected(RELU, replace(device, typed=True), precision=precision) == {"target/float32": ALL}


def test_where_types_are_obeyed_a_float32_cache_is_warned_about(check, device):
    text = "float[1,4] x => float[1,4] y { h = Cast<to=10>(x) r = Relu(h) y = Cast<to=1>(r) }"
    cache = CacheShape(layers=1, heads=1, head_dim=1, capacity=4)
    found = check(text, replace(device, typed=True), ranges={}, precision="float16", cache=cache).of("warning")
    assert "target/edges" in {each.check for each in found}


def test_a_target_without_stacks_has_only_the_checks_that_need_no_table(rejected):
    cpu = find.target("cpu")
    assert rejected("int32[4] x => int32[4] y { y = BitwiseNot(x) }", cpu, opset=23) == {}


def test_a_newer_operator_set_than_the_target_reads_is_refused(check):
    found = check(RELU, replace(find.target("cpu"), opset=20), opset=23).of("error")
    assert [each.check for each in found] == ["target/opset"]


def test_a_stack_with_an_unknown_table_is_refused(check, device):
    stacks = (replace(device.stacks[0], operators="9.9"),)
    with pytest.raises(PlanError, match=r"there is no operator table `9\.9`"):
        check(RELU, replace(device, stacks=stacks))


def test_findings_are_ordered_by_how_bad_they_are(check):
    found = check("float16[8] x => float16[n] y { e = Exp(x) y = Unique(e) }", precision="float16").found
    severities = [each.severity for each in found]
    assert severities == sorted(severities, key=("error", "warning", "note").index) and len(set(severities)) == 3


def test_the_summary_counts_and_names_the_systems(check, device):
    target = replace(device, stacks=find.target("jetson").stacks)
    findings = check("float[8] x => float[n] y { y = Unique(x) }", target)
    assert findings.summary == (
        "1 error, 1 warning in 1 graph for JetPack 6.2 (TensorRT 10.3), JetPack 7.2 (TensorRT 10.16)"
    )


def test_an_export_is_refused_with_the_first_error(check):
    findings = check("float[2,2] x => float[n] y { a = Det(x) b = Unique(x) y = Add(a, b) }")
    with pytest.raises(BundleError, match=r"`part`, node `\w+`: the operator `Det` .* \(and 1 more error\)") as refused:
        refuse(findings)
    assert refused.value.hint and refused.value.exit_code == 4


def test_warnings_refuse_nothing(check):
    refuse(check(RELU, precision="int4-weights"))
