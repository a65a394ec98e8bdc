"""A run of the profiler as it is kept: what was measured first, then what was made of it.

Candidates, inputs and answers are named by their place in the run's lists. Times of one answer are nanoseconds of the
machine's monotonic clock, those that people read are milliseconds; sizes are bytes; shares are between 0 and 1. What
could not be measured is null and says why: it is never 0.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

from mmedge.core.board import Board

SCHEMA = "mmedge.profile/2"

STAGES = (
    "read",
    "decode",
    "preprocess",
    "encode",
    "project",
    "prefill",
    "decode_loop",
    "detokenise",
    "search",
    "post",
)
"""Names of stages, in the order they run, the same for every task and engine; ``other`` is what they leave over."""
OTHER = "other"

Phase: TypeAlias = Literal["alone", "warmup", "round", "load", "soak"]
Verdict: TypeAlias = Literal["faster", "slower", "same", "inconclusive"]
QualityVerdict: TypeAlias = Literal["accepted", "worse", "differs", "inconclusive"]
Severity: TypeAlias = Literal["note", "warning", "error"]


class Made(Struct, frozen=True):
    """Which mmedge measured."""

    version: str
    commit: str | None = None
    """Of a checkout, with ``+`` where files were changed; null in an installed package."""


class Processor(Struct, frozen=True):
    """What computes."""

    model: str
    arch: str
    cores: int
    """Physical cores that may be used."""
    smt: bool | None = None
    """Whether cores run two threads each."""
    flags: tuple[str, ...] = ()
    """Extensions that engines look for, such as avx512_vnni or asimddp."""
    governors: tuple[str, ...] = ()
    """How the kernel chooses clock rates; empty where it does not tell."""
    mhz: tuple[float, float] | None = None
    """Lowest and highest clock rate."""


class Machine(Struct, frozen=True):
    """Where it was measured; runs of one ``id`` may be compared."""

    id: str
    """Digest of what identifies the machine and its system, and says nothing else about it; empty where nothing does,
    as in most containers."""
    name: str
    processor: Processor
    memory: int
    swap: int
    kernel: str
    system: str
    """Such as ``Debian GNU/Linux 12 (bookworm)``."""
    container: str = ""
    """Such as ``docker``; empty outside of one."""
    virtual: str = ""
    """Such as ``KVM``; empty on bare metal, or where it cannot be told."""
    on_battery: bool = False
    gpus: tuple[str, ...] = ()
    board: Board | None = None


class Candidate(Struct, frozen=True):
    """What is compared: a bundle on an engine with a number of threads, or another program that answers the same."""

    name: str
    bundle: str
    digest: str
    backend: str | None
    """Null leaves the choice to the bundle's target, component by component."""
    precisions: dict[str, str]
    """By component."""
    size: int
    """Bytes of the bundle's files, without what is compiled for this machine."""
    threads: int = 0
    """0 means all cores."""
    engines: dict[str, str] = {}
    """By component, as they were opened; empty before."""
    engine_cache: Literal["hit", "miss", "none"] | None = None
    """Whether compiled graphs were there when it was first opened; ``none`` where nothing has to be compiled."""
    command: tuple[str, ...] = ()
    """What starts its worker, where that is not mmedge's own: see `worker`."""
    unverified: bool = False
    """Its golden samples fail, or were not asked, and it takes part all the same."""

    @property
    def precision(self) -> str:
        """One word for all components, such as ``int8`` or ``int8+int8-weights``."""
        return "+".join(dict.fromkeys(self.precisions.values()))


class Input(Struct, frozen=True):
    """What every candidate is asked."""

    id: str
    task: str
    file: str
    """Path of the picture; empty for a text alone."""
    text: str | None = None
    expected: tuple[str, ...] = ()
    """Right answers, where they are known."""
    features: dict[str, float] = {}
    """What its cost may depend on: ``width``, ``height``, ``megapixels``, ``bytes``, ``tiles``, ``prompt_tokens``,
    ``audio_s``; those that apply."""


