"""A manifest from a stranger is either sound or refused: quickly, in little memory, with a reason."""

import copy
import gc
import json
import random
import time
import tracemalloc
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.core.bundle import SCHEMA, Manifest
from mmedge.core.manifest import LARGEST_MANIFEST, MOST_FILES, encode_manifest, parse_manifest
from mmedge.errors import BundleError

MIB = 1 << 20
FILE = {"size": 1, "sha256": "0" * 64}


def encoded(values):
    return json.dumps(values).encode()


def changed(**fields):
    return lambda values: encoded(values | fields)


def inside(place, key, value):
    """Set one value deep in the manifest; ``place`` is the path to its parent."""

    def change(values):
        values = copy.deepcopy(values)
        parent = values
        for step in place:
            parent = parent[step]
        parent[key] = value
        return encoded(values)

    return change


def with_range(*span):
    return inside(["graphs", 0], "profiles", [{"length": [1, 4, 12]}, {"length": span}])


def with_config(text):
    """The manifest with ``text`` in its config, which JSON of Python could not write."""
    return lambda values: inside(["config"], "x", "HERE")(values).replace(b'"HERE"', text)


def padded(size):
    return lambda values: encoded(values).ljust(size)


def many_files(count):
    def change(values):
        more = {str(number): FILE for number in range(count - len(values["files"]))}
        return encoded(values | {"files": values["files"] | more})

    return change


