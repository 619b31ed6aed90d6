"""Answers as models write them, and a server that stops half way."""

from __future__ import annotations

import json
import re

import pytest

from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import load_settings
from tamis.scorers.annotate import RUBRIC, FitAnnotations, parse_score
from tests.generation.servers import reply, serving


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("It is fine.\n\nEducational score: 3", 3),
        ("Educational score: 3 points.", 3),
        ("**Educational score:** 4", 4),
        ("**Educational Score: 4**", 4),
        ("educational score - 2", 2),
        ("Educational score \u2013 2", 2),
        ("Educational score: <5>", 5),
        ("Educational score: [0]", 0),
        ("Educational score: 3/5", 3),
        ("Educational score: 3 out of 5", 3),
        ("The educational score is 2.", 2),
        ("Educational score: three", 3),
        ("Educational\nscore:\n1", 1),
        ("Educational score: 2.5", 2.5),
        ('"Educational score": "4"', 4),
        ("Educational score: <total points>\nEducational score: 1", 1),
        ("Educational score: 1. On second thought, educational score: 2", 2),
        ("Educational score: -1", None),
        ("Educational score: 7", None),
        ("Educational score: 3-4", None),
        ("Educational score: 3 to 4", None),
        ("Educational score: 3 or 4", None),
        ("Educational score: 30", None),
        ("Educational score: high", None),
        ("Score: 3", None),
        ("I would give 3 points.", None),
        ("", None),
        (RUBRIC, None),
    ],
)
def test_the_number_of_an_answer(answer, score):
    assert parse_score(answer) == score


def test_other_markers_and_scales():
    assert parse_score("Rating (1 to 10): 8", "Rating (1 to 10):", (1, 10)) == 8
    assert parse_score("Note: 11", "Note:", (1, 10)) is None


def rate(handler, body):
    """Rates the extract by the number in it; says nothing of use about one in ten."""
    number = int(re.search(r"document (\d+)", body["messages"][-1]["content"])[1])
    text = f"Because.\nEducational score: {number % 6}" if number % 10 else "I cannot say."
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 5}
    reply(handler, 200, {"choices": [choice], "usage": usage})


def broken(handler, body):
    reply(handler, 500, {"error": {"message": "out of memory"}})


def config_of(folder, url, **settings):
    corpus = folder / "corpus.jsonl"
    if not corpus.exists():
        records = [{"id": f"d{n:02d}", "text": f"This is document {n}. " * 3} for n in range(40)]
        corpus.write_text("".join(json.dumps(record) + "\n" for record in records))
    generator = {"url": url, "model": "judge", "retries": 0, "pause": 0, "concurrency": 1}
    values = {
        "sample": str(corpus),
        "generator": {"openai": generator},
        "output": str(folder / "ratings.jsonl"),
        "cache": str(folder / "answers"),
        **settings,
    }
    path = folder / "annotate.yaml"
    path.write_text(json.dumps(values))
    return path


def test_a_server_that_stops_half_way_is_not_paid_twice(tmp_path):
    pytest.importorskip("httpx")
    paid = []

    def counted(handler, body):
        paid.append(body["messages"][-1]["content"])
        rate(handler, body)

    with serving(broken) as server:
        server.script = [counted] * 15
        with pytest.raises(TamisError, match="out of memory"):
            fit("annotations", config_of(tmp_path, server.url))
        assert len(paid) == 15 and not (tmp_path / "ratings.jsonl").exists()
        server.otherwise = counted
        said = fit("annotations", config_of(tmp_path, server.url))
        assert len(paid) == 40 and len(set(paid)) == 40
        fit("annotations", config_of(tmp_path, server.url))
        assert len(paid) == 40
    lines = [json.loads(line) for line in (tmp_path / "ratings.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"d{n:02d}" for n in range(40)]
    assert [line["score"] for line in lines] == [n % 6 if n % 10 else None for n in range(40)]
    assert "without a rating that can be read: 4" in said
    assert lines[10]["answer"] == "I cannot say."
    quality = tmp_path / "quality.yaml"
    settings = {"labels": str(tmp_path / "ratings.jsonl"), "embedding": "hashed"}
    quality.write_text(json.dumps({**settings, "output": str(tmp_path / "edu.npz")}))
    assert "4 lines have no rating" in fit("quality", quality)


def test_what_the_model_is_asked(tmp_path):
    path = config_of(tmp_path, "http://localhost:1/v1", rubric="Rate {text}!", max_characters=5)
    prompt = load_settings(path, FitAnnotations).prompt("{text} and {braces} " * 1_000_000)
    assert prompt.user == "Rate {text!" and prompt.system == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rubric": "Rate it."}, "{text} has to stand where the document belongs"),
        ({"marker": ":"}, "marker: it needs a word"),
        ({"output": "ratings.csv"}, "the name of the ratings ends in .jsonl"),
        ({"generator": "gpt"}, "it is {openai: {url: URL, model: NAME}}"),
        ({"sample": "nowhere.jsonl"}, "sample: "),
    ],
)
def test_settings_that_will_not_do(tmp_path, settings, sentence):
    with pytest.raises((RecipeError, TamisError)) as error:
        fit("annotations", config_of(tmp_path, "http://localhost:1/v1", **settings))
    assert sentence in str(error.value)


def test_a_model_that_rates_nothing(tmp_path):
    pytest.importorskip("httpx")

    def silent(handler, body):
        choice = {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
        reply(handler, 200, {"choices": [choice], "usage": {}})

    with (
        serving(silent) as server,
        pytest.raises(TamisError, match="none of 40 answers has a number behind"),
    ):
        fit("annotations", config_of(tmp_path, server.url))
    assert not (tmp_path / "ratings.jsonl").exists()
