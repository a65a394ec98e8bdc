from importlib import metadata
from importlib.metadata import EntryPoint

import pytest

from mmedge.core import find
from mmedge.errors import BackendError, UsageError


def test_a_family_is_found_by_its_file_name():
    assert find.family("blip").name == "blip"


def test_shared_modules_are_no_entries():
    assert not [name for kind in ("families", "backends") for name in find.names(kind) if name.startswith("_")]


def test_a_backend_for_tests_is_found_but_not_offered():
    assert find.backend("replay").name == "replay" and "replay" not in find.names("backends")
    with pytest.raises(UsageError) as refused:
        find.backend("reply")
    assert "replay" not in refused.value.hint and "onnxruntime, onnxruntime_gpu" in refused.value.hint


def test_an_engine_that_a_bundle_names_and_this_version_lacks_is_no_mistake_of_the_user():
    with pytest.raises(BackendError) as missing:
        find.engine("coreml")
    assert missing.value.message == "this version has no engine `coreml`"
    assert missing.value.hint == "run it here with --backend onnxruntime"


@pytest.mark.parametrize(
    ("look_up", "name", "message", "hint"),
    [
        (find.family, "blib", "no family is called `blib`", "did you mean `blip`?"),
        (find.target, "jetsom", "no target is called `jetsom`", "did you mean `jetson`?"),
    ],
)
def test_a_name_that_is_close_is_suggested(look_up, name, message, hint):
    with pytest.raises(UsageError) as refused:
        look_up(name)
    assert (refused.value.message, refused.value.hint) == (message, hint)


def test_a_name_that_is_far_off_gets_the_whole_list():
    with pytest.raises(UsageError) as refused:
        find.target("toaster")
    assert refused.value.hint is not None and refused.value.hint.startswith("known: cpu, intel-npu, jetson, ")


@pytest.mark.parametrize("name", ["../core/find", "os", "", "families", "_shared", "blip.FAMILY"])
def test_only_listed_names_are_imported(name):
    with pytest.raises(UsageError, match="no family is called"):
        find.family(name)


def test_an_installed_plugin_is_found(monkeypatch):
    entry = EntryPoint("counter", "collections:Counter", "mmedge.backends")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == "mmedge.backends" else [])
    assert find.backend("counter").__name__ == "Counter"
    assert "counter" in find.names("backends")


def test_our_file_comes_before_a_plugin_of_the_same_name(monkeypatch):
    entry = EntryPoint("blip", "collections:Counter", "mmedge.families")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    assert find.family("blip").name == "blip"


def test_an_alias_names_the_same_target():
    assert find.target("jetson") == find.target("jetson-orin-nano")


def test_a_target_of_the_users_own_is_read_from_its_file(tmp_path):
    own = tmp_path / "kiosk.toml"
    own.write_text((find.PACKAGE / "targets" / "cpu.toml").read_text().replace('"cpu"', '"kiosk"'))
    assert find.target(str(own)).name == "kiosk"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read the target"),
        ("name = 3", "Expected `str`, got `int` - at `$.name`"),
        ("name = ", "Invalid value"),
        (b"\xff\xfe", "utf-8"),
        ('name = "x"\nspeed = 3', "unknown field `speed`"),
    ],
)
def test_a_mistake_in_a_target_is_named_with_its_place(tmp_path, text, reason):
    own = tmp_path / "own.toml"
    if text is not None:
        own.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as refused:
        find.target(str(own))
    assert str(own) in refused.value.message and reason in refused.value.message


def test_recipes_and_calibration_sets_are_found_in_a_checkout():
    assert (find.data("calib") / "scenes").is_dir()
