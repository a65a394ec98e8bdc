"""Graphs against torch: numbers per component on the very same inputs, then answers end to end.

The torch components drive and the graphs run alongside, so a graph is judged on its own error and not on what an
earlier one handed it. The answers are judged by the checkpoint's own `generate`, which knows nothing of our graphs:
a mistake in a family's spelling of the model shows there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmedge.core.backend import Session
from mmedge.core.bundle import Graph
from mmedge.core.family import Component, Prompt
from mmedge.core.plan import Plan
from mmedge.core.ports import Tensors
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.similarity import Similarity
from mmedge.errors import QualityError
from mmedge.export.cache import GrowingCache, empty_cache
from mmedge.export.examples import Example
from mmedge.runtime.decode import decode, picking
from mmedge.runtime.encoder import TOGETHER, stacked
from mmedge.runtime.engine import Engine, arranging
from mmedge.runtime.model import Model
from mmedge.runtime.pick import greedy
from mmedge.runtime.pipeline import Pipeline

LIMIT = 16
"""Tokens of an answer while judging."""


class TorchSession:
    """A component run by torch, as a session: what graphs are compared with."""

    def __init__(self, component: Component, model: torch.nn.Module) -> None:
        self.component = component
        self.model = model
        self.held: Tensors = {}
        self.cache: GrowingCache | None = None
        self.reset()

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        component, values = self.component, {**self.held, **feeds}
        inputs = [torch.from_numpy(values[port.name]) for port in component.inputs]
        with torch.inference_mode():
            if shape := component.cache:
                self.cache = GrowingCache(self.cache.pairs) if self.cache else empty_cache(shape)
                made = component.forward(self.model, *inputs, cache=self.cache)
            else:
                made = component.forward(self.model, *inputs)
        named = {port.name: tensor.numpy() for port, tensor in zip(component.outputs, made, strict=True)}
        return {name: tensor for name, tensor in named.items() if outputs is None or name in outputs}

    def reset(self, held: Tensors | None = None) -> None:
        self.held, self.cache = held or {}, None

    def close(self) -> None:
        self.reset()


@dataclass
class Score:
    """The worst that one component did."""

    component: str
    precision: str
    max_abs: float = -1.0
    farthest: str = ""
    cosine: float = 2.0
    worst: str = ""
    samples: set[str] = field(default_factory=set)

    def add(self, want: np.ndarray, got: np.ndarray, example: str, port: str) -> None:
        """
        Raises:
            QualityError: one of them has values that are not finite, which no bound could judge.
        """
        for tensor, whose in ((want, "torch gives"), (got, "the graph gives")):
            if not np.isfinite(tensor).all():
                raise QualityError(
                    f"`{self.component}` in {self.precision}: {whose} values that are not finite on {example} ({port})"
                )
        self.samples.add(example)
        if (max_abs := float(np.abs(want - got).max(initial=0.0))) > self.max_abs:
            self.max_abs, self.farthest = max_abs, f"{example} ({port})"
        if (cosine := _cosine(want, got)) < self.cosine:
            self.cosine, self.worst = cosine, f"{example} ({port})"

    def result(self) -> Agreement:
        """
        Raises:
            QualityError: the component never ran.
        """
        if not self.samples:
            raise QualityError(f"`{self.component}` was not run on any of the samples it is judged by")
        return Agreement(
            self.component, self.precision, self.max_abs, self.cosine, self.worst, len(self.samples), self.farthest
        )


class ComparedSession:
    """Runs torch and the graph on the same feeds, scores the graph, and hands on what torch said."""

    def __init__(self, reference: TorchSession, sessions: Sequence[Session], graph: Graph, score: Score) -> None:
        self.reference = reference
        self.sessions = sessions
        self.score = score
        self.example = ""
        self._kinds = {port.name: port.dtype for port in graph.inputs}

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        want = self.reference.run(feeds, outputs)
        for session in self.sessions:
            got = session.run(self._as_read(feeds), outputs)
            for port, tensor in want.items():
                self.score.add(tensor, got[port], self.example, port)
        return want

    def reset(self, held: Tensors | None = None) -> None:
        self.reference.reset(held)
        for session in self.sessions:
            session.reset(self._as_read(held or {}))

    def _as_read(self, tensors: Tensors) -> Tensors:
        """Torch's float32 as the graph reads it: float16 where the graph before it would have given that."""
        return {name: tensor.astype(self._kinds.get(name, tensor.dtype)) for name, tensor in tensors.items()}

    def close(self) -> None:
        self.reference.close()


