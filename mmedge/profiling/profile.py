"""A run from start to end: each candidate alone, then all of them in turns, then what came of it."""

from __future__ import annotations

import datetime
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TypeAlias

from msgspec.structs import replace

from mmedge.core.machine import free_memory
from mmedge.errors import MmedgeError, UsageError
from mmedge.profiling.candidates import twin
from mmedge.profiling.keep import write_run
from mmedge.profiling.machine.circumstances import circumstances
from mmedge.profiling.machine.machines import machine_of
from mmedge.profiling.machine.power import Meter
from mmedge.profiling.measure import FEWEST_ROUNDS, Measurement
from mmedge.profiling.numbers.estimates import finished, half_width
from mmedge.profiling.order import orders_of
from mmedge.profiling.provenance import made, redacted
from mmedge.profiling.run import SCHEMA, Candidate, Flag, Inputs, Protocol, Run, Validity
from mmedge.profiling.workers import COMMAND

SAVE_EVERY_S = 5.0
SAVING = 0.02
"""Share of the time that may be spent on saving."""
ALONE = 2
"""Answers of each candidate alone, after its memory was weighed."""
SHARE_OF_MEMORY = 0.8
"""Of what is free, that candidates may take together to be open at the same time."""
ROUNDS_SHARE = 0.5
"""Of the budget, for the rounds of as many groups as are asked for; the rest is for starting them and warming up, and
for more groups: these say more about how processes differ than longer ones would."""

EXTENSION = 3
"""Times the budget that is spent at most while something cannot be told."""

Say: TypeAlias = Callable[[str], None]
Extra: TypeAlias = Callable[[Measurement, Say], None]
"""Measures something besides the rounds, before them or after (see `extras`)."""


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    budget_s: float = 120.0
    """For the rounds, with starting and warming up; at least `Settings.processes` groups are measured all the same."""
    precision: float = 0.02
    """It stops when the interval of every ratio reaches no further than this share from its middle."""
    margin: float = 0.03
    """Ratios closer to 1 are the same."""
    processes: int = 5
    """Groups of fresh processes at least."""
    rounds: int | None = None
    """In all, instead of a budget."""
    seed: int = 7
    """Of the order in which candidates answer, and of everything else that is drawn."""
    limit: int | None = None
    """Longest answer, in tokens."""
    warmup_s: float = 3.0
    warmup_answers: int = 10
    answer_all: bool = False
    """Every candidate answers every input once before the rounds, so that quality is judged by all of them."""
    spans: bool = False
    """Keep when each stage of each answer began and ended."""
    scenario: str = "single"
    """How requests come besides the rounds, as `extras` was told."""
    unverified: bool = False
    """Measure candidates whose golden samples fail too."""


def profile(
    candidates: Sequence[Candidate],
    inputs: Inputs,
    settings: Settings = Settings(),
    extras: Sequence[Extra] = (),
    *,
    undecided: Callable[[Run], bool] | None = None,
    save: Path | None = None,
    say: Say = lambda line: None,
    command: Sequence[str] = COMMAND,
) -> Run:
    """Compare candidates (`candidates.candidates_of`) on the same inputs (`inputs.inputs_of`).

    The first candidate is what the others are compared with, and takes part a second time under another name.

    Args:
        candidates: what is compared.
        inputs: what they are asked, in turn.
        settings: how.
        extras: what is measured after the rounds.
        undecided: asked when the budget is spent; while it says yes of the run so far, up to `EXTENSION` times the
            budget is spent.
        save: JSON file that is whole at every moment, and complete when this returns.
        say: hears what is being done.
        command: what starts a worker.

    Raises:
        QualityError: a candidate does not answer its golden samples as it should.
        MmedgeError: what a worker met, with its exit code.
    """
    _check(candidates, inputs, settings)
    running = _Running([*candidates, twin(candidates[0])], inputs, settings, save, say, command)
    return running.run(extras, undecided)


