import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from mmedge import __version__

slow = pytest.mark.slow


def test_a_bundle_that_is_not_there_is_a_usage_error(mmedge, tmp_path):
    assert mmedge("pack", tmp_path / "none.bundle", "--for", "jetson", "-o", tmp_path / "x.tar").code == 2


@slow
def test_an_archive_is_written_and_its_digest_told(mmedge, captioner, tmp_path):
    shown = mmedge("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar")
    assert (
        shown.code == 0
        and str(tmp_path / "x.tar") in shown.out
        and "sha256 " in shown.out
        and "mmedge and 0 other wheels" in shown.out
    )
    assert "warning: this bundle was made for cpu" in shown.err
    assert tarfile.is_tarfile(tmp_path / "x.tar")
    assert mmedge("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar").code == 2
    again = mmedge("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar", "--force", "--json")
    told = json.loads(again.out)
    assert told["sha256"] in shown.out and told["files"] > 10 and told["missing"]["3.10"]


@slow
def test_wheels_that_do_not_fit_exit_2(mmedge, captioner, tmp_path):
    (tmp_path / "wheels").mkdir()
    arguments = ("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar", "--wheels", tmp_path / "wheels")
    assert "there are no wheels" in mmedge(*arguments).err
    (tmp_path / "wheels/numpy-2.2.6-cp310-cp310-win_amd64.whl").write_text("")
    shown = mmedge(*arguments)
    assert shown.code == 2 and "does not fit" in shown.err


def printed(*command: object, environment: dict[str, str]) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd="/")
    if "connection broken" in done.stderr:
        pytest.skip("there is no package index to take wheels from")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@slow
def test_the_pack_installs_itself_without_a_network(mmedge, captioner, tmp_path):
    """On this machine instead of a board: its own wheels for the very versions that are pinned, then no index."""
    shutil.copytree(captioner, tmp_path / "captions.bundle")
    assert mmedge("pack", tmp_path / "captions.bundle", "--for", "jetson", "-o", tmp_path / "captions.tar").code == 0
    with tarfile.open(tmp_path / "captions.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    place = tmp_path / "captions-jetson"
    requirements = place / f"requirements-{sys.version_info[0]}.{sys.version_info[1]}.txt"
    if not requirements.exists():  # a Python of no JetPack, such as 3.11: the pins of the newer one
        shutil.copy(place / "requirements-3.12.txt", requirements)
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    fetch = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "-r", requirements)
    printed(*fetch, "-d", place / "wheels", environment=own)

    environment = {**own, "PYTHON": os.path.realpath(sys.executable), "PIP_NO_INDEX": "1"}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    for _ in range(2):  # it may be run again
        shown = printed(place / "install.sh", environment=environment)
        assert "== what is here" in shown and f"{place}/captions.bundle PICTURE" in shown
    programs = place / "venv/bin"
    printed(programs / "python", "-m", "pip", "check", environment=environment)
    assert __version__ in printed(programs / "mmedge", "--version", environment=environment)
    assert printed(programs / "mmedge", "verify", place / "captions.bundle", environment=environment)
    program = "import mmedge; print(mmedge.__file__)"
    assert str(place) in printed(programs / "python", "-c", program, environment=environment)
    packed = ("pack", place / "captions.bundle", "--for", "jetson", "-o", tmp_path / "again.tar")
    printed(programs / "mmedge", *packed, environment=environment)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "captions.tar").read_bytes()