def compare_graphs(
    plan: Plan,
    model: Any,
    pipeline: Pipeline,
    examples: Sequence[Example],
    others: Mapping[str, Session] | None = None,
) -> tuple[Agreement, ...]:
    """Every graph against its torch component, over whole answers of at most `LIMIT` tokens; ``others`` are sessions of
    other spellings of a component, compared as well."""
    graphs = {graph.component: graph for graph in pipeline.engine.graphs}
    compared = {
        component.name: ComparedSession(
            TorchSession(component, model),
            [pipeline.engine.sessions[component.name], *_one(others, component.name)],
            graphs[component.name],
            Score(component.name, plan.choices[component.name].precision),
        )
        for component in plan.components
    }
    engine = Engine(pipeline.engine.graphs, dict(compared), arranging(plan.family, plan.config))
    for example in examples:
        for session in compared.values():
            session.example = example.name
        prompt = pipeline.prepare(example.request())
        answer_greedily(engine, prompt, engine.encode(prompt))
    return tuple(session.score.result() for session in compared.values())


def _one(others: Mapping[str, Session] | None, component: str) -> tuple[Session, ...]:
    return (others[component],) if others and component in others else ()


def compare_answers(plan: Plan, model: Any, processor: Any, pipeline: Pipeline, examples: Sequence[Example]) -> Answers:
    """Greedy tokens of the bundle against those of the checkpoint's own `generate`."""
    generate = plan.family.generate
    assert generate, f"`{plan.family.name}` writes nothing"
    equal, worst = 0, ""
    for example in examples:
        request = example.request()
        prompt = pipeline.prepare(request)
        limit = _limit(prompt)
        want = generate(model, processor, request, limit)
        got = [piece.token for piece in pipeline.stream(prompt, limit=limit) if piece.token is not None]
        if got == want:
            equal += 1
        elif not worst:
            worst = f"{example.name}: `{pipeline.tokenizer.decode(got)}`, torch `{pipeline.tokenizer.decode(want)}`"
    return Answers(equal, len(examples), worst)


def compare_outputs(
    plan: Plan,
    model: Any,
    processor: Any,
    opened: Model,
    examples: Sequence[Example],
    labels: np.ndarray | None = None,
) -> Answers:
    """Outputs of the bundle against those of the checkpoint's own forward pass; an answer is which of the ``labels`` a
    picture is most like, float32 ``[labels, width]``, or which text of those of all examples.

    Raises:
        QualityError: an output is farther from torch than the recipe accepts.
    """
    reference, similarity = plan.family.reference, plan.family.similarity
    assert reference and similarity, f"`{plan.family.name}` has nothing to be compared with"
    score, wanted, found = Score("all", plan.precision), list[Tensors](), list[Tensors]()
    for example in examples:
        request = example.request()
        wanted.append(reference(model, processor, request))
        found.append(opened.engine.encode(opened.prepare(request)))
        for name, want in wanted[-1].items():
            score.add(want, found[-1][name], example.name, name)
    for name, got in _at_once(opened, examples).items():
        if name in wanted[0]:
            score.add(np.concatenate([each[name] for each in wanted[: len(got)]]), got, "several at once", name)
    judge_agreement(plan.accept, score.result())
    names, scores = tuple(wanted[0]), similarity(model)
    best, ours = (_most_alike(scores, each, names, labels) for each in (wanted, found))
    other = [example.name for example, one, two in zip(examples, best, ours, strict=True) if one != two]
    return Answers(len(examples) - len(other), len(examples), f"{other[0]} is like another text" if other else "")


