import numpy as np
import pytest
from msgspec.structs import replace

from mmedge.core.bundle import Graph
from mmedge.core.family import Family, Prompt
from mmedge.core.ports import Port, Span
from mmedge.errors import BundleError, ContextError, QualityError, UsageError
from mmedge.runtime.encoder import TOGETHER, Encoder, stacked, width_of

EMBEDS = Port("text_embeds", "float32", ("batch", 2))
TEXT = Graph(
    "text",
    "graphs/text.onnx",
    (Port("text_ids", "int64", ("batch", "text_length")),),
    (EMBEDS,),
    "float32",
    profiles=({"batch": Span(1, 1, 32), "text_length": Span(1, 4, 6)},),
)


class Sums:
    """A text is embedded to the sum of its letters and to its length; how many at once is noted."""

    def __init__(self, graph=TEXT, value=1.0):
        self.graphs = (graph,)
        self.value = value
        self.batches = []

    def encode(self, prompt):
        ids = prompt.feeds["text_ids"]
        self.batches.append(len(ids))
        return {"text_embeds": np.stack([ids.sum(1), (ids > 0).sum(1)], -1).astype(np.float32) * self.value}


def letters(config, tokenizer, request):
    return Prompt({"text_ids": np.array([[ord(letter) for letter in request.text]], np.int64)})


def encoder(engine) -> Encoder:
    nothing = lambda *_: ()  # noqa: E731
    family = Family(name="letters", architectures=(), tasks=nothing, components=nothing, prepare=letters, tiny=())
    return Encoder(family, {}, None, engine, ("embed",), {"text": "numpy"})


def test_texts_of_several_lengths_are_filled_up_and_keep_their_order():
    found = encoder(Sums()).texts(["ab", "c", "def"])
    assert found.tolist() == [[195.0, 2.0], [99.0, 1.0], [303.0, 3.0]]


def test_many_are_embedded_a_few_at_a_time():
    engine = Sums()
    assert encoder(engine).texts(["a"] * (2 * TOGETHER + 3)).shape == (2 * TOGETHER + 3, 2)
    assert engine.batches == [TOGETHER, TOGETHER, 3]


def test_no_more_at_once_than_the_bundle_was_made_for():
    engine = Sums(replace(TEXT, profiles=({"batch": Span(1, 1, 3), "text_length": Span(1, 4, 6)},)))
    encoder(engine).texts(["a"] * 7)
    assert engine.batches == [3, 3, 1]


def test_a_text_longer_than_the_bundle_was_made_for_is_refused():
    with pytest.raises(ContextError, match="`text_ids` is 7 long, this bundle has room for 6"):
        encoder(Sums()).texts(["abcdefg"])


def test_of_nothing_there_are_no_rows():
    assert encoder(Sums()).texts([]).shape == (0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_an_error_and_names_the_engine(value):
    with pytest.raises(QualityError, match="the embeddings of `text` are not finite on numpy"):
        encoder(Sums(value=value)).texts(["a"])


def test_what_a_bundle_does_not_embed_is_told():
    with pytest.raises(UsageError, match="does not embed `image`"):
        encoder(Sums()).images([b""])


def test_feeds_of_one_length_are_only_put_together():
    found = stacked([{"x": np.ones((1, 3, 2))}, {"x": np.zeros((1, 3, 2))}])
    assert found["x"].shape == (2, 3, 2)


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (Port("logits", "float32", ("batch", 2)),),
        (Port("text_embeds", "float32", ("batch",)),),
        (Port("text_embeds", "float32", ("batch", "width")),),
        (EMBEDS, Port("image_embeds", "float32", ("batch", 3))),
    ],
)
def test_graphs_that_make_no_embeddings_of_one_width_are_refused(outputs):
    with pytest.raises(BundleError, match="do not make embeddings of one width"):
        width_of([replace(TEXT, outputs=outputs)])
