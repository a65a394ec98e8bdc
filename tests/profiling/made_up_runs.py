"""Whole runs of the profiler that nobody measured, for tests of what is made of a run.

Loaded by the fixture `make_run`, because test folders are no packages:

    run = make_run()                                 # float32, int8 at 0.56 times its answer times, and the twin
    run = make_run(("a", "b", "c"), speeds=(1, 0.9, 1.1), rounds=100, noise=0.05)
    run = make_run(extras=True)                      # with load, soak, cold starts, limits, roofline and layers
    run = make_run(finished=False)                   # only what was measured: no results, quality, validity

Change anything else with `msgspec.structs.replace`. The same arguments always give the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmedge.profiling.run import (
    SCHEMA,
    Answer,
    Candidate,
    Cold,
    Energy,
    Host,
    Input,
    Inputs,
    Layer,
    Limit,
    Load,
    Machine,
    Made,
    Memory,
    Minute,
    Peaks,
    Processor,
    Protocol,
    Roof,
    Run,
    Sample,
    Sentinel,
)

MS = 1_000_000
MIB = 1 << 20

SHARES = {"decode": 0.04, "preprocess": 0.05, "encode": 0.40, "prefill": 0.10, "decode_loop": 0.395, "detokenise": 0.01}
"""Of an answer's time; half a percent is left over."""

TEXTS = (
    "a red circle",
    "two green triangles",
    "a yellow star",
    "three blue circles",
    "a black cross",
)
WRONG = "a purple cat on a green mat"

SIZES = ((320, 240), (640, 480), (800, 600), (1024, 768), (1280, 960), (1600, 1200), (1920, 1080), (2592, 1944))


def made_up_run(
    names: Sequence[str] = ("scenes float32 onnxruntime", "scenes int8 onnxruntime"),
    *,
    speeds: Sequence[float] = (1.0, 0.56, 0.5, 0.49, 0.9, 1.1, 1.5, 2.0),
    base_ms: float = 40.0,
    rounds: int = 40,
    processes: int = 5,
    inputs: int = 8,
    noise: float = 0.02,
    drift: float = 0.005,
    changed: int = 1,
    disturbed: int = 2,
    task: str = "caption",
    tokens: int = 6,
    seed: int = 7,
    complete: bool = True,
    extras: bool = False,
    finished: bool = True,
) -> Run:
    """A complete run of ``names`` and the twin of the first.

    Args:
        speeds: by candidate, times of its answers by the first one's.
        base_ms: the first one's answer to a picture of average size.
        noise: spread of answers within a process, as a share; ``drift`` of that between processes.
        changed: inputs that all candidates but the first and its twin answer wrongly.
        disturbed: rounds in which the sentinel and the host tell of a busy machine, and answers take 1.3 times as long.
        tokens: of every answer; 0 for tasks without.
    """
    chance = np.random.default_rng(seed)
    candidates = tuple(_candidates(names))
    items = tuple(_input(number, task) for number in range(inputs))
    speed = (*speeds[: len(names)], speeds[0])
    disturbances = {int(at) for at in np.linspace(1, rounds - 1, disturbed + 2)[1:-1]} if disturbed else set()
    answers = tuple(_answers(len(candidates), items, changed))
    samples, ends = _samples(chance, speed, base_ms, rounds, processes, items, noise, drift, disturbances, tokens)
    if extras:
        samples = (*samples, *_load_samples(chance, speed, base_ms, ends[-1], inputs, tokens))
    run = Run(
        schema=SCHEMA,
        mmedge=Made("0.1.0", "0123abc"),
        started="2026-01-01T12:00:00+00:00",
        seed=seed,
        argv=("mmedge", "profile", *names),
        complete=complete,
        machine=MACHINE,
        software={"python": "3.11.2", "numpy": "2.3.0", "onnxruntime": "1.31.0", "openvino": "2026.4.0"},
        candidates=candidates,
        inputs=Inputs("pictures", "1" * 64, items),
        protocol=Protocol(
            "single", "rounds", seed, processes, 120.0, 0.02, 0.03, rounds=rounds, stop_reason="precision"
        ),
        samples=samples,
        answers=answers,
        sentinel=tuple(
            Sentinel(at, int(2 * MS * (1.3 if at in disturbances else 1 + 0.01 * chance.standard_normal())))
            for at in range(rounds)
        ),
        host=tuple(_host(at, end, at in disturbances) for at, end in enumerate(ends)),
        memory=tuple(row for c in range(len(candidates) - 1) for row in _memory(c)),
        energy=Energy(None, "this machine has neither RAPL nor an INA3221 that the kernel knows"),
        **(_extras(candidates, base_ms, speed) if extras else {}),
    )
    return _finish(run) if finished else run


