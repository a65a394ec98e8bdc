"""What verification notices, on a small bundle whose engine can be spoiled."""

import io
import zipfile

import msgspec
import numpy as np
import pytest

from mmedge.errors import BundleError, MmedgeError, UsageError
from mmedge.runtime.golden import from_bytes, to_bytes
from mmedge.runtime.pipeline import open_pipeline
from mmedge.runtime.verify import bounds, verify

pytestmark = pytest.mark.usefixtures("on_engine")


def failed(bundle) -> set[str]:
    return {check.what for check in verify(bundle).checks if not check.passed}


def quantized(manifest):
    graphs = tuple(msgspec.structs.replace(graph, precision="int8") for graph in manifest.graphs)
    return msgspec.structs.replace(manifest, graphs=graphs)


def flipped(*indices):
    """Another last token in the recorded answers ``indices``."""

    def change(manifest):
        golden = list(manifest.golden)
        for index in indices:
            tokens = golden[index].tokens
            golden[index] = msgspec.structs.replace(golden[index], tokens=(*tokens[:-1], 4 if tokens[-1] != 4 else 5))
        return msgspec.structs.replace(manifest, golden=tuple(golden))

    return change


def test_a_whole_bundle_passes(small_bundle):
    found = verify(small_bundle())
    assert found.passed and found.backends == {"encoder": "numpy", "decoder": "numpy"}
    assert [check.what for check in found.checks] == ["preprocess", "encoder", "decoder"] * 2 + ["tokens"]


@pytest.mark.parametrize("change", [lambda manifest: manifest, quantized], ids=["float32", "int8"])
def test_a_session_that_ignores_its_cache_is_caught_by_its_numbers(change, small_bundle, on_engine):
    bundle = small_bundle(change)
    on_engine(forgets=True)
    checks = [check for check in verify(bundle).checks if check.what == "decoder"]
    assert not any(check.passed for check in checks) and {check.note for check in checks} == {"in decoder/logits.last"}


def test_in_float32_every_answer_must_be_the_recorded_one(small_bundle):
    assert "tokens" in failed(small_bundle(flipped(0)))


def test_quantized_as_many_answers_must_be_equal_as_the_recipe_accepts(small_bundle):
    # One of two is half of them, which is accepted; the numbers after another last token still tell.
    assert "tokens" not in failed(small_bundle(lambda manifest: quantized(flipped(0)(manifest))))
    bundle = small_bundle(lambda manifest: quantized(flipped(0, 1)(manifest)))
    check = verify(bundle).checks[-1]
    assert (check.value, check.bound, check.passed) == (0.0, 0.5, False)
    assert "golden/0, golden/1" in check.note


def test_another_choice_of_the_engine_does_not_change_what_its_numbers_are_compared_at(small_bundle, on_engine):
    bundle = small_bundle(quantized)
    sound = verify(bundle)
    # Just enough to turn the choice now and then, too little for the bound of the numbers.
    for lean in np.linspace(0.02, 0.6, 30):
        on_engine(leans={token: float(lean) for token in (5, 9, 13)})
        seen = verify(bundle)
        if seen.checks[-1].value < sound.checks[-1].value:
            assert all(check.value > 0.9 for check in seen.checks if check.what == "decoder")
            return
    pytest.fail("no lean turned any choice")


def test_without_golden_samples_nothing_was_verified(small_bundle):
    bundle = small_bundle(lambda manifest: msgspec.structs.replace(manifest, golden=()))
    with pytest.raises(BundleError, match="no golden samples"):
        verify(bundle)


def respelled(data: bytes, **changes) -> bytes:
    """The arrays of an ``.npz`` with some replaced, or left out where the change is None."""
    arrays = from_bytes(data, "file") | {name.replace("__", "/"): array for name, array in changes.items()}
    return to_bytes({name: array for name, array in arrays.items() if array is not None})


RECORDINGS = {
    "no picture": ("inputs.npz", {"pixel_values": None}),
    "no prompt": ("inputs.npz", {"tokens": None}),
    "a prompt of no tokens": ("inputs.npz", {"tokens": np.zeros(0, np.int64)}),
    "a prompt of another rank": ("inputs.npz", {"tokens": np.zeros((1, 1), np.int64)}),
    "a prompt that is too long": ("inputs.npz", {"tokens": np.full(12, 2)}),
    "a picture of another shape": ("inputs.npz", {"pixel_values": np.zeros((1, 3, 2, 2), np.float32)}),
    "a picture of text": ("inputs.npz", {"pixel_values": np.full((1, 3, 4, 4), "x")}),
    "no output of the encoder": ("outputs.npz", {"encoder__cross.0.key": None}),
    "no last logits": ("outputs.npz", {"decoder__logits.last": None}),
}