ABUSES = {
    "one byte too long": padded(LARGEST_MANIFEST + 1),
    "endless": padded(8 * MIB),
    "empty": lambda values: b"",
    "null": lambda values: b"null",
    "a list": lambda values: b"[]",
    "a string": lambda values: b'"manifest"',
    "an empty object": lambda values: b"{}",
    "binary": lambda values: bytes(range(256)),
    "deep lists": lambda values: b"[" * 1000 + b"]" * 1000,
    "a megabyte of brackets": lambda values: b"[" * MIB,
    "a megabyte of objects": lambda values: (b'{"":' * MIB)[:MIB],
    "deep config": with_config(b"[" * 15 + b"]" * 15),
    "as many keys as fit": lambda values: b"{" + b",".join(b'"%x":1' % n for n in range(90_000)) + b"}",
    "as many lists as fit": lambda values: b"[" + b"[]," * 349_000 + b"[]]",
    "many keys in the config": with_config(b"{" + b",".join(b'"%x":1' % n for n in range(90_000)) + b"}" + b","),
    "a key twice": lambda values: b'{"schema": 1,' + encoded(values)[1:],
    "a key twice in the config": with_config(b'{"a": 1, "a": 1}'),
    "a key twice, once escaped": with_config(b'{"a": 1, "\\u0061": 2}'),
    "a file twice": lambda values: encoded(values).replace(b'"files": {', b'"files": {"graphs/encoder.bin": {}, '),
    "NaN": with_config(b"NaN"),
    "Infinity": with_config(b"-Infinity"),
    "1e999": with_config(b"1e999"),
    "an integer of 41 digits": with_config(b"9" * 41),
    "an integer of 5,000 digits": with_config(b"9" * 5000),
    "an integer of a megabyte": with_config(b"9" * 1_000_000),
    "half a surrogate pair": with_config(b'"\\ud800"'),
    "half a surrogate pair as a key": with_config(b'{"\\udc00": 1}'),
    "half a surrogate pair in bytes": with_config(b'"\xed\xa0\x80"'),
    "a byte order mark": lambda values: b"\xef\xbb\xbf" + encoded(values),
    "UTF-16": lambda values: json.dumps(values).encode("utf-16"),
    "UTF-32": lambda values: json.dumps(values).encode("utf-32-le"),
    "Latin 1": with_config('"\u00e9"'.encode("latin-1")),
    "not normalised": with_config('"e\u0301"'.encode()),
    "a NUL": lambda values: encoded(values) + b"\0",
    "garbage at the end": lambda values: encoded(values) + b"x",
    "two manifests": lambda values: encoded(values) * 2,
    "cut off": lambda values: encoded(values)[:-1],
    "a comment": lambda values: b"// manifest\n" + encoded(values),
    "a trailing comma": lambda values: encoded(values)[:-1] + b",}",
    "single quotes": lambda values: encoded(values).replace(b'"', b"'"),
    "an unknown key": changed(surprise=1),
    "an unknown key of a graph": inside(["graphs", 0], "surprise", 1),
    "an unknown key of a file": inside(["files", "graphs/encoder.bin"], "surprise", 1),
    "an unknown key of a tensor": inside(["graphs", 0, "inputs", 0], "surprise", 1),
    "a missing key": lambda values: encoded({key: value for key, value in values.items() if key != "target"}),
    "a wrong type": changed(title=1),
    "a newer schema": changed(schema=SCHEMA + 1),
    "no schema": changed(schema=None),
    "schema 0": changed(schema=0),
    "schema true": changed(schema=True),
    "too many files": many_files(MOST_FILES + 1),
    "a negative size": inside(["files", "graphs/encoder.bin"], "size", -1),
    "a size beyond 2^53": inside(["files", "graphs/encoder.bin"], "size", 2**53 + 1),
    "a fractional size": inside(["files", "graphs/encoder.bin"], "size", 1.5),
    "a size as text": inside(["files", "graphs/encoder.bin"], "size", "1"),
    "a short digest": inside(["files", "graphs/encoder.bin"], "sha256", "0" * 63),
    "a digest in capitals": inside(["files", "graphs/encoder.bin"], "sha256", "A" * 64),
    "a digest with a line end": inside(["files", "graphs/encoder.bin"], "sha256", "0" * 64 + "\n"),
    "a digest that is a path": inside(["files", "graphs/encoder.bin"], "sha256", "../" * 21 + "x"),
    "a graph that is not listed": inside(["graphs", 0], "file", "graphs/other.onnx"),
    "a graph that hides from the check of references": inside(["graphs", 0], "file", "graphs/encoder.bin"),
    "an asset that is not listed": changed(assets={"tokenizer": "assets/other.json"}),
    "a golden sample without files": inside(["golden", 0], "path", "golden/1"),
    "two graphs of one name": inside(["graphs", 1], "component", "encoder"),
    "an unknown dtype": inside(["graphs", 0, "inputs", 0], "dtype", "object"),
    "a negative size of a tensor": inside(["graphs", 0, "inputs", 0], "shape", [1, -1]),
    "a range that starts at none": with_range(0, 1, 2),
    "a range that is upside down": with_range(5, 2, 1),
    "a usual size below the range": with_range(2, 1, 5),
    "a usual size beyond the range": with_range(1, 6, 5),
    "a range beyond 31 bits": with_range(1, 2, 1 << 31),
    "a range in words": with_range("a", "b", "c"),
    "a workspace in words": inside(["target"], "options", {"workspace_mb": "abc"}),
    "a negative workspace": inside(["target"], "options", {"workspace_mb": -5}),
    "a limit of a build in words": inside(["target"], "options", {"builder_mb": "abc"}),
    "a level that no builder has": inside(["target"], "options", {"builder_level": 77}),
    "a cache without layers": inside(["graphs", 0], "cache", {"layers": 0, "heads": 1, "head_dim": 1}),
    "no graphs": changed(graphs=[], agreement=[]),
    "no assets": changed(assets={}),
    "no config": changed(config={}),
    "no model in the config": inside(["config"], "model", None),
    "no pictures in the config": inside(["config"], "image", []),
    "no text in the config": inside(["config"], "text", "x"),
    "no generation in the config": inside(["config"], "generation", 1),
    "no word on spaces": inside(["config"], "text", {}),
    "a word on spaces that is neither true nor false": inside(["config", "text"], "clean_up_tokenization_spaces", "no"),
    "no backend for a tower": inside(["target"], "backends", {"decode": "onnxruntime"}),
    "no agreement of a graph": changed(agreement=[]),
    "the agreement of another graph": inside(["agreement", 0], "component", "other"),
    "a negative token": inside(["golden", 0], "tokens", [-1]),
    "a token beyond 64 bits": inside(["golden", 0], "tokens", [2**64]),
}


