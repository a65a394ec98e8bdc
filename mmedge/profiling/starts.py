"""How long a fresh process took to its first answer, split by what it was spent on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mmedge.profiling.messages import Answered, Hello, Loaded
from mmedge.profiling.run import Cold


class Start(NamedTuple):
    """A process that has opened its bundle."""

    born_ns: int
    """When it was asked for."""
    hello: Hello
    loaded: Loaded

    def ledger(self, c: int, pages: Literal["cold", "warm"], answered: Answered) -> Cold:
        """The start of candidate ``c`` up to its first answer; the parts add up to the total."""
        end_ns = answered.start_ns + answered.answer_ns
        verify, compiling = (self.loaded.spent.get(name, 0.0) for name in ("verify", "compile"))
        return Cold(
            c=c,
            pages=pages,
            compiled=self.loaded.compiled,
            process_s=_seconds(self.hello.began_ns - self.born_ns),
            import_s=_seconds(self.hello.ready_ns - self.hello.began_ns),
            verify_s=round(verify, 6),
            compile_s=round(compiling, 6),
            load_s=round(_seconds(self.loaded.ended_ns - self.hello.ready_ns) - verify - compiling, 6),
            answer_s=_seconds(end_ns - self.loaded.ended_ns),
            total_s=_seconds(end_ns - self.born_ns),
        )


def _seconds(ns: int) -> float:
    return round(ns / 1e9, 6)
