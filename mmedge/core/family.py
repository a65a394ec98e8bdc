"""What a family file says about one kind of model: its graphs, its inputs, its answers.

Values flow between graphs by name: the outputs of a component feed the inputs of the same name of later ones. A
component that takes ``input_ids`` or ``position_ids`` runs at every decoding step; all others run once an answer.
So a new kind of model needs no change outside its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from msgspec import Struct

from mmedge.core.ports import CacheShape, Port, Span, Tensors

if TYPE_CHECKING:
    from mmedge.media.text import Tokenizer

Config: TypeAlias = Mapping[str, Any]
"""Parsed JSON files of a checkpoint by what they configure: ``model``, ``image``, ``text``, ``generation``."""

STEP_INPUTS = ("input_ids", "position_ids")
"""Inputs that change at every decoding step, int64 ``[1, length]``."""


class Cache(Protocol):
    """The keys and values that a decoder's ``forward`` reads and adds to, growing or of a fixed length."""

    def update(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Add this step's key and value, ``[1, heads, length, head_dim]``; gives all those to attend to."""
        ...

    def bias(self, position_ids: Any) -> Any:
        """What causal attention adds to its scores, ``[1, 1, length, all]``: 0 or a large negative number.

        ``position_ids`` are the places of this step's tokens in the cache, int64 ``[1, length]``.
        """
        ...


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

    @property
    def role(self) -> str:
        """``decode`` for the graph that is run once a token, ``tower`` for the others."""
        return "decode" if self.cache else "tower"


class Request(Struct, frozen=True):
    """What a user asks: pictures as uint8 ``[height, width, 3]``, and a text."""

    images: tuple[np.ndarray, ...] = ()
    text: str | None = None


class Prompt(Struct, frozen=True):
    """A request as numbers: what the graphs are fed and when the answer ends."""

    feeds: Tensors
    """Inputs of the components that run once."""
    tokens: np.ndarray
    """int64 ``[length]``: what the decoder reads before it writes."""
    stop: tuple[int, ...]
    """Any of these ends the answer and is not part of it."""
    capacity: int
    """Positions the decoder has for prompt and answer together."""


@dataclass(frozen=True)
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
    """numpy only."""
    generate: Callable[[Any, Any, Request, int], list[int]]
    """``generate(model, processor, request, limit)``: the tokens of the checkpoint's own greedy `generate`, without
    the prompt and the stop token; what exports are judged by, called only while exporting."""
    tiny: tuple[Config, ...]
    """Model configs so small that tests export them in seconds, one per architecture."""