class Inputs(Struct, frozen=True):
    """All of them."""

    source: str
    """``golden``, ``synthetic``, or the path they were read from."""
    digest: str
    """Of their contents and texts."""
    items: tuple[Input, ...]


class Protocol(Struct, frozen=True):
    """How it was measured."""

    scenario: str
    """``single``, ``stream``, ``offline``, ``server`` or ``soak``."""
    interleave: Literal["rounds", "blocks"]
    """``rounds``: all candidates open at once, one answer each in turn. ``blocks``: they do not fit into memory
    together, and are opened in turn."""
    seed: int
    processes: int
    """Groups of fresh processes at least."""
    budget_s: float
    precision: float
    """Half width of the intervals at which it stops, as a share: 0.02."""
    margin: float
    """Ratios closer to 1 than this are the same."""
    limit: int | None = None
    """Longest answer, in tokens."""
    warmup_s: float = 3.0
    warmup_answers: int = 10
    rounds: int = 0
    """That were measured."""
    stop_reason: str = ""
    """``precision``, ``budget``, ``rounds``, ``interrupted``."""


class Sample(Struct, frozen=True):
    """One answer."""

    c: int
    """Candidate."""
    process: int
    """Group of processes, from 0; -1 is the process that ran alone."""
    round: int
    """From 0; -1 outside of rounds."""
    input: int
    phase: Phase
    start_ns: int
    """When the request was made, since the run began."""
    answer_ns: int
    """From encoded bytes in memory to the finished text, as the worker measures it."""
    stages_ns: dict[str, int]
    token_ns: tuple[int, ...]
    """When each token was there, since the request."""
    answer: int
    """Place in the run's answers."""
    flags: tuple[str, ...] = ()
    """Why to distrust it: ``steal``, ``pressure``, ``sentinel``, ``throttled``, ``swapped``."""
    energy_mj: dict[str, float] = {}
    """What went through each power rail meanwhile, whoever used it; empty where that cannot be measured."""
    energy_s: float = 0.0
    """How long that was measured: a little longer than the answer took."""
    due_ns: int | None = None
    """In an open loop, when the request should have been made, since the run began."""
    spans: tuple[tuple[str, int, int], ...] = ()
    """For a trace: stage, begin and end in nanoseconds since the request."""


class Answer(Struct, frozen=True):
    """A text that a candidate gave to an input; kept once however often it is given."""

    c: int
    input: int
    text: str
    tokens: tuple[int, ...] = ()


class Sentinel(Struct, frozen=True):
    """How long the same small computation took before a round: it should always take the same."""

    round: int
    ns: int


class Host(Struct, frozen=True):
    """The machine during one round; what it does not tell is null."""

    round: int
    t_ns: int
    """When the round ended, since the run began."""
    steal: float | None = None
    """Share of the processors' time that another virtual machine took."""
    pressure: dict[str, float] = {}
    """``cpu``, ``memory``, ``io``: percentage of the time of the round in which something waited for it (PSI, growth of
    ``some total``); of the last 10 s (``some avg10``) on a kernel that tells no total."""
    throttled: bool | None = None
    """By heat, or by a control group's quota."""
    celsius: float | None = None
    """Of the hottest zone."""
    mhz: float | None = None
    """Mean of the cores."""
    swapped: int | None = None
    """Bytes that went to swap or came from it."""
    major_faults: int | None = None
    """Of the workers."""
    switches: int | None = None
    """Involuntary context switches of the workers."""


class Memory(Struct, frozen=True):
    """Bytes of a candidate's processes, in a stage of an answer; ``load``, ``steady`` and ``total`` too.

    Of one group of processes, the one that ran alone. PSS was asked for again and again while it answered: a peak
    between two looks is not in it, unlike in ``hwm``, which the kernel keeps.
    """

    c: int
    stage: str
    pss: int | None
    """Fair share of resident pages, over the process tree: the highest seen (`steady`: at rest)."""
    pss_anon: int | None
    """What of that must stay in memory; the rest are pages of files, which the kernel may drop and read again."""
    pss_file: int | None
    hwm: int | None
    """Most resident pages (VmHWM of the stage alone), shared ones in full."""
    gpu: int | None = None
    unified: bool = False
    """Whether ``gpu`` is the same memory as the processor's."""
    method: str = ""


