import json

import pytest

slow = pytest.mark.slow


def test_an_empty_question_is_a_usage_error(mmedge, tmp_path):
    assert mmedge("ask", tmp_path, "photo.jpg", " ") == (2, "", "error: the question is empty\n")


@slow
def test_an_answer_is_one_line(mmedge, answerer, pictures):
    shown = mmedge("ask", answerer, pictures / "red.png", "what colour is it?")
    assert (shown.code, shown.out.count("\n"), shown.err) == (0, 1, "")


@slow
def test_other_pictures_and_questions_lead_to_other_answers(mmedge, answerer, pictures):
    answers = [
        json.loads(mmedge("ask", answerer, pictures / name, question, "--json").out)["tokens"]
        for name in ("red.png", "blue.png")
        for question in ("what colour is it?", "who is there?")
    ]
    assert len({tuple(tokens) for tokens in answers}) > 1


@slow
def test_a_question_is_asked_of_every_picture_of_a_folder(mmedge, answerer, pictures):
    shown = mmedge("ask", answerer, pictures, "what?", "--json")
    named = [json.loads(line)["picture"] for line in shown.out.splitlines()]
    assert (shown.code, named) == (0, [str(pictures / "blue.png"), str(pictures / "red.png")])


@slow
def test_a_bundle_that_only_answers_questions_says_so(mmedge, answerer, pictures):
    shown = mmedge("caption", answerer, pictures / "red.png")
    assert shown == (2, "", "error: this bundle cannot `caption`\n\nhint: it can: ask\n")


@slow
def test_a_picture_that_is_none_exits_3_with_one_json_object(mmedge, answerer, pictures):
    shown = mmedge("ask", answerer, pictures / "notes.txt", "what?", "--json")
    assert shown.code == 3 and json.loads(shown.out)["error"]["exit_code"] == 3
