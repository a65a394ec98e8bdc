"""Command lines for trtexec, checked against the spellings of every version that is known."""

import json
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.backends._trtexec import command_lines, flags_of, spelled
from mmedge.core import find
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.ports import CacheShape, Port, Span
from mmedge.errors import BackendError, UsageError

KNOWN = json.loads((find.PACKAGE / "targets/data/trtexec_flags.json").read_text())
VERSIONS = [name for name in KNOWN if not name.startswith("_")]
VISION = Graph("vision", "graphs/vision.onnx", (Port("pixels", "float32", (1, 3, 8, 8)),), (), "int8")
DECODER = Graph(
    "decoder",
    "graphs/decoder.onnx",
    (Port("input_ids", "int64", (1, "length")), Port("position_ids", "int64", (1, "length"))),
    (),
    "float16",
    CacheShape(1, 2, 4, "float16", capacity=32),
    ({"length": Span(1, 1, 1)}, {"length": Span(1, 8, 16)}),
)


class Manifest:
    def __init__(self, *graphs: Graph) -> None:
        self.graphs = graphs
        self.target = replace(find.target("jetson"), options={"workspace_mb": 512, "builder_level": 3, "builder_mb": 9})


def lines(version: str, *graphs: Graph, path: str = "a.bundle") -> list[tuple[str, ...]]:
    return [*command_lines(Bundle(Path(path), Manifest(*graphs), ""), version)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flag_is_one_of_the_version(version):
    for command in lines(version, VISION, DECODER, replace(VISION, precision="float32")):
        flags = [argument.partition("=")[0] for argument in command[1:]]
        assert set(flags) <= set(KNOWN[version])
        assert len(flags) == len(set(flags)) or "--profile" in flags


@pytest.mark.parametrize(
    ("version", "types"),
    [
        ("8.6.2", {"--fp16", "--int8"}),
        ("10.0.1", {"--stronglyTyped"}),
        ("10.3.0.30", {"--stronglyTyped"}),
        ("10.16.2.10", {"--stronglyTyped"}),
        ("11.1", set()),
    ],
)
def test_types_are_said_as_the_version_wants_them(version, types):
    spelling = {"--fp16", "--int8", "--stronglyTyped", "--noTF32"}
    assert spelling & set(lines(version, VISION)[0]) == types


def test_float32_is_float32():
    assert "--noTF32" in lines("10.3", replace(VISION, precision="float32"))[0]


def test_a_static_graph_needs_no_shapes():
    (command,) = lines("10.3", VISION)
    assert command == (
        "trtexec",
        "--onnx=a.bundle/graphs/vision.onnx",
        "--saveEngine=vision.plan",
        "--memPoolSize=workspace:512",
        "--builderOptimizationLevel=3",
        "--timingCacheFile=tensorrt-10.3.timings",
        "--stronglyTyped",
        "--skipInference",
    )


def test_every_way_of_running_is_a_profile():
    (command,) = lines("10.3", DECODER)
    start = command.index("--profile=0")
    token = "input_ids:1x1,position_ids:1x1,attention_bias:1x1x1x32"
    assert command[start : start + 4] == (
        "--profile=0",
        f"--minShapes={token}",
        f"--optShapes={token}",
        f"--maxShapes={token}",
    )
    assert command[start + 4 : start + 8] == (
        "--profile=1",
        f"--minShapes={token}",
        "--optShapes=input_ids:1x8,position_ids:1x8,attention_bias:1x1x8x32",
        "--maxShapes=input_ids:1x16,position_ids:1x16,attention_bias:1x1x16x32",
    )


def test_a_version_with_one_profile_gets_one_that_holds_all():
    (command,) = lines("8.6", DECODER)
    assert not [argument for argument in command if argument.startswith("--profile=")]
    assert "--minShapes=input_ids:1x1,position_ids:1x1,attention_bias:1x1x1x32" in command
    assert "--maxShapes=input_ids:1x16,position_ids:1x16,attention_bias:1x1x16x32" in command


@pytest.mark.parametrize("version", ["8.6", "10.3"])
@pytest.mark.parametrize("profiles", [(), ({},), ({"length": Span(1, 1, 1)}, {})])
def test_a_size_without_a_range_is_refused_by_name_and_in_the_words_of_a_build(version, profiles):
    with pytest.raises(
        BackendError, match=r"build `decoder`: no range is given for a size of `input_ids` \[1, length\]"
    ):
        lines(version, replace(DECODER, profiles=profiles))


@pytest.mark.parametrize(
    ("version", "like"), [("10.3", "10.3.0"), ("10.5.1", "10.3.0"), ("10", "10.16"), ("12.0", "11.1")]
)
def test_an_unknown_version_is_taken_for_the_newest_before_it(version, like):
    assert flags_of(version) == frozenset(KNOWN[like])


@pytest.mark.parametrize("version", ["", "ten", "8.5", "10.x"])
def test_what_is_no_known_version_is_refused(version):
    with pytest.raises(UsageError, match="are not known"):
        flags_of(version)


def in_shell(command, tmp_path):
    """What a tool that prints its arguments is given, if it is put where the line looks for it."""
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    tool.chmod(0o755)
    shown = subprocess.run(
        ["sh", "-c", spelled(command)], env={"TRTEXEC": str(tool)}, capture_output=True, text=True, check=True
    )
    return shown.stdout.splitlines()


def test_a_shell_reads_back_what_was_meant(tmp_path):
    (command,) = lines("10.3", VISION, path="my $(bundle) 'x'.bundle")
    assert in_shell(command, tmp_path) == [*command[1:]]


def test_the_tool_is_looked_for_where_jetpack_puts_it():
    (command,) = lines("10.3", VISION)
    assert command[0] == "trtexec"
    shown = subprocess.run(["sh", "-c", f"echo {spelled(command)}"], env={}, capture_output=True, text=True, check=True)
    assert shown.stdout.split()[0] == "/usr/src/tensorrt/bin/trtexec"