class _Running:
    """A run while it is being measured."""

    def __init__(
        self,
        candidates: list[Candidate],
        inputs: Inputs,
        settings: Settings,
        save: Path | None,
        say: Say,
        command: Sequence[str],
    ) -> None:
        self.settings = settings
        self.save = save
        self.say = say
        self.meter = Meter()
        protocol = Protocol(
            scenario=settings.scenario,
            interleave="rounds",
            seed=settings.seed,
            processes=settings.processes,
            budget_s=settings.budget_s,
            precision=settings.precision,
            margin=settings.margin,
            limit=settings.limit,
            warmup_s=settings.warmup_s,
            warmup_answers=settings.warmup_answers,
        )
        self.measurement = Measurement(candidates, inputs.items, protocol, command, settings.spans, meter=self.meter)
        self.draft = Run(
            schema=SCHEMA,
            mmedge=made(),
            started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            seed=settings.seed,
            argv=redacted(sys.argv),
            complete=False,
            machine=machine_of(),
            software={name: version(name) for name in ("numpy", "pillow")} | {"python": platform.python_version()},
            candidates=tuple(candidates),
            inputs=inputs,
            protocol=protocol,
            energy=self.meter.energy,
        )
        self.measurement.flags += circumstances()
        self.save_after_s = 0.0

    def run(self, extras: Sequence[Extra], undecided: Callable[[Run], bool] | None) -> Run:
        self.keep(self.filled())
        try:
            self.say("resting")
            idle = self.meter.idle()
            self.alone()
            self.in_turns(undecided)
            self.draft = replace(self.draft, energy=self.meter.energy_with(idle, self.meter.idle()))
            for extra in extras:
                self.keep(replace(self.judged(), complete=False))
                self.besides(extra)
        except BaseException:
            if not self.draft.protocol.stop_reason:
                self.stop("interrupted")
            self.keep(replace(self.judged(), complete=False) if self.draft.protocol.rounds else self.filled())
            raise
        self.say("judging")
        whole = self.judged()
        self.keep(whole)
        return whole

    def besides(self, extra: Extra) -> None:
        """What goes wrong there must not cost the rounds that were measured."""
        try:
            extra(self.measurement, self.say)
        except MmedgeError as error:
            self.measurement.flags.append(Flag("not_measured", "warning", error.message, error.hint or ""))

    def judged(self) -> Run:
        """As if it were complete."""
        whole = finished(replace(self.filled(), complete=True))
        flags = (*self.measurement.flags, *whole.validity.flags)
        return replace(whole, validity=Validity(all(flag.severity != "error" for flag in flags), flags))

    def alone(self) -> None:
        """Everyone but the twin, which then is what the first one was found to be."""
        measurement, names = self.measurement, self.measurement.candidates
        own = range(len(names) - 1)
        for number in own:
            self.say(f"preparing {names[number].name}")
            measurement.prepare(number, self.settings.unverified)
        names[-1] = twin(names[0])
        everything = range(len(measurement.items))
        for number in own:
            self.say(f"alone: {names[number].name}")
            measurement.alone(number, everything if self.settings.answer_all else everything[:ALONE])
        if self.needed() > SHARE_OF_MEMORY * free_memory():
            self.draft = replace(self.draft, protocol=replace(self.draft.protocol, interleave="blocks"))
            measurement.protocol = self.draft.protocol
        self.keep(self.filled())

    def needed(self) -> int:
        """Bytes of all candidates together, the twin too."""
        steady = {row.c: row.pss or row.hwm or 0 for row in self.measurement.memory if row.stage == "total"}
        return sum(steady.values()) + steady.get(0, 0)

    def in_turns(self, undecided: Callable[[Run], bool] | None) -> None:
        """Groups of fresh processes, until the ratios are precise enough or time is spent."""
        settings, measurement = self.settings, self.measurement
        rounds = enumerate(orders_of(len(measurement.candidates), settings.seed))
        measure = measurement.blocks if self.draft.protocol.interleave == "blocks" else measurement.sitting
        began = time.monotonic()
        for group in count():
            spent_s = time.monotonic() - began
            if (reason := self.reason_to_stop(group, spent_s)) and not self.go_on(reason, spent_s, undecided):
                return
            measure(group, rounds, self.time_for(group, began))

    def go_on(self, reason: str, spent_s: float, undecided: Callable[[Run], bool] | None) -> bool:
        """Whether to measure longer all the same."""
        self.stop(reason)
        if undecided is None or reason == "rounds" or spent_s > EXTENSION * self.settings.budget_s:
            return False
        self.say("judging")
        return undecided(self.judged())

    def reason_to_stop(self, group: int, spent_s: float) -> str:
        """Before a group; empty if there is none."""
        settings = self.settings
        if settings.rounds is not None:
            return "rounds" if group >= min(settings.processes, settings.rounds) else ""
        if group < settings.processes:
            return ""
        if half_width(self.measurement.samples, self.measurement.candidates) <= settings.precision:
            return "precision"
        usual_s = spent_s / group
        return "budget" if spent_s + usual_s / 2 > settings.budget_s else ""

    def time_for(self, group: int, began: float) -> Callable[[int], bool]:
        """Whether there is time for another round of a group, after so many."""
        settings = self.settings
        parts = settings.processes
        until: list[float] = []
        if settings.rounds is not None:
            parts = min(parts, settings.rounds)
            share = settings.rounds * (group + 1) // parts - settings.rounds * group // parts

        def more(done: int) -> bool:
            now = time.monotonic()
            self.tell(group, done, now - began)
            if settings.rounds is not None:
                return done < share
            if not until:  # they have started
                until.append(now + ROUNDS_SHARE * settings.budget_s / parts)
            return done < FEWEST_ROUNDS or now < until[0]

        return more

    def tell(self, group: int, done: int, spent_s: float) -> None:
        total = len(self.measurement.host)
        self.say(f"processes {group + 1}, round {done + 1} ({total} in all), {spent_s:.0f} s")
        if self.save and time.monotonic() > self.save_after_s:
            self.keep(self.filled())

    def stop(self, reason: str) -> None:
        rounds = len({sample.round for sample in self.measurement.samples if sample.phase == "round"})
        self.draft = replace(self.draft, protocol=replace(self.draft.protocol, rounds=rounds, stop_reason=reason))

    def filled(self) -> Run:
        measured = self.measurement
        return replace(
            self.draft,
            software=self.draft.software | measured.versions,
            candidates=tuple(measured.candidates),
            samples=tuple(measured.samples),
            answers=tuple(measured.answers),
            sentinel=tuple(measured.sentinel),
            host=tuple(measured.host),
            memory=tuple(measured.memory),
            cold=tuple(measured.cold),
            warmups=tuple(measured.warmups),
            limits=tuple(measured.limits),
            load=tuple(measured.load),
            minutes=tuple(measured.minutes),
            peaks=measured.peaks,
            instructions=tuple(measured.instructions),
            roofline=tuple(measured.roofline),
            layers=tuple(measured.layers),
        )

    def keep(self, run: Run) -> None:
        if self.save:
            began = time.monotonic()
            write_run(run, self.save)
            ended = time.monotonic()
            self.save_after_s = ended + max(SAVE_EVERY_S, (ended - began) / SAVING)


def _check(candidates: Sequence[Candidate], inputs: Inputs, settings: Settings) -> None:
    if not candidates or not inputs.items:
        raise UsageError("there is nothing to profile", hint="name at least one bundle and one picture")
    least = {"rounds": 1, "processes": 1, "warmup_answers": 1, "limit": 1}
    for option, bound in least.items():
        value = getattr(settings, option)
        if value is not None and value < bound:
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is {value}, it must be at least {bound}", hint=f"--{name} {bound} or more")
    for option in ("budget_s", "precision", "margin"):
        if not getattr(settings, option) > 0:
            name = {"budget_s": "budget", "precision": "ci"}.get(option, option)
            raise UsageError(
                f"--{name} is {getattr(settings, option)}, it must be more than 0", hint=f"leave --{name} out"
            )
