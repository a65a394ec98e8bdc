"""A small real bundle (two graphs of two nodes, weights beside them, an asset, a golden sample) and ways to harm it."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.core.bundle import MANIFEST, SEAL, Bundle, File, Golden, Graph, Manifest
from mmedge.core.manifest import encode_manifest
from mmedge.core.ports import Port
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.target import Target
from mmedge.core.writing import new_bundle
from mmedge.errors import MmedgeError

SIZE = 32
TARGET = Target("cpu", "Any CPU", "any", 4096, {"tower": "onnxruntime"}, ("float32",), {}, 23)


def small_model(data: str, seed: int) -> tuple[onnx.ModelProto, bytes]:
    """``answer = max(picture @ weight + bias, 0)`` with weight and bias in the file ``data``."""
    random = np.random.default_rng(seed)
    arrays = {"weight": random.random((SIZE, SIZE), np.float32), "bias": random.random(SIZE, np.float32)}
    content = b"".join(array.tobytes() for array in arrays.values())
    offset, tensors = 0, []
    for name, array in arrays.items():
        tensor = numpy_helper.from_array(array, name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": data, "offset": offset, "length": array.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += array.nbytes
        tensors.append(tensor)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["picture", "weight", "bias"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["answer"]),
        ],
        "small",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, SIZE])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, SIZE])],
        tensors,
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]), content


def arrays_file(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def small_files() -> dict[str, bytes]:
    files = {
        "assets/tokenizer.json": b'{"version": "1.0"}\n',
        "golden/0/picture.png": b"\x89PNG\r\n" + bytes(range(256)),
    }
    for seed, name in enumerate(("encoder", "decoder")):
        model, data = small_model(f"{name}.bin", seed)
        files |= {f"graphs/{name}.onnx": model.SerializeToString(), f"graphs/{name}.bin": data}
        files[f"golden/0/{name}.inputs.npz"] = arrays_file(picture=np.ones((1, SIZE), np.float32))
        files[f"golden/0/{name}.outputs.npz"] = arrays_file(answer=np.ones((1, SIZE), np.float32))
    return files


def small_graph(name: str) -> Graph:
    return Graph(
        component=name,
        file=f"graphs/{name}.onnx",
        inputs=(Port("picture", "float32", (1, SIZE)),),
        outputs=(Port("answer", "float32", (1, "width")),),
        precision="float32",
    )


MANIFEST_WITHOUT_FILES = Manifest(
    schema=1,
    name="small",
    title="Two small graphs",
    model="builtin:small",
    family="module",
    tasks=("caption",),
    target=TARGET,
    graphs=(small_graph("encoder"), small_graph("decoder")),
    config={
        "model": {"epsilon": 1e-12, "labels": ["na\u00efve", "e\u0301"], "no_limit": int(1e30)},
        "image": {},
        "text": {"clean_up_tokenization_spaces": True},
        "generation": {},
    },
    assets={"tokenizer": "assets/tokenizer.json"},
    golden=(Golden("golden/0", "caption", None, (1, 2), "a picture"),),
    accept=Acceptance(0.99, 1.0),
    agreement=tuple(Agreement(name, "float32", 1e-6, 1.0, "0", 1) for name in ("encoder", "decoder")),
    answers=Answers(1, 1),
    preprocess_max_abs=0.0,
    made_with={"mmedge": "0"},
    files={},
)


def promise_of(content: bytes) -> File:
    return File(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Workshop:
    """Builds bundles by the real writer, and spoils them in ways that the writer would not."""

    files: dict[str, bytes]
    manifest: Manifest

    @property
    def listed(self) -> Manifest:
        """The manifest as the writer completes it."""
        files = {name: promise_of(content) for name, content in sorted(self.files.items())}
        return msgspec.structs.replace(self.manifest, files=files)

    def write(self, path: Path, *, title: str = "Two small graphs", **options: Any) -> Bundle:
        with new_bundle(path, **options) as draft:
            self.put_files(draft.folder)
            return draft.finish(msgspec.structs.replace(self.manifest, title=title))

    def put_files(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def put_manifest(self, folder: Path, raw: bytes) -> None:
        """With the right seal, so that only the content of the manifest can be wrong."""
        (folder / MANIFEST).write_bytes(raw)
        (folder / SEAL).write_text(f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n")

    def list_again(self, folder: Path) -> None:
        """A manifest that promises exactly the files that are there now."""
        files = {
            path.relative_to(folder).as_posix(): File(
                path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in folder.rglob("*")
            if path.is_file() and path.name not in (MANIFEST, SEAL)
        }
        self.put_manifest(folder, encode_manifest(msgspec.structs.replace(self.manifest, files=files)))


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    return Workshop(small_files(), MANIFEST_WITHOUT_FILES)


@pytest.fixture(scope="session")
def pristine(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    return workshop.write(tmp_path_factory.mktemp("pristine") / "small.bundle").path


@pytest.fixture
def spoiled(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to be damaged."""
    return shutil.copytree(pristine, tmp_path / "spoiled.bundle")


