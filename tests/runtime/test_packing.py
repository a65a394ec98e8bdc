"""Archives for a Jetson: what is in them, and that they are the same every time."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from mmedge import __version__
from mmedge.core.bundle import MANIFEST, open_bundle
from mmedge.core.find import PACKAGE
from mmedge.errors import BundleError, UsageError
from mmedge.runtime.packing import kinds, pack
from mmedge.runtime.wheels import GLIBC, wheel_of

SCRIPTS = PACKAGE / "packs/jetson"


@pytest.fixture
def bundle(small_bundle):
    return small_bundle()


@pytest.fixture
def wheels(tmp_path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("rich-15.0.0-py3-none-any.whl", "numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.whl"):
        (folder / name).write_text(name)
    (folder / "notes.txt").write_text("not a wheel")
    (folder / "old.whl").mkdir()
    return folder


def names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def text(path: Path, name: str) -> str:
    with tarfile.open(path) as archive:
        return archive.extractfile(name).read().decode()


def test_it_has_the_bundle_and_what_installs_it(bundle, tmp_path):
    packed = pack(bundle, "jetson", tmp_path / "x.tar")
    found = names(tmp_path / "x.tar")
    files = {"README.txt", "install.sh", "Containerfile", "requirements-3.10.txt", "requirements-3.12.txt"}
    assert {f"small-jetson/{name}" for name in files} <= {*found}
    assert {f"small-jetson/small.bundle/{name}" for name in bundle.manifest.files} <= {*found}
    assert found == sorted(found) and packed.size == (tmp_path / "x.tar").stat().st_size
    assert packed.missing["3.10"] and packed.wheels == 0


def test_the_bundle_is_whole_where_it_is_unpacked(bundle, tmp_path):
    pack(bundle, "jetson", tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        archive.extractall(tmp_path / "device", filter="data")
    there = open_bundle(tmp_path / "device/small-jetson/small.bundle")
    there.verify()
    assert there.digest == bundle.digest


def test_the_same_content_is_the_same_archive_whoever_packs_it_when(bundle, tmp_path, wheels):
    first = pack(bundle, "jetson", tmp_path / "one.tar", wheels=wheels)
    for path in [*bundle.path.rglob("*"), *wheels.iterdir()]:
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    previous = os.umask(0o077)
    try:
        second = pack(bundle, "jetson", tmp_path / "two.tar", wheels=wheels)
    finally:
        os.umask(previous)
    assert first.sha256 == second.sha256 and (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_nothing_tells_who_packed_it(bundle, tmp_path):
    pack(bundle, "jetson", tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        for entry in archive:
            assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 315_532_800)
            executable = entry.isdir() or entry.name.endswith(".sh")
            assert stat.S_IMODE(entry.mode) == (0o755 if executable else 0o644)


def test_wheels_travel_along_and_what_they_lack_is_told(bundle, tmp_path, wheels):
    packed = pack(bundle, "jetson", tmp_path / "x.tar", wheels=wheels)
    found = [name for name in names(tmp_path / "x.tar") if "/wheels/" in name]
    assert packed.wheels == 2 and [name.rsplit("/", 1)[1][:5] for name in found] == ["numpy", "rich-"]
    assert "pillow==12.3.0" in packed.missing["3.10"] and "numpy==2.2.6" not in packed.missing["3.10"]
    assert any("for Python 3.12" in warning for warning in packed.warnings)


def test_a_wheel_for_another_machine_is_refused(bundle, tmp_path, wheels):
    (wheels / "numpy-2.2.6-cp310-cp310-manylinux_2_17_x86_64.whl").write_text("")
    with pytest.raises(UsageError, match="x86_64"):
        pack(bundle, "jetson", tmp_path / "x.tar", wheels=wheels)
    assert not (tmp_path / "x.tar").exists()


def test_a_bundle_for_something_else_is_packed_with_a_warning(bundle, tmp_path):
    assert "made for cpu" in pack(bundle, "jetson", tmp_path / "x.tar").warnings[0]


def test_mmedge_itself_travels_along(bundle, tmp_path):
    pack(bundle, "jetson", tmp_path / "x.tar")
    (name,) = (name for name in names(tmp_path / "x.tar") if name.endswith(".whl"))
    assert name.startswith("small-jetson/mmedge-")
    wheel = wheel_of(name.rpartition("/")[2])
    assert (wheel.name, wheel.version, wheel.pythons) == ("mmedge", __version__, tuple(GLIBC))


@pytest.mark.parametrize(
    ("folder", "top", "inside"),
    [
        ("captions.bundle", "captions-jetson", "captions.bundle"),
        ("Captions v2", "model-jetson", "model.bundle"),
        ("plain", "plain-jetson", "plain.bundle"),
        ("-rf.bundle", "model-jetson", "model.bundle"),
    ],
)
def test_the_archive_calls_the_bundle_as_its_folder_is_called(folder, top, inside, bundle, tmp_path):
    bundle.path.rename(tmp_path / folder)
    pack(open_bundle(tmp_path / folder), "jetson", tmp_path / "x.tar")
    found = names(tmp_path / "x.tar")
    assert found[0] == top and f"{top}/{inside}/{MANIFEST}" in found
    script = text(tmp_path / "x.tar", f"{top}/install.sh")
    assert f"compile {inside}" in script and f"{inside} PICTURE" in text(tmp_path / "x.tar", f"{top}/README.txt")


def test_an_archive_that_is_there_is_only_replaced_by_force(bundle, tmp_path):
    (tmp_path / "x.tar").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        pack(bundle, "jetson", tmp_path / "x.tar")
    assert (tmp_path / "x.tar").read_text() == "mine"
    pack(bundle, "jetson", tmp_path / "x.tar", force=True)
    assert names(tmp_path / "x.tar")


@pytest.mark.parametrize("place", ["none/x.tar", "folder", "link", "small.bundle/x.tar"])
def test_a_place_where_no_archive_can_be_is_refused(place, bundle, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="cannot write"):
        pack(bundle, "jetson", tmp_path / place, force=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_bundle_is_not_packed(bundle, tmp_path):
    graph = bundle.path / bundle.manifest.graphs[0].file
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="damaged"):
        pack(bundle, "jetson", tmp_path / "x.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["small.bundle"]


def test_nothing_is_left_of_an_archive_that_could_not_be_finished(bundle, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pack(bundle, "jetson", tmp_path / "x.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["small.bundle"]


def test_an_unknown_device_is_refused_and_the_known_are_named(bundle, tmp_path):
    with pytest.raises(UsageError, match="no script for `toaster`") as refused:
        pack(bundle, "toaster", tmp_path / "x.tar")
    assert refused.value.hint == "known: jetson" and kinds() == ("jetson",)


@pytest.mark.parametrize("python", GLIBC)
def test_requirements_are_pins_of_everything_that_the_device_side_needs(python):
    lines = (SCRIPTS / f"requirements-{python}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", pin) for pin in pins)
    project = msgspec.toml.decode((Path(__file__).parents[2] / "pyproject.toml").read_bytes())["project"]
    needed = {re.match(r"[a-z]+", line)[0] for line in project["dependencies"]} | {"onnxruntime"}
    names_of = [pin.partition("=")[0] for pin in pins]
    found = {*names_of}
    assert names_of == sorted(found)
    assert needed - ({"tomli"} if python != "3.10" else set()) <= found
    assert not found & {"onnxruntime-gpu", "tensorrt", "torch", "openvino"}


def test_the_script_is_sound_bash():
    subprocess.run(["bash", "-n", SCRIPTS / "install.sh"], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPTS / "install.sh"], check=True)


def test_the_script_never_takes_the_gpu_wheel_of_the_index():
    lines = (SCRIPTS / "install.sh").read_text().splitlines()
    assert all(
        "--index-url" in line or "Never" in line for line in lines if "install" in line and "onnxruntime-gpu" in line
    )


def test_the_script_refuses_what_it_does_not_know(tmp_path):
    script = shutil.copy(SCRIPTS / "install.sh", tmp_path)
    done = subprocess.run([script, "--fast"], capture_output=True, text=True)
    assert done.returncode == 1 and "--no-compile or nothing, not '--fast'" in done.stderr
    done = subprocess.run([script], capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    assert done.returncode == 1 and "nothing here for Python" in done.stderr


def instructions() -> list[tuple[str, str]]:
    """Of the container file, continued lines joined."""
    content = re.sub(r"^#.*\n", "", (SCRIPTS / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in content.splitlines() if line.strip()]


def test_a_container_is_told_which_jetson_linux_it_is_on():
    content = (SCRIPTS / "Containerfile").read_text().replace("\\\n#", "")
    runs = [line for line in content.splitlines() if "docker run" in line]
    assert len(runs) == 2
    for line in runs:
        assert "--runtime nvidia --volume /etc/nv_tegra_release:/etc/nv_tegra_release:ro" in line


def test_a_container_takes_no_environment_that_was_made_outside():
    (made,) = (value for kind, value in instructions() if kind == "RUN" and "install.sh" in value)
    assert made.index("rm -rf venv") < made.index("./install.sh --no-compile")


def test_the_container_file_is_well_formed():
    found = instructions()
    kinds_of = [kind for kind, _ in found]
    assert kinds_of[:2] == ["ARG", "FROM"] and kinds_of.count("FROM") == 1
    assert {*kinds_of} <= {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}
    told = dict(found)
    assert told["FROM"] == "${BASE}" and re.fullmatch(r"BASE=nvcr\.io/nvidia/l4t-jetpack:r36\.\d\.\d", told["ARG"])
    assert kinds_of.index("USER") > max(place for place, kind in enumerate(kinds_of) if kind == "RUN")
    assert told["ENTRYPOINT"] == '["mmedge"]' and "pip install" not in " ".join(value for _, value in found)
    for kind, value in found:
        if kind == "RUN":
            subprocess.run(["bash", "-n", "-c", value], check=True)


def unpacked(path: Path, folder: Path) -> Path:
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / "small-jetson"


@pytest.mark.slow
def test_the_script_leaves_another_build_of_onnxruntime_alone(bundle, tmp_path):
    """An environment that has `onnxruntime-gpu` in name, and what else is needed lent to it."""
    pack(bundle, "jetson", tmp_path / "x.tar")
    place = unpacked(tmp_path / "x.tar", tmp_path)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (place / f"requirements-{version}.txt").write_text("numpy\nonnxruntime==0.0.1\n")
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PYTHON": os.path.realpath(sys.executable), "PYTHONPATH": lent, "PIP_NO_INDEX": "1"}
    command = [place / "install.sh", "--no-compile"]
    refused = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert refused.returncode != 0 and "onnxruntime==0.0.1" in refused.stderr
    (place / "wheels").mkdir()
    (place / "wheels/rich-15.0.0-py3-none-any.whl").touch()
    lacking = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (
        lacking.returncode == 1
        and f"install.sh: the folder wheels lacks something for Python {version}" in lacking.stderr
    )
    info = next((place / "venv/lib").glob("python3*/site-packages")) / "onnxruntime_gpu-1.23.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.23.0\n")
    (info / "top_level.txt").write_text("onnxruntime\n")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is onnxruntime-gpu already, and it stays." in done.stdout and "== what is here" in done.stdout
