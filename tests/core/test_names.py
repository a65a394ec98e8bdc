"""Names that no bundle may contain, wherever a bundle could say them."""

import ast
import copy
import json
from pathlib import Path

import pytest

import mmedge
from mmedge.core.bundle import MANIFEST, open_bundle
from mmedge.core.names import is_file_name, is_plain_name, shown
from mmedge.errors import BundleError

BAD_NAMES = [
    *("../x", "a/../../x", "..", "a/..", "../../etc/passwd", "./a", ".", "a/.", "a/./b", "a//b", "/", "//a"),
    *("/etc/passwd", "/a", "a/", "", " ", "a ", " a", "a/ b", "a.", "a./b", ".hidden", "a/.hidden", "-a", "_a"),
    *("C:\\x", "c:x", "a\\..\\b", "\\\\host\\share", "a\\b", "a:stream", "~/a", "$HOME/a", "%2e%2e/a", "*", "a?"),
    *("a\0b", "a\n", "a\nb", "a\tb", "a\x1b[2J", "a\x7f", "a" * 65, "a" * 256, "a/" * 8 + "a", "A", "a/B", "README.md"),
    *("caf\u00e9", "cafe\u0301", "a\u202egnp.exe", "\uff0e\uff0e/a", "a\u200b", "\u0131", "\U0001f600"),
    *("con", "aux.txt", "graphs/nul", "com1.bin", "lpt9", "prn/a", "a/con.tar.gz", "manifest.json", "manifest.sha256"),
]
GOOD_NAMES = [
    "a",
    "0",
    "graphs/encoder.onnx",
    "golden/0/text_encoder.inputs.npz",
    "con-1",
    "auxiliary",
    "a" * 64,
    "a..b",
]
PLACES = {
    "files": "is not allowed as a file name",
    "graph": "the graph `encoder` is the file",
    "asset": "the asset `tokenizer` is the file",
    "golden": "the golden sample",
}


def put(values, place, name):
    """A manifest that says ``name`` in ``place``."""
    changed = copy.deepcopy(values)
    if place == "files":
        changed["files"][name] = changed["files"]["graphs/encoder.bin"]
    elif place == "graph":
        changed["graphs"][0]["file"] = name
    elif place == "asset":
        changed["assets"]["tokenizer"] = name
    else:
        changed["golden"][0]["path"] = name
    return changed


def test_there_are_at_least_sixty_bad_names():
    assert len(set(BAD_NAMES)) >= 60


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_plain_names_are_allowed(name):
    assert is_file_name(name)


@pytest.mark.parametrize("place", PLACES)
def test_a_manifest_with_a_bad_name_is_refused_before_anything_is_opened(
    place, spoiled, workshop, manifest_values, record_opens
):
    for name in BAD_NAMES:
        workshop.put_manifest(spoiled, json.dumps(put(manifest_values, place, name)).encode())
        with record_opens() as opened, pytest.raises(BundleError, match=PLACES[place]) as refusal:
            open_bundle(spoiled)
        assert set(opened) == {str(spoiled), MANIFEST}, name
        assert str(refusal.value).isprintable() and str(refusal.value).isascii(), name


def test_the_name_that_is_refused_is_the_one_that_is_shown(spoiled, workshop, manifest_values):
    workshop.put_manifest(spoiled, json.dumps(put(manifest_values, "files", "a\u202egnp.exe")).encode())
    with pytest.raises(BundleError, match=r"`a\\+u202egnp.exe` is not allowed as a file name"):
        open_bundle(spoiled)


def test_asking_a_bundle_for_a_bad_name_opens_nothing(pristine, record_opens):
    bundle = open_bundle(pristine)
    for name in BAD_NAMES:
        for ask in (bundle.read, bundle.file):
            with record_opens() as opened, pytest.raises(BundleError, match="has no file"):
                ask(name)
            assert opened == [], name


def test_a_component_is_a_plain_name(spoiled, workshop, manifest_values):
    assert is_plain_name("text_encoder") and is_plain_name("manifest.json")
    for name in [*(name for name in BAD_NAMES if not name.startswith("manifest.")), "vision/encoder"]:
        changed = copy.deepcopy(manifest_values)
        changed["graphs"][0]["component"] = name
        workshop.put_manifest(spoiled, json.dumps(changed).encode())
        with pytest.raises(BundleError, match="as the name of a component"):
            open_bundle(spoiled)


def test_what_is_shown_is_one_short_printable_line():
    for text in [*BAD_NAMES, "a" * 10_000, "\ud800", "\u0301" * 1000]:
        assert len(shown(text)) <= 80 and shown(text).isascii() and (shown(text).isprintable() or not text)


def test_only_one_module_knows_how_a_digest_is_spelled():
    package = Path(mmedge.__file__).parent
    spellings = [
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{64}" in node.value
    ]
    assert spellings == ["names.py"]