@pytest.fixture(scope="session")
def manifest_values(pristine: Path) -> dict[str, Any]:
    """The manifest as plain JSON values; not to be changed in place."""
    return msgspec.json.decode((pristine / MANIFEST).read_bytes())


def start_child(task: Callable[[], object]) -> int:
    """Run ``task`` in a forked process that ends as the command line would: with the exit code of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python warns of forks beside threads; this one only writes
        if pid := os.fork():
            return pid
    code = 1
    try:
        task()
        code = 0
    except MmedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end_of(pid: int) -> int:
    """Exit code of a child, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="session")
def start() -> Callable[[Callable[[], object]], int]:
    return start_child


@pytest.fixture(scope="session")
def wait() -> Callable[[int], int]:
    return end_of


@pytest.fixture(scope="session")
def in_child() -> Callable[[Callable[[], object]], int]:
    return lambda task: end_of(start_child(task))


STEPS = {"open", "fcntl.flock"} | {
    f"os.{step}" for step in ("mkdir", "rename", "remove", "rmdir", "chmod", "scandir", "truncate")
}


@pytest.fixture(scope="session")
def signal_at_step() -> Callable[[int, int], None]:
    """For a child: be sent a signal at the n-th step of the process on the file system; Python reports each of them."""

    def arm(number: int, step: int) -> None:
        left = [step]

        def hook(event: str, _: tuple[object, ...]) -> None:
            if event in STEPS:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), number)

        sys.addaudithook(hook)

    return arm


@pytest.fixture(scope="session")
def record_opens() -> Callable[[], AbstractContextManager[list[str]]]:
    """Collect every path that Python opens inside the ``with`` block."""
    paths: list[str] | None = None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and paths is not None and not isinstance(arguments[0], int):  # a file that is open already
            paths.append(os.fsdecode(arguments[0]))

    sys.addaudithook(hook)  # cannot be taken out again

    @contextmanager
    def record() -> Iterator[list[str]]:
        nonlocal paths
        paths = []
        try:
            yield paths
        finally:
            paths = None

    return record


def tree_of(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: contents of files, targets of links, None for folders."""
    paths = sorted(folder.rglob("*"))
    return {
        path.relative_to(folder).as_posix(): (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in paths
    }


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes | str | None]]:
    return tree_of


NO_NAMESPACES = 77
"""Exit code of a child that may not mount anything."""
_CLONE_NEWNS, _CLONE_NEWUSER, _MS_RDONLY, _MS_REC, _MS_PRIVATE = 0x20000, 0x10000000, 1, 0x4000, 0x40000


@pytest.fixture(scope="session")
def mount_tmpfs() -> Callable[..., None]:
    """For a child: an own file system at ``path``; the child ends with `NO_NAMESPACES` where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(path: Path, options: str, read_only: bool = False) -> None:
        user, group = os.getuid(), os.getgid()
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
            raise SystemExit(NO_NAMESPACES)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        flags = _MS_RDONLY if read_only else 0
        failed = libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        if failed or libc.mount(b"tmpfs", bytes(path), b"tmpfs", flags, options.encode()):
            raise SystemExit(NO_NAMESPACES)

    return mount


@pytest.fixture(scope="session")
def in_namespace(in_child: Callable[[Callable[[], object]], int]) -> Callable[[Callable[[], object]], int]:
    """As `in_child` for a task that mounts; the test is skipped where mounting is forbidden."""

    def run(task: Callable[[], object]) -> int:
        if (code := in_child(task)) == NO_NAMESPACES:
            pytest.skip("this machine allows no mount namespaces")
        return code

    return run
