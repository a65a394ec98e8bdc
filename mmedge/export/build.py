"""Recipe to bundle, one stage after the other; each takes a value and returns a value."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnx_ir
from onnxscript.optimizer import fold_constants

from mmedge.core import find
from mmedge.core.backend import Session
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.family import MODALITIES, Prompt
from mmedge.core.names import readable
from mmedge.core.plan import Plan
from mmedge.core.recipe import Calibration, ComponentPlan
from mmedge.core.report import Agreement, Answers, Report
from mmedge.core.samples import Sample, choose_samples
from mmedge.core.similarity import SUFFIX
from mmedge.core.writing import Draft, check_space, new_bundle
from mmedge.errors import UsageError
from mmedge.export.agree import (
    answer_greedily,
    compare_answers,
    compare_graphs,
    compare_outputs,
    compare_preprocessing,
    judge,
)
from mmedge.export.calibrate import Recorder, Recording, record
from mmedge.export.check.findings import refuse
from mmedge.export.check.ranges import FOLDER as RANGES
from mmedge.export.check.run import check_graphs
from mmedge.export.check.table import can_scatter
from mmedge.export.decoder import close_decoder
from mmedge.export.estimate import check_builder, too_large
from mmedge.export.examples import TEXTS, Example, hold_out, make_examples, request_of, text_of
from mmedge.export.fetch import fetch_weights
from mmedge.export.forms import ENGINE as FORM_ENGINE
from mmedge.export.forms import has_form, share_weights, trace_form, with_form
from mmedge.export.layout import inner_edges, plan_graph
from mmedge.export.load import Checkpoint, load_model
from mmedge.export.pack import make_manifest, pack_assets, pack_golden, pack_labels
from mmedge.export.prepare import prepare
from mmedge.export.quantize import Quantized, in_half, quantize
from mmedge.export.rounding import has_half, spell_rounding
from mmedge.export.spelling import UNLIMITED
from mmedge.export.stages import Stages, Watcher
from mmedge.export.tidy import tidy, write
from mmedge.export.trace import trace
from mmedge.runtime.classify import Labels, check_templates, embed_labels
from mmedge.runtime.encoder import Encoder
from mmedge.runtime.engine import Engine, arranging
from mmedge.runtime.model import Opened
from mmedge.runtime.pipeline import Pipeline

OWN = "`--calibration FOLDER` with some of your own is safer"

REFERENCE = "onnxruntime"
"""The backend that graphs are judged on while exporting, whatever the target runs them with."""


class Source(NamedTuple):
    """The model to export, loaded."""

    checkpoint: Checkpoint
    model: Any


class Judgement(NamedTuple):
    """How far the bundle is from torch."""

    agreement: tuple[Agreement, ...]
    answers: Answers
    preprocess_max_abs: float


def export(
    model: str | None = None,
    *,
    output: Path | str,
    target: str | None = None,
    precision: str | None = None,
    recipe: Path | str | None = None,
    calibration: Path | str | None = None,
    labels: Path | str | None = None,
    templates: Sequence[str] = (),
    force: bool = False,
    allow_nonfinite: bool = False,
    skip_bad: float = 0.0,
    watcher: Watcher | None = None,
) -> Report:
    """Export ``model`` (a folder, a Hub name or ``builtin:NAME``) to the bundle ``output``.

    Without ``recipe``, the one that ships for this model is taken if there is one; the other arguments, and ``model``,
    replace single fields of it. With a file of ``labels``, one a line, a model that embeds becomes a classifier of
    pictures; ``templates`` make texts of them (`core.recipe.LabelSet`). ``skip_bad`` is the share of calibration
    samples that may be unreadable. Interrupted, torch may go on tracing in the background for a while; a later export
    waits for that.

    Raises:
        MmedgeError: its children say what is wrong; nothing is left behind.
    """
    stages = Stages(watcher)
    if not 0 <= skip_bad < 1:
        raise UsageError(f"`--skip-bad` is {skip_bad:g}, expected a share from 0 to below 1")
    with stages.stage("plan") as note:
        checkpoint, plan, samples, names, costs, found = prepare(
            model,
            recipe,
            target=target,
            precision=precision,
            calibration=calibration,
            labels=labels,
            templates=templates,
        )
        if problem := too_large(costs, plan.target):
            raise problem
        check_builder(costs)
        if found:
            note(f"recipe {found.stem}")
        note(", ".join(f"{name} {choice.precision}" for name, choice in plan.choices.items()))
    with new_bundle(Path(output), force=force, source=checkpoint.folder) as draft:
        if not checkpoint.weights_bytes:
            with stages.stage("fetch"):
                fetch_weights(plan.recipe.model, checkpoint.folder)
        check_space(Path(output), 3 * checkpoint.weights_bytes)
        work = draft.folder / "work"
        work.mkdir()
        judged, rest, few = hold_out(samples)
        examples = make_examples(judged, plan.tasks, work, skip_bad=skip_bad > 0, rate=_rate(plan))
        source = _load(stages, checkpoint, allow_nonfinite)
        traced = [_trace(stages, plan, source, index, work) for index in range(len(plan.components))]
        classes = _embed_labels(stages, plan, source, traced, names, work) if names else None
        if classes:
            plan = plan.without_texts()
            traced = [graph for graph in traced if graph.component in plan.choices]
        rest = rest or tuple(example.sample() for example in examples)
        feeds, doubts = _calibrate(stages, plan, source, traced, rest, work, skip_bad)
        graphs, warnings = _quantize(stages, plan, traced, feeds, work, draft.folder)
        if feeds and not samples:
            doubts = (
                *doubts,
                f"float16 keeps in float32 what was large on {len(rest)} drawn {MODALITIES[plan.modality]}: {OWN}",
            )
        warnings += (*((*doubts, *few) if feeds else ()), *_check(stages, plan, graphs, draft.folder))
        files = _judged_files(graphs, draft.folder, work)
        judgement = _judge(stages, plan, source, graphs, files, examples, classes)
        bundle = _pack(stages, plan, source, graphs, files, examples, judgement, warnings, classes, draft)
    return Report(
        readable(str(bundle.path)), tuple(stages.done), judgement.agreement, judgement.answers, tuple(warnings)
    )


def _load(stages: Stages, checkpoint: Checkpoint, allow_nonfinite: bool) -> Source:
    with stages.stage("load"):
        return Source(checkpoint, load_model(checkpoint, allow_nonfinite=allow_nonfinite))


def _rate(plan: Plan) -> int:
    """Of the sounds that the model hears; 0 for one that sees pictures."""
    return int(plan.config["audio"]["sampling_rate"]) if plan.modality == "audio" else 0


def _trace(stages: Stages, plan: Plan, source: Source, index: int, work: Path) -> Graph:
    component = plan.components[index]
    path = work / f"{component.name}.onnx"
    with stages.stage(f"trace {component.name}") as note:
        program = trace(component, source.model, plan.target.opset)
        # Exporters leave products of weights, such as joined ones, to be computed on the device if they are large.
        fold_constants(program, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
        if component.cache and component.cache.capacity:
            close_decoder(program, plan.target.contiguous_mb, scatter=can_scatter(plan.target))
        program = tidy(program)
        note(f"{_nodes(program)} nodes")
        write(program, path)
    graph = plan_graph(component)
    if not has_form(component, plan):
        return graph
    with stages.stage(f"trace {component.name} for {FORM_ENGINE}"):
        graph = with_form(graph, component)
        trace_form(component, source.model, work / Path(graph.forms[FORM_ENGINE].file).name, plan.target.opset)
    return graph


def _embed_labels(
    stages: Stages, plan: Plan, source: Source, traced: Sequence[Graph], names: Sequence[str], work: Path
) -> Labels:
    """By the float graphs, whatever the device is going to have."""
    labels = plan.recipe.labels
    assert labels and plan.family.similarity
    files = {graph.component: work / Path(graph.file).name for graph in traced}
    with stages.stage("labels") as note, _opened_model(Encoder, plan, source, traced, files) as encoder:
        note(f"{len(names)} labels")
        return embed_labels(encoder, names, check_templates(labels.templates))


def _calibrate(
    stages: Stages,
    plan: Plan,
    source: Source,
    traced: Sequence[Graph],
    samples: Sequence[Sample],
    work: Path,
    skip_bad: float,
) -> tuple[dict[str, Recording], tuple[str, ...]]:
    """What components are really fed while the float graphs answer the samples, and reasons to doubt it."""
    precisions = {name: choice.precision for name, choice in plan.choices.items()}
    wanted = [
        graph
        for graph in traced
        if precisions[graph.component] == "int8" or in_half(precisions[graph.component], plan.target)
    ]
    if not wanted:
        return {}, ()
    calibration = plan.recipe.calibration or Calibration(files="")
    chosen = choose_samples(samples, calibration.samples)
    untold = tuple(_doubt_texts(wanted, chosen))
    files = {graph.component: work / Path(graph.file).name for graph in traced}
    with stages.stage("calibrate") as note, _opened_model(Pipeline, plan, source, traced, files) as pipeline:
        sessions = pipeline.engine.sessions
        recorders = {graph.component: _recorder(sessions, graph, work) for graph in wanted}
        engine = Engine(traced, {**sessions, **recorders}, arranging(plan.family, plan.config))
        texts = _texts(chosen, pipeline.tasks)

        def read(sample: Sample) -> Prompt:
            return pipeline.prepare(request_of(sample, texts[sample]))

        def answer(prompt: Prompt) -> None:
            values = engine.encode(prompt)
            if any(graph.cache for graph in wanted):
                answer_greedily(engine, prompt, values)

        note(f"{len(chosen)} samples")
        recordings, doubts = record(chosen, recorders, read, answer, skip_bad=skip_bad)
    return recordings, (*doubts, *untold)


def _doubt_texts(wanted: Sequence[Graph], samples: Sequence[Sample]) -> Iterator[str]:
    """Raised where a text tower is calibrated, and the user's samples say nothing."""
    names = [graph.component for graph in wanted if any(port.name == f"text{SUFFIX}" for port in graph.outputs)]
    if names and not any(sample.caption or sample.question for sample in samples):
        own = f"{len(TEXTS)} texts of mmedge's own"
        yield f"`{names[0]}` was calibrated with {own}: a list with a `caption` column is safer"


