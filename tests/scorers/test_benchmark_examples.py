"""Examples in the forms in which benchmarks come, and what is none."""

from __future__ import annotations

import json

import pytest

from tamis.pipeline.errors import TamisError
from tamis.scorers.benchmark_examples import example_text, read_examples

CAPITAL = "What is the capital of France?"
PARIS = f"{CAPITAL}\nParis"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"question": CAPITAL, "answer": "Paris"}, PARIS),
        ({"question": CAPITAL, "answers": ["Paris", "Lutetia"]}, PARIS),
        ({"question": CAPITAL, "answer": {"value": "Paris", "aliases": ["x"]}}, PARIS),
        ({"question": CAPITAL, "answers": {"text": ["Paris"], "answer_start": [3]}}, PARIS),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"], "gold": 1}, PARIS),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"], "answer": "B"}, PARIS),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"], "answer": "Paris"}, PARIS),
        ({"question": CAPITAL, "options": ["Rome", "Paris"], "label": "1"}, PARIS),
        (
            {
                "question": CAPITAL,
                "choices": {"text": ["Rome", "Paris"], "label": ["1", "2"]},
                "answerKey": "2",
            },
            PARIS,
        ),
        (
            {
                "question_stem": CAPITAL,
                "choices": [{"text": "Rome", "label": "A"}, {"text": "Paris", "label": "B"}],
                "answerKey": "B",
            },
            PARIS,
        ),
        (
            {"question": "Is it?", "passage": "It is a city.", "answer": True},
            "Is it?\nyes\nIt is a city.",
        ),
        ({"question": "Is it?", "answer": False}, "Is it?\nno"),
        (
            {
                "question": CAPITAL,
                "correct_answer": "Paris",
                "distractor1": "Rome",
                "support": "Paris is on the Seine.",
            },
            f"{PARIS}\nParis is on the Seine.",
        ),
        ({"question": "How many?", "choices": ["3", "0", "1"], "answer": "1"}, "How many?\n1"),
        ({"question": "2 + 2?", "answer": 0}, "2 + 2?\n0"),
        ({"ctx": "He opens", "endings": ["a door.", "it."], "label": 0}, "He opens\na door."),
        ({"context": "Q: 1?\nA:", "choices": ["yes", "no"], "gold": 1}, "Q: 1?\nA: no"),
        ({"context": "def f():\n", "continuation": "    return 1"}, "def f():\n    return 1"),
        ({"context": "1,", "continuation": "2", "delimiter": ""}, "1,2"),
        ({"text": " A passage that ends in a word "}, "A passage that ends in a word"),
        ({"arguments": [["A:", " yes"], ["A:", " no"]], "target": 1}, "A: no"),
        ({"arguments": [["A:", " yes"], ["A:", " no"]], "target": "no"}, "A: no"),
        ({"arguments": {"gen_args_0": {"arg_0": "A:", "arg_1": " word"}}}, "A: word"),
    ],
)
def test_forms(record, text):
    assert example_text(record) == text


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"question": CAPITAL}, "no correct answer"),
        ({"question": CAPITAL, "answer": ""}, "no correct answer"),
        ({"question": CAPITAL, "answer": "  "}, "answer is no answer: '  '"),
        ({"question": CAPITAL, "answer": None, "label": None}, "no correct answer"),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"]}, "no correct answer"),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"], "gold": -1}, "gold is -1, and the"),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"], "gold": 2}, "choices are 0 to 1"),
        ({"question": CAPITAL, "choices": ["Rome", "Paris"], "gold": True}, "gold is True"),
        ({"question": CAPITAL, "choices": "Rome", "gold": 0}, "choices has to be a list"),
        ({"context": "Q:", "choices": ["a", " "], "gold": 1}, "gold is no answer"),
        ({"answer": "Paris"}, "no question: an example has one under question"),
        ({"arguments": [["Q:", {"until": []}]]}, "give question and answer"),
        ({"arguments": [["Q:", " "]]}, "the correct answer is empty"),
        ({"arguments": [["Q:", " a"], ["Q:", " b"]]}, "target is None"),
        ({}, "this has nothing"),
    ],
)
def test_what_is_no_example_is_said_with_its_place(record, sentence):
    with pytest.raises(TamisError, match=r"^q\.jsonl:3: ") as error:
        example_text(record, "q.jsonl:3")
    assert sentence in str(error.value)


def test_a_file(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": CAPITAL, "answer": "Paris"}) + "\n\n")
    assert read_examples(str(path)) == [PARIS]
    with path.open("a") as file:
        file.write(json.dumps({"question": CAPITAL, "choices": ["Rome", "Paris"]}) + "\n")
    with pytest.raises(TamisError, match=r"q\.jsonl:3: no correct answer"):
        read_examples(str(path))
    path.write_text("\n")
    with pytest.raises(TamisError, match="there are no examples in it"):
        read_examples(str(path))
