"""Fast: a pipeline whose model says what it was told. Slow: a real one, through a pipe and at a terminal."""

import io
import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmedge.backends.replay import replay
from mmedge.commands import chat as command
from mmedge.commands._conversation import Conversation, see
from mmedge.core.family import Family, Prompt
from mmedge.errors import ContextError, InputError
from mmedge.media.text import Tokenizer
from mmedge.runtime.engine import Engine
from mmedge.runtime.pick import greedy
from mmedge.runtime.pipeline import Pipeline

slow = pytest.mark.slow
STOP, CAPACITY = 15, 40
WORDS = ("a", "star", "is", "red")


@pytest.fixture
def requests() -> list:
    """What the model was asked."""
    return []


@pytest.fixture
def pipeline(requests) -> Pipeline:
    """A model with a token for each letter of a conversation; it answers `star is red`."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models

    words = Library(models.WordLevel(dict(zip(WORDS, range(len(WORDS)), strict=True)), "a"))
    words.decoder = decoders.Metaspace(replacement="_", prepend_scheme="never")

    def prepare(config, tokenizer, request) -> Prompt:
        requests.append(request)
        length = 1 + sum(len(turn.text) + len(turn.answer) for turn in request.turns)
        if length >= CAPACITY:
            raise ContextError(f"the text is {length} tokens long, the model reads at most {CAPACITY - 1}")
        return Prompt({}, np.ones(length, np.int64), (STOP,), CAPACITY)

    nothing = lambda *_: ()  # noqa: E731
    decoder = replay(logits_of=[1, 2, 3, STOP])
    engine = Engine((decoder.graph,), {"decoder": decoder})
    family = Family(
        name="stub", architectures=(), tasks=nothing, components=nothing, prepare=prepare, generate=nothing, tiny=()
    )
    return Pipeline(family, {}, Tokenizer(words.to_str().encode()), engine, ("chat",))


@pytest.fixture
def conversation(pipeline) -> Conversation:
    return Conversation(pipeline, greedy, None)


@pytest.fixture
def talk(conversation, monkeypatch, capfd):
    """``talk("hello", "/clear")`` pipes these lines in: exit code, standard output, standard error."""

    def talk(*lines: str, json: bool = False):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = command.Chat(conversation, see, {"decoder": "replay"}, typed=False, json=json).run()
        return (code, *capfd.readouterr())

    return talk


def never() -> bool:
    return False


def test_each_line_of_a_pipe_is_a_message_and_only_answers_are_on_standard_output(talk, requests):
    code, out, _ = talk("hello", "", "and you", "/history")
    assert (code, out) == (0, "starisred\nstarisred\n")
    assert [turn.text for turn in requests[-1].turns] == ["hello", "and you"]
    assert requests[-1].earlier[0].answer == "starisred"


def test_a_picture_goes_with_the_next_message_alone(talk, requests, pictures):
    talk(f"/image {pictures / 'red.png'}", "one", "two")
    first, second = requests
    assert first.images[0].shape == (30, 40, 3)
    assert second.images == () and second.earlier[0].images[0] is first.images[0]


@pytest.mark.parametrize("spelling", ["'{}'", '"{}"', "{}", "  {}  "])
def test_a_picture_may_be_named_as_terminals_paste_it(talk, requests, pictures, spelling):
    (pictures / "red.png").rename(pictures / "my red.png")
    talk(f"/image {spelling.format(pictures / 'my red.png')}", "what")
    assert len(requests[0].images) == 1


def test_a_picture_may_be_named_with_a_backslash_before_a_space(talk, requests, pictures):
    (pictures / "red.png").rename(pictures / "my red.png")
    talk(f"/image {pictures}/my\\ red.png", "what")
    assert len(requests[0].images) == 1


@pytest.mark.parametrize("line", ["/image notes.txt", "/image none.png", "/image", "/nonsense", "/timings maybe"])
def test_what_cannot_be_done_is_one_line_and_the_conversation_goes_on(talk, pictures, monkeypatch, line):
    monkeypatch.chdir(pictures)
    code, out, err = talk(line, "hello")
    assert (code, out) == (3, "starisred\n")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_a_message_may_begin_with_a_slash_after_a_space(talk, requests):
    assert talk(" /etc is what")[0] == 0
    assert requests[0].text == "/etc is what"


def test_a_full_context_says_how_long_it_may_be_and_loses_nothing(talk, conversation, requests, pictures):
    code, out, err = talk("a" * 20, f"/image {pictures / 'red.png'}", "b" * 20)
    assert (code, out) == (3, "starisred\n")
    assert "at most 39" in err and "/clear forgets the 1 message before" in err
    assert (len(conversation.said), len(conversation.waiting)) == (1, 1)
    talk("/clear", "b" * 20)
    assert requests[-1].text == "b" * 20 and len(requests[-1].images) == 1 and not requests[-1].earlier


def test_an_answer_that_the_context_cuts_says_so(talk):
    _, out, err = talk("a" * 37)
    assert out == "staris\n" and "(cut: the model reads at most 40 tokens" in err


def test_clear_forgets_what_was_said_and_the_next_time_what_waits(talk, conversation, pictures):
    image = f"/image {pictures / 'red.png'}"
    assert "(forgot 2 messages)" in talk("a", "b", image, "/clear")[2] and len(conversation.waiting) == 1
    assert "(forgot 1 picture)" in talk("/clear")[2] and not conversation.waiting


def test_history_tells_messages_pictures_and_answers(talk, pictures):
    _, _, err = talk("/history", f"/image {pictures / 'red.png'}", "what", "/history")
    assert err == f"(nothing was said yet)\n> [{pictures / 'red.png'}] what\nstarisred\n"


def test_timings_are_told_after_each_answer_until_they_are_off(talk):
    _, _, err = talk("/timings", "hello", "/timings off", "again")
    told = [line for line in err.splitlines() if "first token" in line]
    assert len(told) == 1
    assert all(word in told[0] for word in ("tokens/s", "prepare", "encode", "prefill", "decode", "of 40 tokens"))


def test_quit_ends_before_the_lines_that_follow(talk):
    assert talk("/quit", "hello") == (0, "", "")


def test_help_names_every_command(talk, conversation):
    commands = command.Chat(conversation, see, {}, typed=False, json=False)._commands
    shown = talk("/help")[2]
    assert all(f"\n{name} " in f"\n{shown}" for name in (*commands, "/quit"))


def test_with_json_each_answer_is_an_object_and_so_is_an_error(talk, pictures):
    code, out, _ = talk(f"/image {pictures / 'red.png'}", "hello", f"/image {pictures / 'notes.txt'}", json=True)
    answer, error = map(json.loads, out.splitlines())
    assert answer["message"] == "hello" and answer["text"] == "starisred" and answer["tokens"] == [1, 2, 3]
    assert answer["pictures"] == [str(pictures / "red.png")] and answer["finish"] == "stop"
    assert answer["first_token_ms"] > 0 and answer["engines"] == {"decoder": "replay"}
    assert code == error["error"]["exit_code"] == 3 and "notes.txt" in error["error"]["message"]


def test_a_message_that_is_no_text_is_refused_and_the_next_is_answered(talk, pipeline):
    def prepare(request):
        raise InputError("the text is not valid Unicode at character 3")

    sound, pipeline.prepare = pipeline.prepare, prepare
    assert talk("gr\udcfc", json=True)[0] == 3
    pipeline.prepare = sound
    assert talk("hello")[1] == "starisred\n"


def test_an_answer_that_is_stopped_is_remembered_as_far_as_it_came(conversation):
    heard = []
    reply = conversation.answer("what", heard.append, lambda: len(heard) == 2)
    assert (reply.finish, reply.text) == ("stopped", "staris")
    assert conversation.said[0].turn.answer == "staris"
    assert conversation.answer("go on", heard.append, never).finish == "stop"


def test_a_message_stopped_before_the_first_word_is_not_remembered(conversation, pictures):
    conversation.waiting.append(see(pictures / "red.png"))
    begun = iter([False, True])
    reply = conversation.answer("what", print, lambda: next(begun))
    assert (reply.finish, reply.text) == ("stopped", "")
    assert not conversation.said and len(conversation.waiting) == 1


def test_a_limit_is_told(pipeline):
    reply = Conversation(pipeline, greedy, 2).answer("what", print, never)
    assert (reply.finish, len(reply.tokens)) == ("length", 2)


def test_standard_input_cannot_be_a_picture(mmedge, tmp_path):
    shown = mmedge("chat", tmp_path, "-")
    assert shown.code == 2 and "cannot be a picture" in shown.err


@slow
def test_a_bundle_that_cannot_chat_says_so_in_a_line(mmedge, captioner):
    assert mmedge("chat", captioner) == (2, "", "error: this bundle cannot `chat`\n\nhint: it can: caption, ask\n")


@slow
def test_closed_standard_input_exits_3(mmedge, talker, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    shown = mmedge("chat", talker)
    assert shown.code == 3 and "standard input is closed" in shown.err


@slow
def test_a_bad_picture_on_the_command_line_is_an_error(mmedge, talker, pictures, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert mmedge("chat", talker, pictures / "notes.txt").code == 3


@slow
def test_a_real_model_answers_messages_as_the_pipeline_does(mmedge, talker, pictures, monkeypatch):
    import mmedge as package
    from mmedge.core.family import Turn

    monkeypatch.setattr(sys, "stdin", io.StringIO("What is it?\nWhy?\n"))
    shown = mmedge("chat", talker, pictures / "red.png", "--max-tokens", 6, "--json")
    first, second = map(json.loads, shown.out.splitlines())
    with Image.open(pictures / "red.png") as image:
        red = np.asarray(image)
    with package.load(talker) as pipeline:
        want = pipeline.answer("chat", red, "What is it?", limit=6)
        earlier = (Turn((red,), "What is it?", want.text),)
        then = pipeline.answer("chat", (), "Why?", earlier=earlier, limit=6)
    assert (first["tokens"], second["tokens"]) == ([*want.tokens], [*then.tokens])
    assert shown.code == 0 and first["pictures"] == [str(pictures / "red.png")] and second["pictures"] == []


class Terminal:
    """A chat at a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self.ours, theirs = pty.openpty()
        line = [sys.executable, "-m", "mmedge", "chat", *map(str, arguments)]
        environment = os.environ | {"TERM": "dumb", "INPUTRC": os.devnull}
        self.child = subprocess.Popen(
            line, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment,
            preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def until(self, text: str) -> str:
        """What is shown until ``text``, and forget it."""
        while text not in self.shown:
            self.more()
        before, self.shown = self.shown.split(text, 1)
        return before

    def more(self) -> None:
        data = self._read()
        assert data, f"it ended with {self.shown!r}"
        self.shown += data

    def until_it_listens(self) -> str:
        """What is shown until a prompt that waits: a Ctrl-C before readline waits is noticed with the next key only."""
        while not (self.shown.endswith("> ") and self._asleep()):
            if select.select([self.ours], [], [], 0.05)[0]:
                self.more()
        before, self.shown = self.shown, ""
        return before.removesuffix("> ")

    def _asleep(self) -> bool:
        return Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def end(self) -> int:
        while data := self._read():
            self.shown += data
        os.close(self.ours)
        return self.child.wait(60)

    def _read(self) -> str:
        try:
            return os.read(self.ours, 4096).decode(errors="replace")
        except OSError:  # nobody has the other end any more
            return ""


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def start():
    """Starts a `Terminal`; what still runs at the end of the test is ended."""
    started = []

    def start(*arguments: object) -> Terminal:
        started.append(Terminal(*arguments))
        return started[-1]

    yield start
    for terminal in started:
        terminal.child.kill()
        terminal.child.wait(60)


@slow
def test_at_a_terminal_lines_are_edited_and_ctrl_d_ends(start, talker, pictures):
    terminal = start(talker, "--max-tokens", 4)
    terminal.until("> ")
    terminal.type(f"/image {pictures / 'red.png'}\n")
    terminal.until("\n[red.png] > ")
    terminal.type("What is it?\n")
    terminal.until("\n> ")
    terminal.type("\x1b[A\n")  # arrow up: the message again
    terminal.until("cut at 4 tokens")
    terminal.until("\n> ")
    terminal.type("/history\n")
    terminal.until("/history\r\n")
    history = terminal.until_it_listens()
    terminal.type("\x04")
    assert terminal.end() == 0
    assert "> [" in history and history.count("What is it?") == 2


@slow
def test_ctrl_c_stops_the_answer_and_the_next_one_ends(start, talker):
    terminal = start(talker, "--max-tokens", 100_000)
    terminal.until("> ")
    terminal.type("What is it?\r")
    terminal.until("What is it?\r\n")
    while not terminal.shown:  # until the answer begins
        terminal.more()
    terminal.type("\x03")
    terminal.until("(stopped)")
    terminal.until("> ")
    terminal.type("/history\r")
    terminal.until("> What is it?\r\n")
    assert terminal.until_it_listens().strip(), "what it said so far"
    terminal.type("\x03")
    terminal.until("(once more, or Ctrl-D, ends)")
    terminal.until_it_listens()
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown and "error" not in terminal.shown


@pytest.fixture(scope="session")
def talker(tmp_path_factory) -> Path:
    """A bundle of a tiny SmolVLM with random weights."""
    return tiny_talker(tmp_path_factory.mktemp("talker"))


def tiny_talker(folder: Path) -> Path:
    from importlib.util import module_from_spec, spec_from_file_location

    from mmedge.core import find
    from mmedge.export.build import export

    path = Path(__file__).parents[1] / "families" / "checkpoints" / "smolvlm.py"
    spec = spec_from_file_location("checkpoint_of_smolvlm", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    tiny = find.family("smolvlm").tiny[0]
    long = tiny | {
        "text_config": tiny["text_config"] | {"max_position_embeddings": 1 << 16}
    }  # long enough to be stopped
    checkpoint = module.make(long, folder / "checkpoint")
    export(str(checkpoint), output=folder / "tiny.bundle", precision="float32")
    return folder / "tiny.bundle"