class Limit(Struct, frozen=True):
    """An attempt to answer under a memory limit."""

    c: int
    bytes: int
    works: bool
    method: str
    """``cgroup v2``, ``cgroup v1`` or ``RLIMIT_DATA``."""
    note: str = ""
    """What happened."""


class Energy(Struct, frozen=True):
    """Where energy comes from."""

    method: str | None
    """``INA3221``, ``RAPL``; null with a ``reason``."""
    reason: str = ""
    whole: str = ""
    """The rail among those measured that carries all the others; empty if none does."""
    rails: tuple[str, ...] = ()
    idle_w: dict[str, float] = {}
    """By rail, before and after the run."""


class Cold(Struct, frozen=True):
    """One start of a candidate, second by second, in the order of the fields."""

    c: int
    pages: Literal["cold", "warm"]
    """Whether the bundle's files were dropped from memory before."""
    compiled: Literal["hit", "miss", "none"]
    process_s: float
    """From asking for the process until its interpreter runs."""
    import_s: float
    verify_s: float
    """Reading and digesting the bundle's files."""
    compile_s: float
    load_s: float
    """What opening takes beside verifying and compiling."""
    answer_s: float
    """The first answer."""
    total_s: float


class Warmup(Struct, frozen=True):
    """How a fresh process came to its usual pace."""

    c: int
    process: int
    answers: int
    seconds: float
    steady: bool
    """Whether its answers had stopped getting faster before it counted."""


class Minute(Struct, frozen=True):
    """Of a soak."""

    c: int
    minute: int
    answers: int
    median_ms: float
    celsius: float | None = None
    """At its end."""
    mhz: float | None = None
    throttled: bool | None = None
    celsius_before: float | None = None
    """When it began: candidates take turns, so that the first minute of all but one finds the machine warm."""


class Load(Struct, frozen=True):
    """What a candidate did at one arrival rate; its answers are samples of the phase ``load``, whose ``round`` is the
    place of this in the run's ``load``. Response times count from when a request was due.

    ``held`` and the bounds of percentiles take requests for independent. Those that wait in one queue are not: close to
    what a candidate can answer at all, fewer of them say as much, and the confidence is less than the stated one.
    """

    c: int
    rate: float
    """Arrivals per second: Poisson (``server``) or evenly spaced (``stream``); 0 where all came at once."""
    offered: int
    """Requests that arrived."""
    slo: str = ""
    """Such as ``ttft_ms<500``; several are joined by ``+``."""
    goodput: float | None = None
    """Answers per second within the objective."""
    held: bool | None = None
    """Whether 99 % were; null where too few arrived to tell with 99 % confidence, or where one block of time says what
    the other does not."""
    seed: int = 0
    """Of the arrivals."""
    seconds: float = 0.0
    """From the first arrival to the last answer, without the pauses in which others were asked."""
    answered: int = 0
    throughput: float | None = None
    """Answers per second."""
    response_ms: dict[str, float] = {}
    """``median``, ``max``, and of ``p90``, ``p95``, ``p99`` those whose upper bound at 99 % confidence these samples
    have."""
    service_ms: dict[str, float] = {}
    """The same of the answers alone, which is all that a client sees who waits for one before asking the next."""


class Score(Struct, frozen=True):
    """What the answers of one candidate are worth."""

    c: int
    metric: str
    """``exact``, ``f1``, ``cider``, ``vqa``, ...: of the task; empty where no right answers are known."""
    per_input: tuple[float | None, ...]
    """By input; null where it was not answered or there is nothing to judge by."""
    mean: float | None
    agree: tuple[float | None, ...]
    """By input, 1.0 where the text is exactly the reference's."""
    agreement: float | None
    edit: float | None
    """Mean edit distance of tokens to the reference's answer, as a share of the longer one."""
    lost: float | None = None
    """Points of 100 that the mean is below the baseline's; without a metric, that the agreement is below 100."""
    low: float | None = None
    high: float | None = None
    """95 % interval of ``lost`` by a paired bootstrap over inputs."""
    mcnemar: float | None = None
    """p of right and wrong answers being as often exchanged one way as the other, where answers are right or wrong."""
    verdict: QualityVerdict | None = None
    """``worse`` by a metric, ``differs`` from the reference without one; ``inconclusive`` for a few inputs."""
    reference: int = 0
    """Whose answers it agrees with or not: the first candidate in float32, else the baseline."""


