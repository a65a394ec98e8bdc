import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from mmedge.profiling.json_schema import FILE, encoded, json_schema
from mmedge.profiling.keep import encode_run


@pytest.fixture(scope="module")
def validator():
    return Draft202012Validator(json_schema())


def test_the_file_is_current():
    assert FILE.read_bytes() == encoded(), "run: python -m mmedge.profiling.json_schema"


def test_it_is_a_schema():
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("told", [{}, {"extras": True}, {"finished": False, "complete": False}, {"task": "ask"}])
def test_runs_are_valid(validator, make_run, told):
    validator.validate(msgspec.json.decode(encode_run(make_run(rounds=8, **told))))


def test_notes_are_valid_at_the_top_only(validator, make_run):
    found = msgspec.json.decode(encode_run(replace(make_run(rounds=4), notes={"x-job": {"id": 7}})))
    validator.validate(found)
    found["machine"]["x-job"] = 7
    assert [error.validator for error in validator.iter_errors(found)] == ["additionalProperties"]


def test_unknown_keys_and_wrong_types_are_not(validator, make_run):
    found = msgspec.json.decode(encode_run(make_run(rounds=4)))
    found["colour"] = found["samples"][0]["answer_ns"] = "red"
    assert {error.validator for error in validator.iter_errors(found)} == {"additionalProperties", "type"}
