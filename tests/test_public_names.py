import subprocess
import sys

import pytest

import mmedge


@pytest.mark.parametrize("name", sorted({*mmedge.__all__} - {"export", "__version__"}))
def test_a_public_name_arrives_on_first_use(name):
    assert getattr(mmedge, name).__name__ == name
    assert name in dir(mmedge)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_mmedge_loads_only_the_standard_library():
    loaded = run("import sys; before = {*sys.modules}; import mmedge; print(*{*sys.modules} - before)")
    assert {name.partition(".")[0] for name in loaded.split()} - {"mmedge"} <= sys.stdlib_module_names


@pytest.mark.parametrize("first", ["mmedge", "mmedge.export", "mmedge.export.stages"])
def test_export_is_the_package_and_can_be_called_whatever_was_imported_before(first):
    assert run(f"import sys, mmedge, {first}; print(callable(mmedge.export))") == "True"
    assert run(f"import sys, mmedge, {first}; print(mmedge.export is sys.modules['mmedge.export'])") == "True"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module `mmedge` has no attribute `lod`"):
        _ = mmedge.lod
