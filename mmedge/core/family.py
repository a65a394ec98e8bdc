"""What a family file says about one kind of model: its graphs, its inputs, its answers.

Values flow between graphs by name: the outputs of a component feed the inputs of the same name of later ones. A
component that takes one of `STEP_INPUTS` runs at every decoding step; all others run once an answer, or once for each
of the prompt's ``looks``. So a new kind of model needs no change outside its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from msgspec import Struct

from mmedge.core.ports import CacheShape, Port, Span, Tensors
from mmedge.core.similarity import Similarity

if TYPE_CHECKING:
    from mmedge.media.text import Tokenizer

Config: TypeAlias = Mapping[str, Any]
"""Parsed JSON files of a checkpoint by what they configure: ``model``, ``image``, ``text``, ``generation``."""

STEP_INPUTS = ("input_ids", "position_ids", "logits_at")
"""Inputs that change at every decoding step: int64 ``[1, length]``, where positions may have several axes before; and
int64 ``[asked]``, the places in the step whose logits are asked for."""

MODALITIES = {"image": "pictures", "text": "texts", "audio": "sounds", "video": "videos"}
"""What a request can hold, and how people call it."""

NO_TOKENS = np.zeros(0, np.int64)


class Heads(NamedTuple):
    """The form of an attention."""

    queries: int
    keys: int
    """Fewer where several queries share a key."""
    dim: int
    scale: float
    window: int = 0
    cap: float = 0.0
    """Of the scores; 0 for none."""


class Cache(Protocol):
    """The keys and values that a decoder's ``forward`` reads and adds to, growing or of a fixed length."""

    def update(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Add this step's key and value, ``[1, heads, length, head_dim]``; gives all those to attend to."""
        ...

    def bias(self, length: Any, *, blocks: Any = None, window: int = 0, strict: bool = False) -> Any:
        """What causal attention adds to its scores, ``[1, 1, length, all]``: 0 or a large negative number.

        ``length`` is that of this step. Tokens of the step that have the same number above 0 in ``blocks``, int64
        ``[1, length]``, see each other whatever their order. With a ``window`` a token sees no farther back than that;
        tokens of its own block it sees all the same unless the window is ``strict``.
        """
        ...

    def fused(self, layer: int, query: Any, key: Any, value: Any, heads: Heads, tables: Any = None) -> Any:
        """Causal attention ``[1, length, heads * head_dim]`` by an operator of the engine's own that also adds the new
        key and value; None where the cache has none, and attention is to be spelled with `update` and `bias`.

        All are ``[1, length, heads * head_dim]``; or ``query`` is all three side by side, not rotated yet, the others
        None, and ``tables`` are cosines and sines by position, ``[positions, head_dim / 2]`` each.
        """
        ...


def role_of(inputs: Iterable[Port], cache: CacheShape | None) -> str:
    """``decode`` for graphs that are run once a token, ``tower`` for the others."""
    return "decode" if cache or any(port.name in STEP_INPUTS for port in inputs) else "tower"


@dataclass(frozen=True)
class Component:
    """A part of a model that becomes one graph.

    ``forward(model, *inputs)`` returns the outputs in order; with a cache it is called with ``cache=cache`` too and
    updates that `Cache` for every layer. It is called only while exporting, so a family needs torch inside its
    functions alone.
    """

    name: str
    forward: Callable[..., Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    cache: CacheShape | None = None
    sizes: Mapping[str, Span] = field(default_factory=dict)
    """Ranges of the sizes that vary, by the words in the shapes of the ports; of a cache ``total``, the longest it may
    get. Needed by engines that are built for a range."""
    causal: bool = False
    """Whether attention to the cache is causal throughout and asks it for `Cache.fused`, so that engines may use an
    attention of their own that can do nothing else."""

    @property
    def role(self) -> str:
        """``decode`` for graphs that are run once a token, ``tower`` for the others."""
        return role_of(self.inputs, self.cache)


class Sound(Struct, frozen=True):
    """A recording with one channel: ``samples`` is float32 ``[length]`` from -1 to 1, ``rate`` of them a second."""

    samples: np.ndarray
    rate: int


class Turn(Struct, frozen=True):
    """What was asked before in the same conversation, and what was answered."""

    images: tuple[np.ndarray, ...] = ()
    text: str | None = None
    answer: str = ""


class Request(Struct, frozen=True):
    """What a user asks: pictures as uint8 ``[height, width, 3]``, and a text; before it, what was said already."""

    images: tuple[np.ndarray, ...] = ()
    text: str | None = None
    earlier: tuple[Turn, ...] = ()
    frames: tuple[np.ndarray, ...] = ()
    """Of one video, in order, beside the pictures; for families that can look at one."""
    frame_seconds: tuple[float, ...] = ()
    """When each of ``frames`` is shown, from the beginning of the video; empty where nobody knows."""
    sounds: tuple[Sound, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said already, and at last what is asked now."""
        return (*self.earlier, Turn(self.images, self.text))


class Insertion(Struct, frozen=True):
    """Rows that stand in for tokens of the prompt, such as those of a picture."""

    value: str
    """Made by a component that runs once: float32 ``[rows, width]``."""
    into: str
    """Input of a component that runs at every step, ``[1, length, width]``: zeros but for these rows unless an earlier
    component of the step makes it."""
    places: np.ndarray
    """int64 ``[rows]``: which tokens of the prompt."""
    first: int = 0
    """Row of the value that goes to the first place; those before are in the cache already."""


class Prompt(Struct, frozen=True):
    """A request as numbers: what the graphs are fed and when the answer ends."""

    feeds: Tensors
    """Inputs of the components that run once."""
    tokens: np.ndarray = NO_TOKENS
    """int64 ``[length]``: what the decoder reads before it writes; empty for models that write nothing."""
    stop: tuple[int, ...] = ()
    """Any of these ends the answer and is not part of it."""
    capacity: int = 0
    """Positions the decoder has for prompt and answer together."""
    looks: tuple[Tensors, ...] = ()
    """What the components that run once are fed one after the other, such as tiles of a picture; their outputs are put
    together along the first axis."""
    insertions: tuple[Insertion, ...] = ()
    positions: np.ndarray | None = None
    """int64 ``[1, length]``, or of several axes ``[axes, 1, length]``, where they are not 0, 1, 2...; those of the
    answer go on after the largest."""
    along: Tensors = {}
    """Other inputs of a step by name, ``[1, length]`` for the prompt; 0 for every token of the answer."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model; the file is named as the checkpoint's ``model_type`` and ends in ``FAMILY = Family(...)``."""

    name: str
    architectures: tuple[str, ...]
    """``transformers`` classes it can export, as named in a checkpoint's ``architectures``."""
    tasks: Callable[[Config], tuple[str, ...]]
    """What the checkpoint can be asked for: ``caption``, ``ask``."""
    components: Callable[[Config], tuple[Component, ...]]
    """The graphs, in the order they run."""
    prepare: Callable[[Config, Tokenizer, Request], Prompt]
    """numpy only. Of all that a `Request` can hold it refuses what the model cannot look at."""
    generate: Callable[[Any, Any, Request, int], list[int]] | None = None
    """``generate(model, processor, request, limit)``: the tokens of the checkpoint's own greedy `generate`, without
    the prompt and the stop token; what exports are judged by, called only while exporting. None for models that write
    nothing, which have a ``reference``."""
    reference: Callable[[Any, Any, Request], Tensors] | None = None
    """``reference(model, processor, request)``: outputs of the checkpoint's own forward pass by the names they have in
    the graphs; what exports of models that write nothing are judged by, called only while exporting."""
    similarity: Callable[[Any], Similarity] | None = None
    """``similarity(model)``: how embeddings of two modalities are compared; called only while exporting."""
    reads: Callable[[Config], tuple[str, ...]] = lambda config: ("image", "text")
    """The modalities of a request: ``image``, ``text``, ``audio``, ``video``."""
    tiny: tuple[Config, ...]
    """Model configs so small that tests export them in seconds, one per architecture."""
    pixels: Callable[[Any, Any], tuple[Tensors, ...]] | None = None
    """``pixels(processor, picture)``: what the checkpoint's own processor makes of a picture, or of a `Sound`, in the
    form of a prompt's looks, where that is not what it gives; called only while exporting."""
    arrange: Callable[[Config, Prompt, list[Tensors]], Tensors] | None = None
    """What to make of the outputs for each of the prompt's looks where putting them together is not all, numpy only."""
