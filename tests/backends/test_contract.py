"""What every engine must do, on the same small graphs; the expected numbers come from numpy."""

import numpy as np
import pytest

from mmedge.core.machine import usable_cores
from mmedge.errors import BackendError, InputError

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
CLOSE = {"rtol": 0, "atol": 2e-6}


def read(decoder, position, *tokens):
    """Logits after ``tokens``, which follow ``position`` earlier ones."""
    positions = np.arange(position, position + len(tokens))
    return decoder.run({"input_ids": np.array([tokens]), "position_ids": positions[None]})["logits"]


def picture(width=7):
    return np.random.default_rng(1).random((1, 3, 8, width), dtype=np.float32)


def test_a_tower_computes_what_numpy_does(tower):
    pixels, weights = picture(), np.arange(32, dtype=np.float32).reshape(8, 4)
    outputs = tower.run({"pixels": pixels, "wanted": np.array([[6, 0]])})
    assert {name: (value.dtype, value.shape) for name, value in outputs.items()} == {
        "features": (np.float32, (1, 2, 4)),
        "total": (np.float32, ()),
    }
    np.testing.assert_allclose(outputs["features"][0], (pixels[0].mean(0).T @ weights)[[6, 0]], rtol=1e-5)
    np.testing.assert_allclose(outputs["total"], pixels.sum(), rtol=1e-5)


def test_an_earlier_answer_is_not_overwritten_by_the_next_run(tower):
    first = tower.run({"pixels": picture(), "wanted": np.array([[1]])})["features"]
    before = first.copy()
    tower.run({"pixels": picture() + 1, "wanted": np.array([[1]])})
    np.testing.assert_array_equal(first, before)


def test_tensors_that_are_not_contiguous_are_read_right(tower):
    turned = np.asfortranarray(picture())
    expected = tower.run({"pixels": picture(), "wanted": np.array([[0, 2]])})["features"]
    np.testing.assert_array_equal(
        tower.run({"pixels": turned, "wanted": np.array([[0, 1, 2]])[:, ::2]})["features"], expected
    )


@pytest.mark.parametrize("chunks", [(4, 1, 1, 1, 1, 1, 1), (1,) * 10, (10,), (3, 4, 1, 2)], ids=str)
def test_reading_with_the_cache_equals_reading_everything_anew(chunks, decoder, tiny, held):
    decoder.reset(held())
    position = 0
    for chunk in chunks:
        logits = read(decoder, position, *TOKENS[position : position + chunk])
        position += chunk
        np.testing.assert_allclose(logits, tiny.logits(TOKENS[:position], held()), **CLOSE)


def test_a_reset_empties_the_cache(decoder, tiny, held):
    decoder.reset(held())
    read(decoder, 0, 7, 7, 7)
    decoder.reset(held())
    np.testing.assert_allclose(read(decoder, 0, 1, 2), tiny.logits([1, 2], held()), **CLOSE)


def test_new_held_inputs_take_effect_and_may_have_another_size(decoder, tiny, held):
    for seed, source in ((1, 5), (2, 5), (3, 9), (4, 1)):
        values = held(seed, source)
        decoder.reset(values)
        np.testing.assert_allclose(read(decoder, 0, 1, 2), tiny.logits([1, 2], values), **CLOSE)
        np.testing.assert_allclose(read(decoder, 2, 3), tiny.logits([1, 2, 3], values), **CLOSE)


def test_nothing_needs_to_be_held(decoder, tiny, held):
    decoder.reset()
    feeds = {"input_ids": np.array([[1, 2]]), "position_ids": np.array([[0, 1]]), **held()}
    np.testing.assert_allclose(decoder.run(feeds)["logits"], tiny.logits([1, 2], held()), **CLOSE)


def test_a_fresh_session_has_an_empty_cache(decoder, tiny, held):
    feeds = {"input_ids": np.array([[5]]), "position_ids": np.array([[0]]), **held()}
    np.testing.assert_allclose(decoder.run(feeds)["logits"], tiny.logits([5], held()), **CLOSE)


def test_two_sessions_of_one_artifact_do_not_disturb_each_other(open_graph, tiny, held):
    first, second = open_graph("decoder"), open_graph("decoder")
    first.reset(held(1))
    second.reset(held(2))
    for position, token in enumerate(TOKENS[:4]):
        np.testing.assert_allclose(read(first, position, token), tiny.logits(TOKENS[: position + 1], held(1)), **CLOSE)
        np.testing.assert_allclose(
            read(second, position, token + 1), tiny.logits([t + 1 for t in TOKENS[: position + 1]], held(2)), **CLOSE
        )


def test_a_refused_run_leaves_the_cache_as_it_was(decoder, tiny, held):
    decoder.reset(held())
    read(decoder, 0, 1, 2)
    with pytest.raises(InputError):
        decoder.run({"input_ids": np.array([[3]])})
    np.testing.assert_allclose(read(decoder, 2, 3), tiny.logits([1, 2, 3], held()), **CLOSE)


@pytest.mark.parametrize("name", ["tower", "decoder"])
def test_a_closed_session_refuses_to_run(name, open_graph, held):
    session = open_graph(name)
    session.close()
    session.close()
    with pytest.raises(BackendError, match=f"the session of `{name}` is closed"):
        session.run({})
    with pytest.raises(BackendError, match=f"the session of `{name}` is closed"):
        session.reset()


def test_a_closed_session_leaves_another_one_alone(open_graph, tiny, held):
    first, second = open_graph("decoder"), open_graph("decoder")
    second.reset(held())
    first.close()
    np.testing.assert_allclose(read(second, 0, 4), tiny.logits([4], held()), **CLOSE)


def threads_of(session) -> int:
    """As the engine itself reports it."""
    if hasattr(session, "_request"):
        return session._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
    return session._engine.get_session_options().intra_op_num_threads


def test_the_number_of_threads_is_honoured(open_graph):
    assert threads_of(open_graph("tower", threads=1)) == 1
    assert threads_of(open_graph("tower")) == usable_cores()


def test_nothing_is_printed(decoder, held, capfd):
    decoder.reset(held())
    read(decoder, 0, 1, 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None], ids=["empty", "garbage", "missing"])
@pytest.mark.parametrize("step", ["open", "compile"])
def test_a_file_that_the_engine_refuses_is_told_in_one_line(
    step, damage, backend, artifact, tower_graph, tmp_path, capfd
):
    file = tmp_path / (artifact(tower_graph).name if step == "open" else "tower.onnx")
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(BackendError) as caught:
        backend.open(tower_graph, file if step == "open" else backend.compile(tower_graph, file, tmp_path))
    assert caught.value.exit_code == 5
    assert "`tower`" in caught.value.message
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    assert capfd.readouterr() == ("", "")
