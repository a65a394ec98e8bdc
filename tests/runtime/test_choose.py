"""Which engine is chosen, and what is said about it."""

import logging

import pytest
from msgspec.structs import replace

from mmedge.backends.onnxruntime import OnnxRuntime
from mmedge.errors import BackendError, ResourceError, UsageError
from mmedge.runtime.choose import candidates, choose, open_chosen
from mmedge.runtime.ready import build_here, entry, ready


@pytest.fixture
def bundle(small_bundle, pretend, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(fallback: tuple[str, ...] = ("onnxruntime",), engine: str = "pretend"):
        def change(manifest):
            return replace(
                manifest,
                target=replace(manifest.target, backends=dict.fromkeys(("tower", "decode"), engine), fallback=fallback),
            )

        return small_bundle(change)

    return write


def names(chosen) -> dict[str, str]:
    return {component: backend.name for component, backend in chosen.items()}


def test_the_engine_of_the_target_goes_first_and_nothing_is_said(bundle, caplog):
    assert names(choose(bundle())) == {"encoder": "pretend", "decoder": "pretend"}
    assert not caplog.messages


@pytest.mark.parametrize(("state", "reason"), [("missing", "is not installed"), ("no gpu", "there is no GPU")])
def test_the_next_engine_is_taken_aloud_where_the_first_cannot_be_used(state, reason, bundle, pretend, caplog):
    pretend("PRETEND", state)
    with caplog.at_level(logging.WARNING):
        assert names(choose(bundle())) == {"encoder": "onnxruntime", "decoder": "onnxruntime"}
    (told,) = caplog.messages
    assert told.startswith("onnxruntime runs `encoder`, `decoder` instead of pretend: ") and reason in told


def test_every_engine_that_was_passed_over_is_told_in_order(bundle, pretend, caplog):
    pretend("PRETEND", "missing")
    choose(bundle(("onnxruntime_gpu", "onnxruntime")))
    assert [line.partition(":")[0].rpartition(" ")[2] for line in caplog.messages] == ["pretend", "onnxruntime_gpu"]
    assert "sudo apt install pretend" in caplog.text and "build for the CPU only" in caplog.text


def test_an_engine_that_this_version_lacks_is_passed_over(bundle, caplog):
    assert names(choose(bundle(engine="tensor-wonder")))["decoder"] == "onnxruntime"
    assert "this version has no engine `tensor-wonder`" in caplog.text


def test_an_engine_that_is_asked_for_is_not_replaced(bundle, pretend, caplog):
    pretend("PRETEND", "missing")
    assert names(choose(bundle(), "pretend"))["decoder"] == "pretend"
    with pytest.raises(UsageError, match="no backend is called"):
        choose(bundle(), "pretence")
    assert not caplog.messages


def test_without_a_fall_back_the_error_is_that_of_the_engine(bundle, pretend):
    pretend("PRETEND", "missing")
    with pytest.raises(BackendError, match="the module `pretend` is not installed"):
        choose(bundle(()))


def test_where_nothing_can_be_used_all_reasons_are_named(bundle, pretend):
    pretend("PRETEND", "missing")
    with pytest.raises(BackendError, match=r"pretend: .* is not installed; onnxruntime_gpu: .* CPU only") as caught:
        choose(bundle(("onnxruntime_gpu",)))
    assert caught.value.hint == "sudo apt install pretend"


def test_an_engine_whose_graph_was_refused_is_passed_over_for_its_role(bundle, caplog):
    made = bundle()
    decoder = made.manifest.graphs[1]
    kept = entry(made, decoder, choose(made)["decoder"])
    kept.make(build_here)
    kept.refuse("its logits are those of another model", wrong=True)
    assert names(choose(made)) == {"encoder": "pretend", "decoder": "onnxruntime"}
    assert "onnxruntime runs `decoder` instead of pretend: `decoder` on pretend was refused" in caplog.text
    assert "its logits are those of another model" in caplog.text
    kept.forgive()
    assert names(choose(made))["decoder"] == "pretend"


def test_a_device_that_no_engine_computes_on_is_not_taken_for_the_cpu(small_bundle):
    def change(manifest):
        return replace(manifest, target=replace(manifest.target, name="npu", options={"device": "NPU"}))

    made = small_bundle(change)
    with pytest.raises(BackendError, match="this version cannot run on the NPU of `npu`") as refused:
        choose(made)
    assert "--backend numpy" in refused.value.hint
    assert names(choose(made, "onnxruntime"))["decoder"] == "onnxruntime"


def opener_of(bundle):
    return lambda graph, engine: engine.open(graph, ready(bundle, graph, engine))


@pytest.fixture
def sound(monkeypatch):
    """ONNX Runtime opens whatever there is."""
    monkeypatch.setattr(OnnxRuntime, "open", lambda self, graph, artifact: Session(str(artifact)))


class Session(str):
    """Says what was opened."""

    def close(self) -> None:
        pass


def test_an_engine_that_refuses_a_graph_while_opening_is_passed_over_at_once(bundle, pretend, sound, caplog):
    made = bundle()
    pretend("PRETEND_DECODER", "refuse")
    chosen, sessions = open_chosen(made, None, opener_of(made))
    assert names(chosen) == {"encoder": "pretend", "decoder": "onnxruntime"}
    assert sessions["decoder"] == str(made.path / "graphs/decoder.onnx")
    assert "onnxruntime runs `decoder` instead of pretend: the graph has an operator that nobody knows" in caplog.text


@pytest.mark.parametrize(
    ("state", "reason"), [("closed", "pretend cannot open `decoder`"), ("full", "no memory for `decoder`")]
)
def test_what_is_kept_and_cannot_be_opened_now_is_passed_over_for_this_time_only(
    state, reason, bundle, pretend, sound, caplog
):
    made = bundle()
    open_chosen(made, None, opener_of(made))
    caplog.clear()
    pretend("PRETEND", f"{state} decoder")
    assert names(open_chosen(made, None, opener_of(made))[0])["decoder"] == "onnxruntime"
    (told,) = [line for line in caplog.messages if "instead" in line]
    assert told.startswith(f"onnxruntime runs `decoder` instead of pretend: {reason}; ")
    assert told.endswith(f"`mmedge compile {made.path}` tries again")
    pretend("PRETEND", "")
    assert names(open_chosen(made, None, opener_of(made))[0])["decoder"] == "pretend"


def test_what_was_told_of_one_graph_is_not_told_again_when_the_next_one_fails(bundle, pretend, sound, caplog):
    made = bundle()
    pretend("PRETEND_ENCODER", "refuse")
    pretend("PRETEND_DECODER", "refuse")
    open_chosen(made, None, opener_of(made))
    told = [line.partition(":")[0] for line in caplog.messages if "instead" in line]
    assert told == [f"onnxruntime runs `{component}` instead of pretend" for component in ("encoder", "decoder")]


def test_a_build_without_memory_is_passed_over_and_tried_again_by_the_next_start(bundle, pretend, sound, caplog):
    made = bundle()
    pretend("PRETEND_DECODER", "killed")
    assert names(open_chosen(made, None, opener_of(made))[0])["decoder"] == "onnxruntime"
    assert "was ended by the system" in caplog.text and "with more memory free, `mmedge compile" in caplog.text
    pretend("PRETEND_DECODER", "")
    assert names(open_chosen(made, None, opener_of(made))[0])["decoder"] == "pretend"


def test_without_another_engine_the_first_error_stands_and_so_does_its_kind(bundle, pretend):
    made = bundle(())
    pretend("PRETEND_DECODER", "refuse")
    with pytest.raises(BackendError, match=r"^the graph has an operator that nobody knows$"):
        open_chosen(made, None, opener_of(made))
    with pytest.raises(BackendError, match="was refused on this device: the graph has an operator"):
        open_chosen(made, None, opener_of(made))
    pretend("PRETEND", "full encoder")
    with pytest.raises(ResourceError, match="no memory for `encoder`"):
        open_chosen(made, "pretend", opener_of(made))


def test_an_engine_that_is_asked_for_is_not_replaced_while_opening(bundle, pretend):
    made = bundle()
    pretend("PRETEND_DECODER", "refuse")
    with pytest.raises(BackendError, match="an operator that nobody knows"):
        open_chosen(made, "pretend", opener_of(made))


def test_a_passed_over_engine_is_one_line_with_the_first_sentence_and_what_to_do(bundle, caplog):
    made = bundle()
    for graph in made.manifest.graphs:
        story = f"cannot build `{graph.component}`: no implementation; " + "a page of where in its code; " * 20
        entry(made, graph, choose(made, "pretend")["decoder"]).refuse(story, wrong=False)
    caplog.clear()
    choose(made)
    (told,) = caplog.messages
    assert told.startswith("onnxruntime runs `encoder`, `decoder` instead of pretend: ")
    assert "no implementation; `mmedge compile" in told and "a page" not in told


def test_an_engine_is_tried_once_however_often_it_is_named(bundle):
    target = bundle(("pretend", "onnxruntime")).manifest.target
    assert candidates(target, "decode") == ("pretend", "onnxruntime")


@pytest.mark.parametrize("refused", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", [BackendError, ResourceError, ZeroDivisionError])
def test_of_two_engines_nothing_stays_open_where_one_fails(small_bundle, refused, kind):
    def change(manifest):
        target = replace(manifest.target, backends={"tower": "openvino", "decode": "onnxruntime"}, fallback=())
        return replace(manifest, target=target)

    class Open:
        closed = False

        def close(self) -> None:
            self.closed = True

    opened = []

    def opener(graph, engine):
        if graph.component == refused:
            raise kind("it breaks")
        opened.append(Open())
        return opened[-1]

    with pytest.raises(kind, match="it breaks"):
        open_chosen(small_bundle(change), None, opener)
    assert [session.closed for session in opened] == [True]
