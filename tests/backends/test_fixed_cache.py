"""A decoder with a cache of fixed length on every engine; the expected numbers come from numpy.

On a machine that has TensorRT and a GPU, these are the tests that run on it. Everywhere its doubles stand in.
"""

from importlib.util import find_spec

import numpy as np
import pytest
from mmedge_doubles.install import installed

from mmedge.core import find
from mmedge.errors import InputError

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
CLOSE = {"rtol": 0, "atol": 1e-5}
ENGINES = ("onnxruntime", "openvino", "tensorrt")


@pytest.fixture(params=[*ENGINES, "double of tensorrt"])
def backend(request):
    if request.param not in ENGINES:
        with installed("10.3"):
            yield find.backend("tensorrt")
    elif find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    else:
        yield find.backend(request.param)


@pytest.fixture
def fixed(backend, fixed_source, tmp_path):
    graph, source = fixed_source()
    artifact = backend.compile(graph, source, tmp_path) if backend.compiles(graph) else source
    session = backend.open(graph, artifact)
    yield session
    session.close()


def step(position, *tokens):
    positions = np.arange(position, position + len(tokens))
    return {"input_ids": np.array([tokens]), "position_ids": positions[None]}


@pytest.mark.parametrize("chunks", [(4, 1, 1, 1, 1, 1, 1), (1,) * 10, (10,), (3, 4, 1, 2)], ids=str)
def test_reading_in_chunks_equals_reading_everything_anew(chunks, fixed, tiny, held):
    fixed.reset(held())
    position = 0
    for chunk in chunks:
        outputs = fixed.run(step(position, *TOKENS[position : position + chunk]))
        position += chunk
        expected = tiny.logits(TOKENS[:position], held())
        np.testing.assert_allclose(outputs["logits"], expected, **CLOSE)
        assert outputs["token"].tolist() == [[expected.argmax()]]


def test_a_reset_empties_the_cache_even_of_what_is_no_number(fixed, tiny, held):
    spoiled = {name: np.full_like(tensor, np.nan) for name, tensor in held().items()}
    fixed.reset(spoiled)
    assert np.isnan(fixed.run(step(0, 7, 7, 7))["logits"]).all()
    fixed.reset(held())
    np.testing.assert_allclose(fixed.run(step(0, 1, 2))["logits"], tiny.logits([1, 2], held()), **CLOSE)


def test_a_full_cache_refuses_more_and_stays_as_it_was(fixed, tiny, held):
    fixed.reset(held())
    fixed.run(step(0, *TOKENS))
    with pytest.raises(InputError, match="the cache has 16 slots, 10 are in use: no room for 7 more tokens"):
        fixed.run(step(10, *TOKENS[:7]))
    expected = tiny.logits([*TOKENS, 8, 8, 8, 8, 8, 8], held())
    np.testing.assert_allclose(fixed.run(step(10, 8, 8, 8, 8, 8, 8))["logits"], expected, **CLOSE)
    with pytest.raises(InputError, match="16 are in use"):
        fixed.run(step(16, 1))


def test_only_the_outputs_asked_for_are_returned(fixed, held):
    fixed.reset(held())
    assert list(fixed.run(step(0, 1, 2), ["token"])) == ["token"]
    assert list(fixed.run(step(2, 1), ["logits"])) == ["logits"]
    assert fixed.run(step(3, 1), []) == {}
    assert sorted(fixed.run(step(4, 1))) == ["logits", "token"]


def test_an_output_that_is_none_is_refused(fixed, held):
    fixed.reset(held())
    with pytest.raises(InputError, match="`decoder` has no output `probabilities`"):
        fixed.run(step(0, 1), ["token", "probabilities"])


def test_what_the_session_makes_itself_is_no_input(fixed, held):
    fixed.reset(held())
    for name, tensor in (("cache_position", np.array([0])), ("attention_bias", np.zeros((1, 1, 1, 16), np.float32))):
        with pytest.raises(InputError, match=f"`decoder` has no input `{name}`"):
            fixed.run({**step(0, 1), name: tensor})


def test_a_cache_of_halves_is_kept_in_halves(backend, fixed_source, tmp_path, tiny, held):
    graph, source = fixed_source("float16")
    artifact = backend.compile(graph, source, tmp_path) if backend.compiles(graph) else source
    session = backend.open(graph, artifact)
    session.reset(held())
    for position, token in enumerate(TOKENS):
        logits = session.run(step(position, token))["logits"]
    expected = tiny.logits(TOKENS, held())
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-3)
    assert np.abs(logits - expected).max() > 1e-5
    session.close()


def test_tokens_fed_back_are_those_that_numpy_chooses(fixed, tiny, held):
    fixed.reset(held())
    read, token = [1, 2], fixed.run(step(0, 1, 2), ["token"])["token"]
    while len(read) < 14:
        assert token.tolist() == [[tiny.logits(read, held()).argmax()]]
        read.append(int(token[0, 0]))
        token = fixed.run({"input_ids": token, "position_ids": np.array([[len(read) - 1]])}, ["token"])["token"]
