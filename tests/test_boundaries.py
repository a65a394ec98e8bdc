"""What may import what, checked three ways; each check is shown to catch a mistake planted in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def import_everything(root: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that refuses torch and all engines imports every device-side module."""
    return run(root, sys.executable, ROOT / "tests" / "import_device_side.py")


def lint_imports_of_modules(root: Path) -> subprocess.CompletedProcess[str]:
    """Ruff refuses module-level imports of them, in every file, also those that nothing imports."""
    return run(root, BIN / "ruff", "check", "--no-cache", "--select", "TID253", "mmedge")


def lint_layers(root: Path) -> subprocess.CompletedProcess[str]:
    """Import-linter knows the layers, and sees imports inside functions too."""
    return run(root, BIN / "lint-imports", "--no-cache")


def run(root: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


CHECKS = (import_everything, lint_imports_of_modules, lint_layers)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "mmedge", tmp_path / "mmedge", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(root: Path, module: str, line: str) -> None:
    path = root / "mmedge" / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")


@pytest.mark.parametrize("check", CHECKS)
def test_the_boundaries_hold(check, copy):
    done = check(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("module", ["core/ports.py", "runtime/__init__.py"])
def test_an_import_of_torch_is_caught(check, module, copy):
    plant(copy, module, "import torch")
    done = check(copy)
    assert done.returncode != 0 and "torch" in done.stdout + done.stderr


@pytest.mark.parametrize("check", [import_everything, lint_imports_of_modules])
@pytest.mark.parametrize("package", ["onnxruntime", "PIL", "tokenizers"])
def test_an_optional_library_imported_with_the_module_is_caught(check, package, copy):
    plant(copy, "media/__init__.py", f"from {package} import anything")
    done = check(copy)
    assert done.returncode != 0 and package in done.stdout + done.stderr


def test_an_import_of_torch_inside_a_function_is_caught(copy):
    plant(copy, "core/ports.py", "def late() -> None:\n    import torch")
    done = lint_layers(copy)
    assert done.returncode != 0 and "torch" in done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/ports.py", "import mmedge.media"),
        ("families/__init__.py", "import mmedge.runtime"),
        ("export/__init__.py", "import mmedge.profiling"),
        ("errors.py", "import mmedge.needs"),
    ],
)
def test_a_layer_that_reaches_up_is_caught(module, line, copy):
    plant(copy, module, line)
    done = lint_layers(copy)
    assert done.returncode != 0 and "is not allowed to import" in done.stdout


def test_a_module_outside_the_layers_is_caught(copy):
    (copy / "mmedge" / "helpers.py").write_text('"""Where does this belong?"""\n')
    done = lint_layers(copy)
    assert done.returncode != 0 and "helpers" in done.stdout + done.stderr
