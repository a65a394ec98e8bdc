"""``mmedge chat``"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mmedge.commands._answer import STDIN, Answering, Dashed, expand
from mmedge.commands._lines import CtrlC, EndOfTalk, is_typed, piped_lines, typed_lines
from mmedge.commands._shown_answers import for_terminal, json_line, told
from mmedge.core.names import readable
from mmedge.errors import ContextError, InputError, UsageError
from mmedge.signals import SIGNALLED

if TYPE_CHECKING:
    from mmedge.commands._conversation import Conversation, Reply, Seen

HELP = """\
/image FILE        show a picture with the next message
/history           what was said
/clear             forget what was said; once more: the pictures that wait, too
/timings [on|off]  after each answer, how long it took
/help              this
/quit              end, as Ctrl-D does
Ctrl-C stops an answer; what it said so far stays.
A message that begins with a / needs a space before it."""


def chat(bundle: Path, /, *pictures: Dashed, options: Answering = Answering()) -> int:
    """Talk with a model, about pictures or without.

    Args:
        bundle: A folder that `mmedge export` wrote.
        pictures: What the first message is about: picture files, or folders of them.
    """
    from mmedge.commands._conversation import Conversation, see
    from mmedge.core.bundle import open_bundle
    from mmedge.runtime.model import check_task
    from mmedge.runtime.pick import sampler
    from mmedge.runtime.pipeline import open_pipeline

    names = list(expand(pictures))
    if STDIN in names:
        raise UsageError("standard input has the messages, so it cannot be a picture", hint="name a file")
    pick = sampler(options.temperature, options.top_p, options.seed)
    opened = open_bundle(bundle)
    check_task("chat", opened.manifest.tasks)
    typed, look = is_typed(), partial(see, reject_animated=options.animated == "reject")
    seen = [look(Path(name)) for name in names]
    with open_pipeline(opened, backend=options.backend, threads=options.threads, remember=True) as pipeline:
        conversation = Conversation(pipeline, pick, options.max_tokens)
        chatting = Chat(conversation, look, pipeline.backends, typed=typed, json=options.json)
        for each in seen:
            chatting.add(each)
        return chatting.run()


Command: TypeAlias = Callable[[str], None]


class Chat:
    """A conversation at a terminal or through a pipe: answers on standard output, all else on standard error."""

    def __init__(
        self,
        conversation: Conversation,
        look: Callable[[Path], Seen],
        engines: dict[str, str],
        *,
        typed: bool,
        json: bool,
    ) -> None:
        self.conversation = conversation
        self.look = look
        self.engines = engines
        self.typed = typed
        self.json = json
        self.live = not json and sys.stdout is not None and sys.stdout.isatty()
        self.ctrl_c = CtrlC()
        self.timings = False
        self.failed = False
        self._begun = False
        self._commands: dict[str, Command] = {
            "/image": self._image,
            "/history": self._history,
            "/clear": self._clear,
            "/timings": self._timings,
            "/help": self._help,
        }

    def run(self) -> int:
        """Hear until there is no more. Of a pipe the exit code tells whether something could not be answered."""
        if not self.typed:
            self._hear_all(piped_lines())
            return InputError.exit_code if self.failed else 0
        _notice(f"{', '.join(dict.fromkeys(self.engines.values()))}; /help lists the commands, Ctrl-D ends")
        try:
            with self.ctrl_c:
                self._hear_all(typed_lines(self._prompt, self.ctrl_c))
        except EndOfTalk:
            _notice()
            return SIGNALLED + signal.SIGINT
        return 0

    def _hear_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip() == "/quit":
                return
            if line.strip():
                self._hear(line)

    def _hear(self, line: str) -> None:
        try:
            if line.startswith("/"):
                self._command(line)
            else:
                self._say(line.strip())
        except ContextError as error:
            self._refuse(InputError(error.message, hint=self._way_out() or error.hint), line)
        except InputError as error:
            self._refuse(error, line)

    def _way_out(self) -> str | None:
        if not (said := len(self.conversation.said)):
            return None
        return f"nothing is lost; /clear forgets the {_count(said, 'message')} before, then send it again"

    def _say(self, text: str) -> None:
        self._begun = False
        pictures = [seen.name for seen in self.conversation.waiting]
        try:
            reply = self.conversation.answer(text, self._piece, self.ctrl_c.stopping)
        finally:
            if self._begun:
                print(flush=True)
        self._show(reply, text, pictures)

    def _piece(self, text: str) -> None:
        text = text if self._begun else text.lstrip()
        if self.live and text:
            print(for_terminal(text), end="", flush=True)
            self._begun = True

    def _show(self, reply: Reply, message: str, pictures: list[str]) -> None:
        import msgspec

        from mmedge.commands._conversation import ended, spent

        if self.json:
            fields = msgspec.structs.asdict(reply) | {"tokens_per_second": reply.tokens_per_second}
            asked = {"message": message, "pictures": [readable(name) for name in pictures]}
            print(json_line(asked | fields | {"engines": self.engines}), flush=True)
        elif not self.live:
            print(reply.text, flush=True)
        if self.timings:
            _notice(spent(reply))
        if words := ended(reply):
            _notice(words)

    def _refuse(self, error: InputError, line: str) -> None:
        self.failed = True
        if self.json:
            print(json_line({"message": readable(line), "error": told(error)}), flush=True)
        hint = f" ({error.hint})" if error.hint else ""
        _notice(f"error: {error.message}{hint}")

    def _prompt(self) -> str:
        return "".join(f"[{Path(seen.name).name}] " for seen in self.conversation.waiting) + "> "

    def _command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if name not in self._commands:
            raise InputError(f"there is no command {name}", hint="/help lists them")
        self._commands[name](rest.strip())

    def add(self, seen: Seen) -> None:
        """A picture for the next message."""
        self.conversation.waiting.append(seen)
        for warning in seen.picture.warnings:
            _notice(f"warning: {seen.name}: {warning}")

    def _image(self, name: str) -> None:
        if not name:
            raise InputError("no picture is named", hint="/image photo.jpg")
        self.add(self.look(_path(name)))

    def _history(self, rest: str) -> None:
        for said in self.conversation.said:
            pictures = "".join(f"[{name}] " for name in said.names)
            _notice(f"> {pictures}{said.turn.text}\n{for_terminal(said.turn.answer)}")
        if not self.conversation.said:
            _notice("(nothing was said yet)")

    def _clear(self, rest: str) -> None:
        said, waiting = len(self.conversation.said), len(self.conversation.waiting)
        self.conversation.clear()
        forgotten = _count(said, "message") if said or not waiting else _count(waiting, "picture")
        _notice(f"(forgot {forgotten})")

    def _timings(self, rest: str) -> None:
        if rest not in ("", "on", "off"):
            raise InputError(f"timings are on or off, not `{rest}`")
        self.timings = rest == "on" if rest else not self.timings
        _notice(f"(timings are {'on' if self.timings else 'off'})")

    def _help(self, rest: str) -> None:
        _notice(HELP)


def _path(name: str) -> Path:
    """A file name as it was typed, or as terminals paste it: in quotes, or with a backslash before a space."""
    with suppress(ValueError):
        words = shlex.split(name)
        if len(words) == 1 and not os.path.exists(name):
            name = words[0]
    return Path(os.path.expanduser(name))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _notice(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)