@pytest.fixture
def alone():
    """Objects of the tests before are left out of garbage collections, whose time would count as the reader's."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abused_manifest_is_refused(abuse, manifest_values):
    raw = ABUSES[abuse](manifest_values)
    start = time.process_time()
    with pytest.raises(BundleError, match=r"manifest\.json") as refusal:
        parse_manifest(raw)
    assert time.process_time() - start < 1
    assert len(refusal.value.message) < 400 and refusal.value.message.isprintable()


def test_a_range_and_an_option_are_refused_by_name_value_and_bound(manifest_values):
    with pytest.raises(BundleError, match=r"range of `length` of the graph `encoder` is 5, 2, 1: .* within 1 to"):
        parse_manifest(with_range(5, 2, 1)(manifest_values))
    with pytest.raises(BundleError, match=r"the option `builder_level` is `77`, it must be a whole number, 0 to 5"):
        parse_manifest(inside(["target"], "options", {"builder_level": 77})(manifest_values))


@pytest.mark.parametrize("span", [(1, 1, 1), (1, 2, (1 << 31) - 1)])
def test_a_range_that_grows_is_read(span, manifest_values):
    assert parse_manifest(with_range(*span)(manifest_values)).graphs[0].profiles[1]["length"].largest == span[2]


@pytest.mark.parametrize("abuse", [name for name in ABUSES if "fit" in name or "mega" in name or "keys in" in name])
def test_refusing_takes_little_memory(abuse, manifest_values):
    raw = ABUSES[abuse](manifest_values)
    tracemalloc.start()
    with pytest.raises(BundleError):
        parse_manifest(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MIB


def test_the_largest_allowed_manifest_is_read(manifest_values):
    assert isinstance(parse_manifest(padded(LARGEST_MANIFEST)(manifest_values)), Manifest)


@pytest.mark.usefixtures("alone")
def test_as_many_files_as_allowed_are_read_quickly(manifest_values):
    start = time.process_time()
    assert len(parse_manifest(many_files(MOST_FILES)(manifest_values)).files) == MOST_FILES
    assert time.process_time() - start < 1


@pytest.mark.parametrize("text", [b"1", b"null", b'"e\\u0301"', b"-1e-300", b"9" * 40, b'{"a": 1, "b": 1}'])
def test_an_ordinary_config_is_read(text, manifest_values):
    assert isinstance(parse_manifest(with_config(text)(manifest_values)), Manifest)


def test_the_depth_that_is_allowed_is_read(manifest_values):
    parse_manifest(with_config(b"[" * 14 + b"]" * 14)(manifest_values))
    parse_manifest(
        with_config(b'"%s\\"%s"' % (b"[{" * 1000, b"{[" * 1000))(manifest_values)
    )  # brackets in text are no depth


def test_notes_for_others_are_allowed_and_dropped(manifest_values):
    assert parse_manifest(encoded(manifest_values | {"x-build": {"time": 1}})) == parse_manifest(
        encoded(manifest_values)
    )


def test_a_newer_schema_comes_with_advice(manifest_values):
    with pytest.raises(BundleError, match="has schema 2") as refusal:
        parse_manifest(changed(schema=2, surprise=1)(manifest_values))
    assert "update mmedge" in refusal.value.hint


def test_what_is_written_is_what_is_read(workshop):
    written = encode_manifest(workshop.listed)
    assert parse_manifest(written) == workshop.listed
    assert written.endswith(b"}\n") and written.count(b"\n") > 50


def test_text_arrives_as_it_was_even_where_it_is_not_normalised(workshop):
    labels = ["e\u0301", "\u00e9", "\U0001f600\u0301", "\u2028"]
    config = workshop.listed.config | {"labels": labels}
    manifest = msgspec.structs.replace(workshop.listed, config=config)
    assert parse_manifest(encode_manifest(manifest)).config["labels"] == labels


def test_the_bytes_depend_only_on_the_content(workshop):
    backwards = msgspec.json.decode(encode_manifest(workshop.manifest))
    backwards["config"] = dict(reversed(backwards["config"]["model"].items()))
    forwards = backwards | {"config": dict(sorted(backwards["config"].items()))}
    assert encode_manifest(msgspec.convert(backwards, Manifest)) == encode_manifest(msgspec.convert(forwards, Manifest))


def fuzz(raw, rounds, seed):
    """Random edits of the bytes; how many of the results were refused."""
    random_, refused = random.Random(seed), 0
    pieces = [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\u0000",
        b"1e400",
        b"-",
        b"null",
        b"\xff",
        b"../",
        b"\0",
        b"9" * 50,
    ]
    for _ in range(rounds):
        damaged = bytearray(raw)
        for _ in range(random_.randint(1, 3)):
            start = random_.randrange(len(damaged))
            damaged[start : start + random_.choice([0, 1, 1, 2, 30])] = random_.choice(
                [random_.choice(pieces), bytes([random_.randrange(256)]), damaged[: random_.randrange(50)]]
            )
        try:
            assert isinstance(parse_manifest(bytes(damaged)), Manifest)
        except BundleError:
            refused += 1
    return refused


def test_random_damage_is_refused_or_harmless(manifest_values):
    assert 5000 < fuzz(encoded(manifest_values), 20_000, seed=0) < 20_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(raw=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_refused(raw):
    with pytest.raises(BundleError):
        parse_manifest(raw)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_any_other_value_in_any_place_is_refused_or_harmless(data, manifest_values):
    values = copy.deepcopy(manifest_values)
    parent = values
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = data.draw(st.sampled_from(keys))
        if not parent[key] or not isinstance(parent[key], dict | list) or data.draw(st.booleans()):
            break
        parent = parent[key]
    parent[key] = data.draw(JSON)
    with suppress(BundleError):
        assert isinstance(parse_manifest(encoded(values)), Manifest)
