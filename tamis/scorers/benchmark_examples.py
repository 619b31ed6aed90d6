"""Examples of benchmarks as texts: the question, the correct answer, and what goes with them.

A file is JSONL, an example a line, in the forms in which benchmarks are passed around:

    {"question": "...", "answer": "..."}                     or answers, correct_answer
    {"question": "...", "choices": ["...", ...], "gold": 2}  or answer, answerKey, label, target
    {"question": "...", "correct_answer": "...", "support": "a passage"}
    {"context": "Q: ...\\nA:", "choices": ["yes", "no"], "gold": 0}
    {"context": "def add(a, b):", "continuation": "return a + b"}
    {"arguments": [["Q: ...\\nA:", " yes"], ...], "target": 0}    samples logged by lm-eval
    {"text": "a passage"}                                     as LAMBADA, whose last word is asked

The right choice is given by its number from 0, by its letter or label, or as its text. Choices may
also be ``{"text": [...], "label": [...]}``, answers ``{"text": [...]}`` or ``{"value": "..."}``; of
several answers the first counts. A passage (``support``, ``passage``, or ``context`` beside a
question) goes behind the answer. Use the training part of a benchmark, without few-shot examples in
the question.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from tamis.pipeline.errors import TamisError
from tamis.pipeline.readers.json_lines import json_lines

QUESTIONS = ("question", "question_stem", "query", "problem", "goal", "prompt", "ctx")
CHOICES = ("choices", "endings", "options")
ANSWERS = (
    *("gold", "answerKey", "label", "target", "answer", "answers"),
    *("correct_answer", "best_answer", "solution"),
)
PASSAGES = ("support", "passage", "context", "explanation")


def read_examples(path: str) -> list[str]:
    """The texts of the examples in a JSONL file (.gz, .zst, .bz2 too; local or any fsspec URL).

    Raises:
        TamisError: for an example without a question or a correct answer, with file and line, and
            for a file without examples.
    """
    texts = [example_text(record, place) for place, record in json_lines(path)]
    if not texts:
        raise TamisError(f"{path}: there are no examples in it")
    return texts


def example_text(record: Mapping[str, Any], place: str = "the example") -> str:
    """One example as a text: question, correct answer and passage, one behind the other.

    Raises:
        TamisError: if it has no question or no correct answer; ``place`` says where it stands.
    """
    if "arguments" in record:
        return _rendered(record, place)
    asked = next((key for key in QUESTIONS if _is_text(record.get(key))), None)
    if asked is None and _is_text(record.get("context")):
        return _continued(record, place)
    if asked is None:
        if _is_text(record.get("text")):
            return str(record["text"]).strip()
        raise TamisError(
            f"{place}: no question: an example has one under {', '.join(QUESTIONS)}, or context, "
            f"arguments or text; this has {', '.join(record) or 'nothing'}"
        )
    passages = [str(record[key]) for key in PASSAGES if _is_text(record.get(key))]
    parts = (str(record[asked]), _answer(record, place), *passages)
    return "\n".join(part.strip() for part in parts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _continued(record: Mapping[str, Any], place: str) -> str:
    """A context with what goes behind it."""
    more = record.get("continuation")
    answer = more if isinstance(more, str) and more.strip() else _answer(record, place)
    context, delimiter = str(record["context"]), record.get("delimiter", " ")
    if context[-1].isspace() or answer[0].isspace() or not isinstance(delimiter, str):
        delimiter = ""
    return f"{context}{delimiter}{answer}".strip()


def _rendered(record: Mapping[str, Any], place: str) -> str:
    """The right one of the requests that lm-eval logged."""
    given = record["arguments"]
    given = list(given.values()) if isinstance(given, dict) else given
    pairs: list[Any] = [
        [one.get("arg_0"), one.get("arg_1")] if isinstance(one, dict) else one
        for one in (given if isinstance(given, list) else [])
    ]
    if not pairs or not all(
        isinstance(one, list) and [type(part) for part in one] == [str, str] for one in pairs
    ):
        raise TamisError(
            f"{place}: arguments has to be a list of [context, continuation]; for items that are "
            "answered by generating give question and answer"
        )
    right = 0
    if len(pairs) > 1:
        key = "gold" if "gold" in record else "target"
        right = _index(record.get(key), [pair[1].strip() for pair in pairs], None, key, place)
    if not pairs[right][1].strip():
        raise TamisError(f"{place}: the correct answer is empty")
    return "".join(pairs[right]).strip()


def _answer(record: Mapping[str, Any], place: str) -> str:
    """The text of the correct answer."""
    key = next((key for key in ANSWERS if record.get(key) not in (None, "", [])), None)
    if key is None:
        raise TamisError(
            f"{place}: no correct answer: it is under {', '.join(ANSWERS)}, and the test part of "
            "some benchmarks comes without one"
        )
    listed = next((record[one] for one in CHOICES if record.get(one)), None)
    if listed is None:
        answer = _plain_answer(record[key])
    else:
        choices, labels = _choices(listed, place)
        given = record[key]
        given = given[0] if isinstance(given, list) else given
        answer = choices[_index(given, choices, labels, key, place)]
    if not answer.strip():
        raise TamisError(f"{place}: {key} is no answer: {record[key]!r:.60}")
    return answer


def _plain_answer(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("value", value.get("text"))
    if isinstance(value, list):
        return _plain_answer(value[0]) if value else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int | float) else ""


def _choices(listed: Any, place: str) -> tuple[list[str], list[str] | None]:
    """(choices, their labels)."""
    labels = None
    if isinstance(listed, dict):
        labels, listed = listed.get("label"), listed.get("text")
    if isinstance(listed, list) and all(isinstance(one, dict) for one in listed):
        labels = [one.get("label") for one in listed]
        listed = [one.get("text") for one in listed]
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise TamisError(f"{place}: choices has to be a list of strings")
    known = isinstance(labels, list) and len(labels) == len(listed)
    return listed, [str(label) for label in labels] if known and labels else None


def _index(given: Any, choices: list[str], labels: list[str] | None, key: str, place: str) -> int:
    """Which choice is meant: a label comes before a text, a text before a letter or a number."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(choices):
        return given
    if isinstance(given, str):
        said = given.strip()
        letters = list(string.ascii_uppercase[: len(choices)])
        numbers = [str(number) for number in range(len(choices))]
        for names in (labels or [], [one.strip() for one in choices], letters, numbers):
            if said in names:
                return names.index(said)
    raise TamisError(
        f"{place}: no correct answer: {key} is {given!r:.40}, and the choices are 0 to "
        f"{len(choices) - 1}"
    )
