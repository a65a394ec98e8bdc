"""mmedge as a wheel: everything that it is made of, as the format asks, and the same every time."""

import base64
import hashlib
import io
import os
import shutil
import zipfile
from importlib import metadata

import pytest

from mmedge import __version__
from mmedge.core import find
from mmedge.errors import UsageError
from mmedge.runtime import own_wheel as module
from mmedge.runtime.own_wheel import FILE, own_wheel

INFO = f"mmedge-{__version__}.dist-info"


def files() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(own_wheel())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_has_the_package_with_its_recipes_and_calibration_sets():
    found = files()
    assert found["mmedge/__init__.py"] == (find.PACKAGE / "__init__.py").read_bytes()
    assert {"mmedge/recipes/scenes.toml", "mmedge/packs/jetson/install.sh", "mmedge/py.typed"} <= {*found}
    assert any(name.startswith("mmedge/calib/scenes/") for name in found)
    assert not [name for name in found if "__pycache__" in name or "/." in name]


def test_it_says_what_it_is_and_what_it_needs():
    found = files()
    assert found[f"{INFO}/METADATA"].decode() == metadata.distribution("mmedge").read_text("METADATA")
    assert b"mmedge = mmedge.cli:main" in found[f"{INFO}/entry_points.txt"]
    assert f"{INFO}/licenses/LICENSE" in found and b"Root-Is-Purelib: true" in found[f"{INFO}/WHEEL"]
    assert f"mmedge-{__version__}-py3-none-any.whl" == FILE and f"{INFO}/direct_url.json" not in found


def test_its_record_has_the_digest_of_every_file():
    found = files()
    *lines, last = found.pop(f"{INFO}/RECORD").decode().splitlines()
    assert last == f"{INFO}/RECORD,," and len(lines) == len(found)
    for line in lines:
        name, digest, size = line.split(",")
        plain = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=").hex()
        assert plain == hashlib.sha256(found[name]).hexdigest() and int(size) == len(found[name])


def test_it_is_the_same_whenever_and_by_whomever_it_is_made(monkeypatch, tmp_path):
    first = own_wheel()
    for kind in ("recipes", "calib"):
        shutil.copytree(find.data(kind), tmp_path / "mmedge" / kind)
    shutil.copytree(find.PACKAGE, tmp_path / "mmedge", dirs_exist_ok=True)
    for path in (tmp_path / "mmedge").rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    monkeypatch.setattr(find, "PACKAGE", tmp_path / "mmedge")
    assert own_wheel() == first


def test_a_stale_install_is_refused(monkeypatch):
    monkeypatch.setattr(module, "__version__", "99.0")
    with pytest.raises(UsageError, match=rf"mmedge {__version__} is installed, but this is 99.0"):
        own_wheel()


def test_without_an_install_there_is_no_wheel(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    with pytest.raises(UsageError, match="is not installed"):
        own_wheel()