@pytest.mark.parametrize("case", RECORDINGS)
def test_a_recording_that_cannot_be_replayed_is_refused(case, small_bundle):
    name, changes = RECORDINGS[case]
    name = f"golden/0/{name}"
    spoiled = respelled(small_bundle().read(name), **changes)
    with pytest.raises(BundleError, match="golden/0") as refusal:
        verify(small_bundle(files={name: spoiled}))
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize("output", [np.zeros(3, np.float32), np.full(16, "x"), np.full(16, np.nan, np.float32)])
def test_recorded_outputs_of_another_kind_fail(output, small_bundle):
    name = "golden/0/outputs.npz"
    spoiled = respelled(small_bundle().read(name), **{"decoder__logits.last": output})
    assert failed(small_bundle(files={name: spoiled})) == {"decoder"}


def test_a_file_that_is_no_archive_is_refused(small_bundle):
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("note.txt", "no array")
    for data in (b"", b"nonsense", empty.getvalue()):
        with pytest.raises(BundleError, match="no plain arrays"):
            verify(small_bundle(files={"golden/0/inputs.npz": data}))


def set_in(*place, value):
    """The manifest with one value of its config replaced."""

    def change(manifest):
        config = msgspec.json.decode(msgspec.json.encode(manifest.config))
        parent = config
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = value
        return msgspec.structs.replace(manifest, config=config)

    return change


HOSTILE = {
    "a start token of text": set_in("model", "text_config", "bos_token_id", value="x"),
    "a start token beyond 64 bits": set_in("model", "text_config", "bos_token_id", value=2**70),
    "no start token": set_in("model", "text_config", value={}),
    "a text config of text": set_in("model", "text_config", value="x"),
    "no architectures": set_in("model", "architectures", value=None),
    "positions of text": set_in("model", "text_config", "max_position_embeddings", value="x"),
    "half a position": set_in("model", "text_config", "max_position_embeddings", value=12.5),
    "a limit of text": set_in("generation", "max_new_tokens", value="x"),
    "a negative limit": set_in("generation", "max_new_tokens", value=-1),
    "picture settings of text": set_in("image", "rescale_factor", value="x"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_configuration_that_the_family_trips_over_is_the_bundles_fault(case, small_bundle):
    pixels = np.zeros((4, 4, 3), np.uint8)
    with open_pipeline(small_bundle(HOSTILE[case])) as pipeline, pytest.raises(MmedgeError) as refusal:
        pipeline.caption(pixels)
    assert refusal.value.exit_code == 4


def test_an_unknown_family_is_the_bundles_fault(small_bundle):
    with pytest.raises(BundleError, match="unknown family `nobody`"):
        open_pipeline(small_bundle(lambda manifest: msgspec.structs.replace(manifest, family="nobody")))


def test_a_limit_of_the_caller_is_the_callers_fault(small_bundle):
    with open_pipeline(small_bundle()) as pipeline, pytest.raises(UsageError, match="length limit is 0"):
        pipeline.caption(np.zeros((4, 4, 3), np.uint8), limit=0)


@pytest.mark.parametrize(
    ("precisions", "lowest"),
    [
        (("float32", "float32", "float32"), (0.9999, 0.9999, 0.9999)),
        (("float16", "float32", "float16"), (0.99, 0.99, 0.98)),
        (("float32", "int8", "float16"), (0.9999, 0.99, 0.98)),
    ],
)
def test_a_graph_may_lose_what_those_before_it_may_lose_too(small_bundle, precisions, lowest):
    manifest = small_bundle().manifest
    graphs = tuple(msgspec.structs.replace(manifest.graphs[0], precision=precision) for precision in precisions)
    accept = msgspec.structs.replace(manifest.accept, cosine=0.99)
    assert bounds(msgspec.structs.replace(manifest, graphs=graphs, accept=accept)) == pytest.approx(lowest)