def _recorder(sessions: dict[str, Session], graph: Graph, work: Path) -> Recorder:
    folder = work / f"{graph.component}.feeds"
    folder.mkdir()
    return Recorder(sessions[graph.component], graph, folder)


def _texts(samples: Sequence[Sample], tasks: tuple[str, ...]) -> dict[Sample, str | None]:
    """What goes with each picture: its question, or at every second one a caption where the model can do both."""
    turns = [task for task in ("caption", "ask") if task in tasks] or tasks
    return {sample: text_of(turns[index % len(turns)], sample, index) for index, sample in enumerate(samples)}


def _quantize(
    stages: Stages,
    plan: Plan,
    traced: Sequence[Graph],
    feeds: dict[str, Recording],
    work: Path,
    folder: Path,
) -> tuple[list[Graph], list[str]]:
    graphs: list[Graph] = []
    warnings: list[str] = []
    edges = inner_edges(plan)
    (folder / "graphs").mkdir()
    for graph in traced:
        choice = plan.choices[graph.component]
        if choice.precision == "float32":
            for file in (graph.file, *(form.file for form in graph.forms.values())):
                for path in work.glob(f"{Path(file).name}*"):  # a graph of small constants has no file for them
                    shutil.copyfile(path, folder / "graphs" / path.name)
            _share(graph, folder)
            graphs.append(graph)
            continue

        def smaller(of: Graph, choice: ComponentPlan = choice) -> Quantized:
            return quantize(
                of,
                work / Path(of.file).name,
                folder / of.file,
                precision=choice.precision,
                keep=choice.keep,
                feeds=feeds.get(of.component, ()),
                method=plan.recipe.calibration.method if plan.recipe.calibration else "minmax",
                target=plan.target,
                edges=edges[of.component],
            )

        with stages.stage(f"quantize {graph.component}") as note:
            made = smaller(graph)
            for engine in graph.forms:
                smaller(graph.made_for(engine))
            _share(graph, folder)
            note(choice.precision)
        if made.ranges:
            (folder / RANGES).mkdir(exist_ok=True)
            (folder / RANGES / f"{graph.component}.json").write_bytes(msgspec.json.encode(made.ranges))
        graphs.append(made.graph)
        warnings += made.warnings
    return graphs, warnings