class Layer(Struct, frozen=True):
    """A node as an engine ran it."""

    c: int
    component: str
    node: str
    op: str
    onnx_names: tuple[str, ...]
    """ONNX nodes that it stands for: several where the engine fused them."""
    us: float
    """Microseconds of one answer, the overhead of profiling scaled away."""
    share: float
    flops: int | None = None
    bytes: int | None = None
    roof: float | None = None
    """Ceiling time by measured time."""
    snr_db: float | None = None
    """Of its output against the first bundle's."""


class Instructions(Struct, frozen=True):
    """Of decoding and pre-processing one input, on average: a second opinion that no busy neighbour can change."""

    c: int
    per_input: float | None
    method: str | None
    """``perf stat``, ``valgrind``; null with a ``reason``."""
    reason: str = ""


class Peaks(Struct, frozen=True):
    """What this machine can do at most, measured with the same number of threads in the same session."""

    threads: int
    triad_gbs: float
    """10^9 bytes per second of ``a = b + s * c`` over arrays that no cache holds."""
    gemm_gflops: dict[str, float]
    """By engine and precision, as in ``onnxruntime float32``."""
    cache: int
    """Bytes of the last level cache."""
    repeats: int = 9
    read_gbs: float = 0.0
    """As ``triad_gbs``, of reading alone, which is all that weights ask for."""
    copy_gbs: dict[str, float] = {}
    """As ``triad_gbs``, of an engine that copies, by its name."""
    others: tuple[Peaks, ...] = ()
    """Of the same session, with the numbers of threads of candidates that have others than the first."""


class Roof(Struct, frozen=True):
    """A stage of a candidate beside what the machine could do."""

    c: int
    stage: str
    flops: float
    """Of one answer, on average."""
    bytes: float
    ceiling_ms: float
    measured_ms: float
    share: float
    """Ceiling by measured."""
    bound: Literal["compute", "bandwidth"]
    in_cache: bool = False
    """What it reads fits the last level cache, so that memory does not bound it."""
    valid: bool = True
    """Whether ``share`` can be: above 1.05, without a cache that explains it, it says nothing."""
    input: int | None = None
    """The only one that is judged; null where it is a golden sample."""
    n: int = 0
    """Answers to it, whose median is ``measured_ms``."""


class Absolute(Struct, frozen=True):
    """A measure of one candidate.

    The ``median`` of a time or an energy is the mean, on logarithms, of the medians of each group of processes, and its
    interval Student's t over these; null with less than three groups. ``tokens_per_s`` is ``tpot_ms`` upside down. The
    ``median`` of starts is that of all, ``low`` and ``high`` the lowest and the highest of them.
    """

    c: int
    metric: str
    """``answer_ms``, ``ttft_ms``, ``tpot_ms``, ``itl_ms``, ``tokens_per_s``, ``<stage>_ms``, ``other_ms``,
    ``peak_pss``, ``steady_pss``, ``peak_hwm``, ``bundle_bytes``, ``cold_ms`` (``cold_miss_ms``: with nothing compiled),
    ``answer_mj``, a metric of quality... Where there are several tasks ``<task>.answer_ms`` of each, and so on."""
    stat: str
    """``median``, ``p90``, ``p95``, ``p99``, ``p99.9``, ``mean``, ``max``, ``value``."""
    value: float | None
    """Null where there are too few samples."""
    low: float | None
    high: float | None
    """95 % interval; of a percentile ``high`` is its upper bound at 99 % confidence."""
    n: int
    valid: bool = True
    """Whether there were enough samples."""
    note: str = ""