def _finish(run: Run) -> Run:
    from mmedge.profiling.numbers import estimates

    return estimates.finished(run)


MACHINE = Machine(
    id="5" * 64,
    name="Some Board",
    processor=Processor("Some CPU", "x86_64", 2, False, ("avx2", "avx512_vnni"), ("performance",), (800.0, 3500.0)),
    memory=8 << 30,
    swap=0,
    kernel="6.1.0",
    system="Debian GNU/Linux 12 (bookworm)",
)


def _candidates(names: Sequence[str]) -> Iterator[Candidate]:
    for number, name in enumerate((*names, f"{names[0]} again")):
        first = number in (0, len(names))
        precision = "float32" if first else "int8"
        engine = "openvino" if "openvino" in name else "onnxruntime"
        components = ("vision", "decoder")
        yield Candidate(
            name=name,
            bundle=f"{name.split()[0]}-{0 if first else number}.bundle",
            digest=f"{0 if first else number}" * 64,
            backend=engine,
            precisions=dict.fromkeys(components, precision),
            size=(40 if first else 12) * MIB,
            threads=2,
            engines=dict.fromkeys(components, engine),
            engine_cache="hit" if engine == "openvino" else "none",
        )


def _input(number: int, task: str) -> Input:
    width, height = SIZES[number % len(SIZES)]
    features = {
        "width": float(width),
        "height": float(height),
        "megapixels": width * height / 1e6,
        "bytes": float(width * height // 10),
    }
    question = f"what is in picture {number}?" if task == "ask" else None
    return Input(
        id=f"picture-{number}",
        task=task,
        file=f"pictures/{number}.png",
        text=question,
        expected=(TEXTS[number % len(TEXTS)],),
        features=features | ({"prompt_tokens": 6.0} if question else {}),
    )


def _answers(count: int, items: Sequence[Input], changed: int) -> Iterator[Answer]:
    """Candidate by candidate, one for each input: answer ``c * inputs + input``."""
    for c in range(count):
        for number in range(len(items)):
            wrong = 0 < c < count - 1 and number < changed
            text = WRONG if wrong else TEXTS[number % len(TEXTS)]
            yield Answer(c, number, text, tuple(len(word) for word in text.split()))


def _samples(
    chance: np.random.Generator,
    speed: Sequence[float],
    base_ms: float,
    rounds: int,
    processes: int,
    items: Sequence[Input],
    noise: float,
    drift: float,
    disturbances: set[int],
    tokens: int,
) -> tuple[tuple[Sample, ...], list[int]]:
    """Warm-up and rounds, and when each round ended."""
    found: list[Sample] = []
    ends: list[int] = []
    now, count = 0, len(speed)
    cost = np.array([item.features["megapixels"] for item in items])
    cost = 0.7 + 0.3 * cost / cost.mean()
    drifts = np.exp(drift * chance.standard_normal((processes, count)))
    seen: set[int] = set()
    for at in range(rounds):
        process = at * processes // rounds
        if process not in seen:
            seen.add(process)
            for c in range(count):
                for again in range(3):
                    ms = base_ms * speed[c] * (1.5 if again == 0 else 1.0)
                    found.append(_sample(c, process, -1, 0, "warmup", now, ms, len(items), tokens))
                    now += int(ms * MS)
        slow = 1.3 if at in disturbances else 1.0
        input_ = at % len(items)
        for place in range(count):
            c = (place + at) % count
            ms = (
                base_ms * speed[c] * cost[input_] * drifts[process, c] * slow * np.exp(noise * chance.standard_normal())
            )
            flags = ("sentinel", "steal") if at in disturbances else ()
            found.append(_sample(c, process, at, input_, "round", now, ms, len(items), tokens, flags))
            now += int(ms * MS)
        ends.append(now)
    return tuple(found), ends


def _sample(
    c: int,
    process: int,
    at: int,
    input_: int,
    phase: Any,
    start: int,
    ms: float,
    inputs: int,
    tokens: int,
    flags: tuple[str, ...] = (),
    due: int | None = None,
) -> Sample:
    whole = int(ms * MS)
    stages = {stage: int(share * whole) for stage, share in SHARES.items()}
    loop = stages["decode_loop"]
    first = whole - loop - stages["detokenise"]
    times = tuple(first + loop * place // max(tokens - 1, 1) for place in range(tokens))
    begins = np.cumsum([0, *stages.values()])
    spans = tuple((stage, int(begins[n]), int(begins[n + 1])) for n, stage in enumerate(stages))
    return Sample(
        c=c,
        process=process,
        round=at,
        input=input_,
        phase=phase,
        start_ns=start,
        answer_ns=whole,
        stages_ns=stages,
        token_ns=times,
        answer=c * inputs + input_,
        flags=flags,
        due_ns=due,
        spans=spans if at in (0, 1) else (),
    )


RATES = (0.3, 0.6, 0.9)
"""Of a load, as shares of what a candidate can answer."""


def _load_samples(
    chance: np.random.Generator, speed: Sequence[float], base_ms: float, now: int, inputs: int, tokens: int
) -> Iterator[Sample]:
    """A hundred answers of each candidate but the twin at each rate; whoever comes too early waits."""
    for c in range(len(speed) - 1):
        ms = base_ms * speed[c]
        for rate in RATES:
            due, free = now, now
            for at in range(100):
                due += int(chance.exponential(ms * MS / rate))
                free = max(due, free) + int(ms * MS)
                yield _sample(c, 0, -1, at % inputs, "load", free - int(ms * MS), ms, inputs, tokens, due=due)
            now = free


def _host(at: int, end: int, disturbed: bool) -> Host:
    return Host(
        round=at,
        t_ns=end,
        steal=0.05 if disturbed else 0.0,
        pressure={"cpu": 8.0 if disturbed else 0.5, "memory": 0.0, "io": 0.0},
        throttled=False,
        celsius=50.0 + at % 5,
        mhz=3000.0 - 10 * (at % 7),
        swapped=0,
        major_faults=0,
        switches=3,
    )


def _memory(c: int) -> Iterator[Memory]:
    size = (200 if c == 0 else 80) * MIB
    for stage, times in {"load": 1.6, **dict.fromkeys(SHARES, 1.1), "encode": 1.3, "steady": 1.0, "total": 1.6}.items():
        pss = int(size * times)
        yield Memory(c, stage, pss, pss * 3 // 4, pss // 4, int(pss * 1.1), method="smaps_rollup, VmHWM")


def _extras(candidates: Sequence[Candidate], base_ms: float, speed: Sequence[float]) -> dict[str, Any]:
    own = range(len(candidates) - 1)
    return {
        "limits": tuple(
            Limit(c, size * MIB, size >= 200, "cgroup v2", "" if size >= 200 else "was killed")
            for c in own
            for size in (100, 200, 400)
        ),
        "cold": tuple(
            Cold(c, pages, "none", 0.05, 0.2, 0.01 * slow, 0.0, 0.3 * slow, 0.1 * slow, 0.25 + 0.41 * slow)
            for c in own
            for pages, slow in (("cold", 3.0), ("warm", 1.0))
            for _ in range(5)
        ),
        "minutes": tuple(
            Minute(c, minute, 1000 - minute, base_ms * speed[c] * (1 + 0.01 * minute), 50.0 + 2 * minute, 3000.0, False)
            for c in own
            for minute in range(5)
        ),
        "load": tuple(
            Load(c, share * 1e3 / (base_ms * speed[c]), 100, "answer_ms<200", 0.9 * share * 20, share < 0.8)
            for c in own
            for share in RATES
        ),
        "peaks": Peaks(2, 12.5, {"onnxruntime float32": 90.0, "onnxruntime int8": 210.0}, 32 * MIB),
        "roofline": tuple(
            Roof(c, stage, 1e9, 4e7, base_ms * speed[c] * 0.4 * share, base_ms * speed[c] * 0.4, share, bound)
            for c in own
            for stage, share, bound in (("encode", 0.61, "compute"), ("decode_loop", 0.74, "bandwidth"))
        ),
        "layers": tuple(
            Layer(c, "vision", node, "MatMul", (node, f"{node}/Add"), 900.0 - n, 0.05, 10**7, 10**5, 0.6, snr_db=snr)
            for c in own
            for n in range(20)
            for node, snr in ((f"/layer.{n}", 40.0 - n if c else None),)
        ),
    }  # fmt: skip