def _at_once(opened: Model, examples: Sequence[Example]) -> Tensors:
    """What is made of as many of the first examples as a device embeds at once."""
    spans = [each["batch"].largest for graph in opened.engine.graphs for each in graph.profiles if "batch" in each]
    prompts = [opened.prepare(example.request()) for example in examples[: min([TOGETHER, *spans])]]
    return opened.engine.encode(Prompt(stacked([prompt.feeds for prompt in prompts])))


def _most_alike(
    similarity: Similarity, embedded: Sequence[Tensors], names: Sequence[str], labels: np.ndarray | None
) -> list[int]:
    """Of each example's first embedding, the label, or the example whose second one, it is most like."""
    one, *others = (np.concatenate([tensors[name] for tensors in embedded]) for name in names)
    nearest: list[int] = similarity.logits(one, others[0] if labels is None else labels).argmax(-1).tolist()
    return nearest


def compare_preprocessing(pipeline: Pipeline, processor: Any, examples: Sequence[Example]) -> float:
    """Largest difference of our pre-processed pictures to those of the checkpoint's processor, before normalising; of
    sounds in the unit of their features."""
    deviation = float(np.max(pipeline.config["image"].get("image_std") or 1.0))
    worst = 0.0
    for example in examples:
        request = example.request()
        prompt = pipeline.prepare(request)
        theirs = pipeline.family.pixels or _pixels
        subject: Any = (*request.images, *request.sounds)[0]
        for want, got in zip(theirs(processor, subject), prompt.looks or (prompt.feeds,), strict=True):
            shared = [name for name in want if name in got]
            worst = max(worst, *(float(np.abs(want[name] - got[name]).max()) * deviation for name in shared))
    return worst


def _pixels(processor: Any, pixels: np.ndarray) -> tuple[Tensors, ...]:
    made = processor.image_processor(pixels, input_data_format="channels_last", return_tensors="np")
    return ({name: np.asarray(made[name]) for name in made},)


def judge(plan: Plan, agreement: Sequence[Agreement], answers: Answers) -> None:
    """Fail the export that lost more than the recipe accepts.

    Raises:
        QualityError: naming the component, the number, the bound and the worst sample.
    """
    accept = plan.accept
    for seen in agreement:
        judge_agreement(accept, seen)
    if answers.share < accept.answers:
        raise QualityError(
            f"{answers.equal} of {answers.total} answers are those of torch, the recipe accepts a share of "
            f"{accept.answers:g}; {answers.worst}",
            hint="choose a finer precision for a component, or lower `accept.answers` in a recipe if this will do",
        )


def judge_agreement(accept: Acceptance, seen: Agreement) -> None:
    """
    Raises:
        QualityError: it is less than is accepted.
    """
    if not seen.cosine >= accept.cosine:
        raise QualityError(
            f"`{seen.component}` in {seen.precision} has a cosine of {seen.cosine:.5f} to torch, "
            f"the recipe accepts {accept.cosine:g}; worst on {seen.worst}",
            hint=f"give `{seen.component}` a finer precision in a recipe, or more calibration samples",
        )
    if accept.max_abs is not None and not seen.max_abs <= accept.max_abs:
        raise QualityError(
            f"`{seen.component}` in {seen.precision} differs from torch by {seen.max_abs:.3g}, "
            f"the recipe accepts {accept.max_abs:g}; worst on {seen.farthest}",
            hint="raise `accept.max_abs` in a recipe if this will do",
        )


def answer_greedily(engine: Engine, prompt: Prompt, values: Tensors) -> None:
    """Run an answer of at most `LIMIT` tokens, from what was encoded; none of a model that writes nothing."""
    if not engine.each_step:
        return
    engine.begin(values)
    for _ in decode(picking(engine.step, greedy), prompt, limit=_limit(prompt)):
        pass


def _limit(prompt: Prompt) -> int:
    """Of tokens: the checkpoint's own `generate` crashes past its last position."""
    return min(LIMIT, prompt.capacity - len(prompt.tokens))


def _cosine(want: np.ndarray, got: np.ndarray) -> float:
    a, b = want.ravel().astype(np.float64), got.ravel().astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else float(np.array_equal(a, b))