class Ratio(Struct, frozen=True):
    """A measure of one candidate by the baseline's, paired by round.

    ``ratio`` is the mean, on logarithms, of the medians of each group of processes, and ``low`` and ``high`` are its
    95 % interval by Student's t over these: processes are independent, rounds within them are not.
    """

    c: int
    base: int
    metric: str
    ratio: float
    low: float
    high: float
    verdict: Verdict
    p: float | None = None
    """Of the hypothesis that the ratio lies within the margin's far side, adjusted for many candidates (Holm)."""
    clean: float | None = None
    """The ratio over rounds without flags."""
    n: int = 0


class Resolution(Struct, frozen=True):
    """The baseline against itself: what seems to set them apart is chance."""

    ratio: float
    low: float
    high: float
    floor: float
    """Smallest difference that can be seen here, as a share: 0.014."""
    verdict: Verdict


class Fit(Struct, frozen=True):
    """How a time grows with a feature of the input: ``ms = intercept + slope * feature``."""

    c: int
    metric: str
    feature: str
    intercept: float
    slope: float
    low: float
    high: float
    """95 % interval of the slope."""
    rank: float
    """Spearman's correlation."""
    n: int


class Worst(Struct, frozen=True):
    """An input that takes a candidate longest."""

    c: int
    input: int
    ms: float
    times: float
    """Of the candidate's median."""


class Results(Struct, frozen=True):
    """What was made of it."""

    abs: tuple[Absolute, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    aa: Resolution | None = None
    fits: tuple[Fit, ...] = ()
    worst: tuple[Worst, ...] = ()


class Flag(Struct, frozen=True):
    """A reason to distrust the numbers, and what to do about it."""

    code: str
    severity: Severity
    text: str
    advice: str = ""


class Validity(Struct, frozen=True):
    """Whether the numbers mean what they say."""

    ok: bool = True
    flags: tuple[Flag, ...] = ()


class Run(Struct, frozen=True):
    """A whole run; the first candidate is the baseline, and the last its twin, the same under another name."""

    schema: str
    mmedge: Made
    started: str
    seed: int
    argv: tuple[str, ...]
    """The command line, without the folders that files lie in."""
    complete: bool
    machine: Machine
    software: dict[str, str]
    candidates: tuple[Candidate, ...]
    inputs: Inputs
    protocol: Protocol
    samples: tuple[Sample, ...] = ()
    answers: tuple[Answer, ...] = ()
    sentinel: tuple[Sentinel, ...] = ()
    host: tuple[Host, ...] = ()
    memory: tuple[Memory, ...] = ()
    limits: tuple[Limit, ...] = ()
    energy: Energy = Energy(None, "nothing was measured yet")
    cold: tuple[Cold, ...] = ()
    """Of every process that was started, those of the rounds too."""
    warmups: tuple[Warmup, ...] = ()
    minutes: tuple[Minute, ...] = ()
    load: tuple[Load, ...] = ()
    quality: tuple[Score, ...] = ()
    instructions: tuple[Instructions, ...] = ()
    peaks: Peaks | None = None
    roofline: tuple[Roof, ...] = ()
    layers: tuple[Layer, ...] = ()
    results: Results = Results()
    validity: Validity = Validity()
    notes: dict[str, Any] = {}
    """What people wrote beside it: keys of the file that start with ``x-``."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.task for each in self.inputs.items))

    @property
    def rounds(self) -> tuple[Sample, ...]:
        """The answers that count."""
        return tuple(sample for sample in self.samples if sample.phase == "round")

    def absolute(self, c: int, metric: str, stat: str = "median") -> Absolute | None:
        """What is known of a measure of a candidate."""
        return next((a for a in self.results.abs if (a.c, a.metric, a.stat) == (c, metric, stat)), None)

    def ratio(self, c: int, metric: str = "answer_ms") -> Ratio | None:
        """A candidate's ratio to the baseline."""
        return next((r for r in self.results.ratios if (r.c, r.metric) == (c, metric)), None)
