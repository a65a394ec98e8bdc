"""Whether a real parser and builder of the TensorRT family takes our graphs: TensorRT-RTX, which needs no GPU.

It is a check and no way to make an engine for a Jetson: another library (its parser is of the 11.x family) for other
GPUs. Its libraries come out of the package `onnxruntime-ep-nv-tensorrt-rtx-cu13`; the headers NvInfer.h and
NvOnnxParser.h are those of TensorRT 11.1, from github.com/NVIDIA/TensorRT. Needs g++.

Writes benchmarks/results/tensorrt_rtx.json:
    python benchmarks/tensorrt_rtx/build.py --headers TensorRT/include demo/jetson.bundle ...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mmedge.backends._tensorrt import inputs_of
from mmedge.core.bundle import open_bundle
from mmedge.core.manifest import Graph
from mmedge.core.ports import Port, Span

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent / "results" / "tensorrt_rtx.json"
WORK = HERE.parent / ".work" / "tensorrt_rtx"
PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
CUDA = """\
#pragma once
struct CUstream_st;
struct CUevent_st;
typedef CUstream_st* cudaStream_t;
typedef CUevent_st* cudaEvent_t;
"""
"""All of the CUDA headers that the two others name."""


def libraries() -> Path:
    """The folder with TensorRT-RTX and its parser, downloaded once."""
    if not (found := sorted(WORK.glob("*/libtensorrt_rtx.so.*"))):
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, PACKAGE]
            subprocess.run(pip, check=True)
            with zipfile.ZipFile(next(Path(folder).iterdir())) as wheel:
                wheel.extractall(WORK)
        found = sorted(WORK.glob("*/libtensorrt_rtx.so.*"))
    for library in found[0].parent.glob("libtensorrt*_rtx.so.*.*.*"):
        stem = library.name.partition(".so.")[0]
        for name in (f"{stem}.so", f"{stem}.so.{library.name.partition('.so.')[2].partition('.')[0]}"):
            if not (library.parent / name).exists():
                (library.parent / name).symlink_to(library.name)
    return found[0].parent


def compiled(headers: Path) -> Path:
    """The program that builds one graph."""
    folder, program = libraries(), WORK / "build"
    (WORK / "include").mkdir(parents=True, exist_ok=True)
    (WORK / "include" / "cuda_runtime_api.h").write_text(CUDA)
    command = ["g++", "-O1", "-w", "-I", headers, "-I", WORK / "include", HERE / "build.cpp", "-o", program]
    linked = ["-L", folder, "-ltensorrt_rtx", "-ltensorrt_onnxparser_rtx", f"-Wl,-rpath,{folder}"]
    subprocess.run([*map(str, command), *map(str, linked), "-Wl,--allow-shlib-undefined"], check=True)
    return program


def profile_arguments(graph: Graph) -> list[str]:
    """``NAME=MIN,OPT,MAX`` of every input that varies, profile after profile."""
    varying = [port for port in inputs_of(graph) if any(isinstance(size, str) for size in port.shape)]
    arguments: list[str] = []
    for profile in graph.profiles:
        arguments += ["--"] if arguments else []
        for port in varying:
            ends = (shape(port, profile, end) for end in ("smallest", "usual", "largest"))
            arguments.append(f"{port.name}={','.join(ends)}")
    return arguments


def shape(port: Port, profile: dict[str, Span], end: str) -> str:
    """Such as ``1x8x16``."""
    return "x".join(str(size if isinstance(size, int) else getattr(profile[size], end)) for size in port.shape)


def build(program: Path, graph: Graph, file: Path) -> dict[str, object]:
    """What became of one graph."""
    done = subprocess.run([program, file, *profile_arguments(graph)], capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {"crashed": done.returncode}
    return {**found, "built": done.returncode == 0, "errors": done.stderr.splitlines()[:3]}


def main() -> None:
    """Build every graph of the bundles, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--headers", type=Path, required=True)
    given = parser.parse_args()
    program, results = compiled(given.headers), []
    for path in given.bundles:
        bundle = open_bundle(path)
        for graph in bundle.manifest.graphs:
            found = build(program, graph, path / graph.file)
            results.append({"bundle": path.name, "graph": graph.component, "precision": graph.precision, **found})
            print(json.dumps(results[-1]))
    what = "parsed strongly typed and built by TensorRT-RTX on the CPU; never run, and not the TensorRT of a Jetson"
    RESULT.write_text(json.dumps({"what": what, "graphs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
