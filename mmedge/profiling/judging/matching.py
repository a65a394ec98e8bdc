"""What two runs have in common: whether they are one, and which candidates and inputs are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmedge.errors import UsageError
from mmedge.profiling.judging.comparison import Match
from mmedge.profiling.run import Candidate, Input, Run

_TELLING = ("width", "height", "bytes", "audio_s")
"""Features that two files of one name differ in."""
_SHOWN = 3
"""Names in an error."""


@dataclass(frozen=True)
class Subject:
    """A candidate of a run, and the inputs that count."""

    run: Run
    c: int
    numbers: Mapping[int, int]
    """By the input's place in this run, its number in both."""

    @property
    def candidate(self) -> Candidate:
        return self.run.candidates[self.c]

    def texts(self) -> dict[int, str]:
        """Its first answers, by the input's number."""
        found: dict[int, str] = {}
        for answer in self.run.answers:
            if answer.c == self.c and answer.input in self.numbers:
                found.setdefault(self.numbers[answer.input], answer.text)
        return found


def is_same_run(a: Run, b: Run) -> bool:
    """Whether both were kept of one run, of which one may not have been done yet."""
    one, two = (
        (run.started, run.machine.id, run.seed, run.inputs, [(each.name, each.digest) for each in run.candidates])
        for run in (a, b)
    )
    return one == two


def is_same_machine(a: Run, b: Run) -> bool:
    """False where it is not known: runs of the first version do not tell."""
    return bool(a.machine.id) and a.machine.id == b.machine.id


def doubts_of(run: Run) -> tuple[str, ...]:
    """Why a run is not valid, but for not being complete or verified, which is asked after by itself."""
    errors = [flag for flag in run.validity.flags if flag.severity == "error"]
    found = tuple(flag.text for flag in errors if flag.code not in ("incomplete", "unverified"))
    return found or (() if run.validity.ok or errors else ("it says so itself",))


def others_of(run: Run) -> tuple[int, ...]:
    """Candidates but the baseline and its twin, which are the first and the last."""
    return tuple(range(1, len(run.candidates) - 1))


def everyone_of(run: Run) -> tuple[int, ...]:
    """Candidates but the twin."""
    return tuple(range(max(1, len(run.candidates) - 1)))


def common_inputs(a: Run, b: Run, files: tuple[str, str]) -> tuple[dict[int, int], dict[int, int]]:
    """Of each run the numbers of the inputs that both were asked.

    Raises:
        UsageError: there are none.
    """
    first, second = ({_key(item): at for at, item in enumerate(run.inputs.items)} for run in (a, b))
    common = [
        key for key in first if key in second and _may_be_same(a.inputs.items[first[key]], b.inputs.items[second[key]])
    ]
    if not common:
        raise UsageError(
            f"`{files[0]}` and `{files[1]}` were asked different things: {_some(a)}; and {_some(b)}",
            hint="profile both with the same --inputs",
        )
    numbers = range(len(common))
    return {first[common[at]]: at for at in numbers}, {second[common[at]]: at for at in numbers}


def matched(a: Run, b: Run, files: tuple[str, str]) -> tuple[tuple[int, int, Match], ...]:
    """Candidates of both runs that are the same, by name or by bundle and engine, or the only ones.

    Raises:
        UsageError: there are none.
    """
    found: list[tuple[int, int, Match]] = []
    for how, key in (("name", _name), ("bundle", _bundle)):
        left = {key(b.candidates[c]): c for c in reversed(everyone_of(b)) if c not in {two for _, two, _ in found}}
        for c in everyone_of(a):
            if c not in {one for one, _, _ in found} and key(a.candidates[c]) in left:
                found.append((c, left.pop(key(a.candidates[c])), how))  # type: ignore[arg-type]
    if not found and len(everyone_of(a)) == len(everyone_of(b)) == 1:
        found = [(0, 0, "only")]
    if not found:
        names = ["; ".join(run.candidates[c].name for c in everyone_of(run)) for run in (a, b)]
        raise UsageError(f"`{files[0]}` and `{files[1]}` have no candidate in common: {names[0]}; and {names[1]}")
    return tuple(sorted(found))


def _name(candidate: Candidate) -> object:
    return candidate.name


def _bundle(candidate: Candidate) -> object:
    return candidate.digest, candidate.backend, candidate.threads


def _key(item: Input) -> tuple[object, ...]:
    return item.task, item.id, item.text


def _may_be_same(one: Input, two: Input) -> bool:
    """A folder may hold another picture by the same name today; older runs do not tell."""
    known = [name for name in _TELLING if name in one.features and name in two.features]
    return all(one.features[name] == two.features[name] for name in known)


def _some(run: Run) -> str:
    items = [f"{item.task} {item.id}" for item in run.inputs.items[:_SHOWN]]
    return ", ".join(items) + (", ..." if len(run.inputs.items) > _SHOWN else "") or "nothing"
