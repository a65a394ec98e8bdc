import json


def test_it_says_what_is_here_and_exits_0(mmedge):
    shown = mmedge("doctor")
    assert shown.code == 0 and "onnxruntime" in shown.out and max(map(len, shown.out.splitlines())) < 80


def test_json_tells_the_same(mmedge):
    told = json.loads(mmedge("doctor", "--json").out)
    assert told["can_run"] and told["interpreter"]["packages"]["numpy"]
    assert {"onnxruntime", "onnxruntime_gpu"} <= {engine["name"] for engine in told["interpreter"]["engines"]}


def test_where_nothing_can_run_it_exits_5(mmedge, monkeypatch):
    from mmedge.core import find
    from mmedge.errors import BackendError

    class Missing:
        def version(self):
            raise BackendError("it is not installed", hint="install it")

    monkeypatch.setattr(find, "backend", lambda name: Missing())
    shown = mmedge("doctor")
    assert shown.code == 5 and "no: it is not installed" in shown.out