def _share(graph: Graph, folder: Path) -> None:
    for form in graph.forms.values():
        share_weights(folder / form.file, folder / graph.file)


def _check(stages: Stages, plan: Plan, graphs: Sequence[Graph], folder: Path) -> tuple[str, ...]:
    """Refuse what the target's engines could not build; what they would do badly is a warning."""
    with stages.stage("check") as note:
        findings = check_graphs(graphs, folder, plan.target)
        refuse(findings)
        note(findings.summary.partition(" in ")[0])
    return tuple(f"`{finding.component}`: {finding.message}" for finding in findings.of("warning"))


def _judged_files(graphs: Sequence[Graph], folder: Path, work: Path) -> dict[str, Path]:
    """What is opened to judge each graph: float16 is spelled so that it is rounded here as on the device."""
    files: dict[str, Path] = {}
    for graph in graphs:
        files[graph.component] = folder / graph.file
        if graph.precision != "float32" and has_half(program := onnx_ir.load(folder / graph.file)):
            files[graph.component] = work / f"{graph.component}.judged.onnx"
            write(spell_rounding(program), files[graph.component])
    return files


def _judge(
    stages: Stages,
    plan: Plan,
    source: Source,
    graphs: Sequence[Graph],
    files: dict[str, Path],
    examples: Sequence[Example],
    classes: Labels | None,
) -> Judgement:
    with stages.stage("agree") as note, _opened_model(Pipeline, plan, source, graphs, files) as pipeline:
        difference = compare_preprocessing(pipeline, source.checkpoint.processor, examples)
        formed = [graph for graph in graphs if graph.made_for(REFERENCE) != graph]
        others = {graph.component: _opened(graph, files[graph.component]) for graph in formed}
        agreement = compare_graphs(plan, source.model, pipeline, examples, others)
        for session in others.values():
            session.close()
        torch = (source.model, source.checkpoint.processor)
        if plan.family.generate:
            answers = compare_answers(plan, *torch, pipeline, examples)
        else:
            answers = compare_outputs(plan, *torch, pipeline, examples, classes.embeddings if classes else None)
        judge(plan, agreement, answers)
        note(f"{answers.equal} of {answers.total} answers equal torch")
    return Judgement(agreement, answers, difference)


