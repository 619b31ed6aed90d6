"""Labels from the answers of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from tamis.filters.refine import execute
from tamis.filters.refine.annotator import (
    _EDUCATION_SCORE,
    _FORMAT_SCORE,
    annotate,
    keeps_rated,
    merge_programs,
    score,
)
from tamis.filters.refine.chunks import chunks
from tamis.generation.generator import Answer, Generator, Prompt

BODY = [f"Sentence {number} says that the river is low in August." for number in range(8)]
PAGE = "\n".join(["Home", "About", *BODY, "See http://river.test/x here.", "Copyright 2014"])


class Rules(Generator):
    """Answers by what it is asked, as a model would."""

    kind: ClassVar[str] = "rules"
    education: int = 4

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        return [Answer(self._answer(one.user), 10, 10) for one in prompts]

    def _answer(self, question: str) -> str:
        if "Educational score" in question:
            return f"It explains.\nEducational score: {self.education}"
        if "Extraction Quality Score" in question:
            return "Clean.\n**Extraction Quality Score: 3**"
        if question.startswith("Find the navigation"):
            return "```python\n# menu\nremove_lines(line_start=0, line_end=1)\n```"
        if question.startswith("Find the web addresses"):
            return '```python\nnormalize(source_str=" http://river.test/x", target_str="")\n```'
        return "Sure:\n```python\nremove_lines(line_start=11, line_end=11)\n```"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(one.split()) for one in texts]

    def identity(self) -> str:
        return f"rules {self.education}"


def test_three_answers_make_one_program() -> None:
    (found,) = annotate(Rules(), [PAGE], cache=False)
    assert found is not None
    assert (found.education, found.format, found.keep, found.refused) == (4, 3, True, 0)
    assert execute(PAGE, found.program) == "\n".join([*BODY, "See here."])


def test_a_document_of_few_points_is_not_asked_about() -> None:
    (found,) = annotate(Rules(education=1), [PAGE], cache=False)
    assert found is not None
    assert (found.keep, found.program) == (False, "")
    assert annotate(Rules(education=9), [PAGE], cache=False) == [None]


@pytest.mark.parametrize(
    ("education", "form", "keep"),
    [(5, 0, True), (3, 0, True), (2, 4, True), (2, 3, False), (1, 5, False), (0, 5, False)],
)
def test_the_rule_of_the_paper(education: int, form: int, keep: bool) -> None:
    assert keeps_rated(education, form) == keep


def test_scores_are_the_last_ones() -> None:
    assert score("Educational score: 1 ... Educational score: <3>", _EDUCATION_SCORE) == 3
    assert score("educational SCORE: 4 points", _EDUCATION_SCORE) == 4
    assert score("Extraction Quality Score: 7", _FORMAT_SCORE) is None
    assert score("I cannot say", _FORMAT_SCORE) is None


@pytest.mark.parametrize(
    "refused",
    [
        "remove_lines(0, 1)",
        "I would remove the first line.",
        "```python\nremove_lines(line_start=0, line_end=9)\n```",
        "remove_lines(line_start=0, line_en",
    ],
)
def test_answers_that_are_left_out(refused: str) -> None:
    good = "remove_lines(line_start=11, line_end=11)"
    program, count = merge_programs(PAGE, chunks(PAGE), iter([refused, "untouch_doc()", good]))
    assert (program, count) == (good, 1)


def test_an_answer_about_other_lines_than_its_window_is_left_out() -> None:
    windows = chunks(PAGE, window=40)
    assert len(windows) > 1
    answers = ["remove_lines(line_start=11, line_end=11)", *["untouch_doc()"] * 2] * len(windows)
    program, count = merge_programs(PAGE, windows, iter(answers))
    assert (program, count) == ("remove_lines(line_start=11, line_end=11)", len(windows) - 1)