def _pack(
    stages: Stages,
    plan: Plan,
    source: Source,
    graphs: Sequence[Graph],
    files: dict[str, Path],
    examples: Sequence[Example],
    judgement: Judgement,
    warnings: Sequence[str],
    classes: Labels | None,
    draft: Draft,
) -> Bundle:
    with stages.stage("pack"):
        with _opened_model(Pipeline, plan, source, graphs, files) as pipeline:
            golden = pack_golden(pipeline, examples, draft.folder)
        assets = (
            pack_labels(classes, draft.folder) if classes else pack_assets(source.checkpoint.vocabulary, draft.folder)
        )
        manifest = make_manifest(
            plan,
            graphs,
            assets=assets,
            golden=golden,
            agreement=judgement.agreement,
            answers=judgement.answers,
            preprocess_max_abs=judgement.preprocess_max_abs,
            similarity=plan.family.similarity and plan.family.similarity(source.model),
            warnings=warnings,
        )
        shutil.rmtree(draft.folder / "work")
        return draft.finish(manifest)


def _opened_model(
    kind: type[Opened], plan: Plan, source: Source, graphs: Sequence[Graph], files: dict[str, Path]
) -> Opened:
    """The graphs, opened from ``files`` on the reference backend, or in the form that is made for that."""
    own = [graph.made_for(REFERENCE) for graph in graphs]
    beside = [files[graph.component].with_name(Path(graph.file).name) for graph in own]
    opened = [path if graph.forms else files[graph.component] for graph, path in zip(graphs, beside, strict=True)]
    sessions = {graph.component: _opened(graph, path) for graph, path in zip(own, opened, strict=True)}
    engine = Engine(own, sessions, arranging(plan.family, plan.config))
    return kind(plan.family, plan.config, source.checkpoint.tokenizer, engine, plan.tasks)


def _opened(graph: Graph, path: Path) -> Session:
    return find.backend(REFERENCE).open(graph, path)


def _nodes(program: onnx_ir.Model) -> int:
    return sum(1 for _ in program.graph)
