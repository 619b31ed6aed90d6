from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.filters.c4_quality import LINES_REMOVED, C4Quality
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Rule

GOOD = "This line has enough words.\n"
POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def documents_of(texts: list[str | None]) -> Documents:
    ids = pa.array([str(i) for i in range(len(texts))])
    return Documents(
        pa.RecordBatch.from_arrays([ids, pa.array(texts, pa.large_string())], ["id", "text"])
    )


def judge(text: str, **config: Any) -> tuple[str | None, str, dict[str, float]]:
    """(the field of the rule that failed, the new text, the measures)."""
    stage = C4Quality(**config)
    documents = documents_of([text])
    measures = stage.measure(documents)
    verdicts = stage.decide(measures)
    rule = verdicts.rules[verdicts.rule[0]].field if verdicts.rule[0] >= 0 else None
    return rule, stage.refine(documents).to_pylist()[0], {k: v[0] for k, v in measures.items()}


def slow(text: str, stage: C4Quality) -> tuple[dict[str, int], str]:
    """C4's rules for lines, one after the other, as they are written down."""
    counts = dict.fromkeys(("lines", *LINES_REMOVED, "lorem_ipsum", "curly_bracket"), 0)
    kept = []
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        # Blank lines are removed, or kept, like others but are not counted.
        number = 1 if words else 0
        counts["lines"] += number
        if stage.max_word_length is not None and any(len(w) > stage.max_word_length for w in words):
            counts["lines_long_word"] += 1
            continue
        if stage.remove_citations:
            line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if stage.require_terminal_punctuation and (
            not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")
        ):
            counts["lines_no_terminal_punctuation"] += number
            continue
        if stage.min_words_per_line is not None and len(words) < stage.min_words_per_line:
            counts["lines_few_words"] += number
            continue
        lower = line.lower()
        counts["lorem_ipsum"] += "lorem ipsum" in lower
        if stage.remove_javascript_lines and "javascript" in lower:
            counts["lines_javascript"] += 1
            continue
        counts["curly_bracket"] += "{" in line
        if stage.remove_policy_lines and any(phrase in lower for phrase in POLICY):
            counts["lines_policy"] += 1
            continue
        kept.append(line)
    return counts, "\n".join(kept).strip()


def test_a_good_page_keeps_its_lines_and_loses_what_is_around_them() -> None:
    text = "  Menu\r\n\n" + "\t" + GOOD * 4 + "\x0b" + "Is this the last one?  "
    rule, new, measures = judge(text)
    assert rule is None
    assert new == GOOD * 4 + "Is this the last one?"
    assert measures["sentences"] == 5
    assert measures["lines"] == 6
    assert measures["lines_no_terminal_punctuation"] == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a " + "x" * 1001 + " b.", "lines_long_word"),
        ("a " + "\u00e9" * 1001 + " b.", "lines_long_word"),
        ("It ends in three dots...", "lines_no_terminal_punctuation"),
        ("It ends in an ellipsis\u2026", "lines_no_terminal_punctuation"),
        ("There is no mark here", "lines_no_terminal_punctuation"),
        ("Two words.", "lines_few_words"),
        ("Please turn JavaScript on.", "lines_javascript"),
        ("Please turn java[12]script on.", "lines_javascript"),
        ("See file.JAVASCRIPT/x here.", "lines_javascript"),
        *((f"We say {phrase.upper()} here.", "lines_policy") for phrase in POLICY),
        ("This site uses coo\u212aies now.", "lines_policy"),
        ("Our COO\u212aIE Policy is this.", "lines_policy"),
    ],
)
def test_lines_are_removed(line: str, reason: str) -> None:
    rule, new, measures = judge(GOOD * 5 + line + "\n")
    assert rule is None
    assert new == (GOOD * 5).strip()
    assert {name: measures[name] for name in LINES_REMOVED} == {
        name: int(name == reason) for name in LINES_REMOVED
    }


@pytest.mark.parametrize(
    "line",
    [
        "a " + "\u00e9" * 1000 + " b.",
        "Her terms  of use are odd.",
        "The privacy\u00a0policy is odd.",
        "Cookies are used by us.",
        "The javascr\u0130pt is odd here.",
        "[1a] is a [edit ] of [citation].",
        "He said so '",
        'He said "so"',
    ],
)
def test_lines_that_stay(line: str) -> None:
    assert judge(GOOD * 5 + line)[1] == GOOD * 5 + line


def test_citations_are_cut_out() -> None:
    line = "One[1] two[] three[\u0663\u0664][edit] four[citation needed].[99]"
    assert judge(GOOD * 5 + line)[1] == GOOD * 5 + "One two three four."
    assert judge(GOOD * 5 + line, remove_citations=False)[1] == (GOOD * 5).strip()
    # What the citation stood behind stays, but for the ends of the document.
    first, last = "[1] The first line.", "The last line is here. [2]"
    text = f"{first}\n{GOOD * 3}In the middle of it. [3]\n{last}"
    expected = f"The first line.\n{GOOD * 3}In the middle of it. \nThe last line is here."
    assert judge(text, require_terminal_punctuation=False)[1] == expected


def test_what_comes_first_is_the_reason() -> None:
    lorem, curly = "Here is Lorem Ipsum again.\n", "Here is a { for you.\n"
    page = GOOD * 5
    assert judge(page + lorem + curly)[0] == "max_lorem_ipsum"
    assert judge(page + curly + lorem)[0] == "max_curly_bracket"
    assert judge(page + "Lorem ipsum in one { line.")[0] == "max_lorem_ipsum"
    assert judge(page + curly + lorem, max_curly_bracket=None)[0] == "max_lorem_ipsum"
    assert judge(page + curly + lorem, max_curly_bracket=1)[0] == "max_lorem_ipsum"
    assert judge(page + lorem, max_lorem_ipsum=None)[0] is None
    # Lines that go for another reason are not looked at.
    assert judge(page + "no final mark {\nTwo {.\nUse javascript { here.\n")[0] is None
    assert judge(page + "Our privacy policy is {.\n")[0] == "max_curly_bracket"


def test_too_few_sentences() -> None:
    assert judge(GOOD * 4)[0] == "min_sentences"
    assert judge(GOOD * 3 + "This is one. This is two.\n")[0] is None
    assert judge("")[0] == "min_sentences"
    assert judge("", min_sentences=None)[0] is None


def test_nulls_and_dropped_documents() -> None:
    stage = C4Quality()
    documents = documents_of([None, GOOD * 5, GOOD * 6])
    documents.alive[1] = False
    measures = stage.measure(documents)
    assert measures["lines"].tolist() == [0, 0, 6]
    assert stage.refine(documents).to_pylist()[2] == (GOOD * 6).strip()
    nothing = documents_of([])
    assert stage.refine(nothing).to_pylist() == []
    assert all(len(values) == 0 for values in stage.measure(nothing).values())


def test_it_is_a_stage_that_measures_what_its_rules_ask_for() -> None:
    stage = C4Quality()
    provided = [quantity.name for quantity in stage.provides()]
    measures = stage.measure(documents_of([GOOD]))
    assert set(provided) == set(measures)
    assert {rule.measure for rule in stage.rules()} <= set(provided)
    assert stage.rules()[2] == Rule("min_sentences", "<", "sentences")
    assert stage.name == "c4_quality"


PIECES = st.sampled_from(
    [
        *(
            "word",
            "a",
            ".",
            "?",
            '"',
            "...",
            "{",
            "[",
            "]",
            "[1]",
            "[edit]",
            "[citation needed]",
            "[\u0663]",
        ),
        *(
            "javascript",
            "Java",
            "Script",
            "lorem ipsum",
            "Lorem",
            "ipsum",
            "uses coo\u212aies",
            "\u0130",
        ),
        *(
            "terms of use",
            "privacy policy",
            "Cookie Policy",
            "use of cookies",
            "x" * 12,
            "\u00e9" * 11,
        ),
        *(
            "\n",
            "\r\n",
            "\r",
            "\x0b",
            "\x0c",
            "\x1c",
            "\x1d",
            "\x1e",
            "\x1f",
            "\x85",
            "\u2028",
            "\u2029",
        ),
        *(
            " ",
            " ",
            " ",
            "  ",
            "\t",
            "\u00a0",
            "\u3000",
            "\u200b",
            "\0",
            "\U0001f600",
            "\u4e00\u3002",
        ),
    ]
)
CONFIGS = st.fixed_dictionaries(
    {
        "max_word_length": st.sampled_from([None, 10, 1000]),
        "min_words_per_line": st.sampled_from([None, 0, 1, 3]),
        "require_terminal_punctuation": st.booleans(),
        "remove_citations": st.booleans(),
        "remove_javascript_lines": st.booleans(),
        "remove_policy_lines": st.booleans(),
    }
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=30).map("".join), max_size=5), CONFIGS)
def test_against_the_rules_as_they_are_written_down(
    texts: list[str], config: dict[str, Any]
) -> None:
    stage = C4Quality(**config)
    documents = documents_of(list(texts))
    measures = stage.measure(documents)
    expected = [slow(text, stage) for text in texts]
    for name in ("lines", *LINES_REMOVED, "lorem_ipsum", "curly_bracket"):
        assert measures[name].tolist() == [counts[name] for counts, _ in expected], name
    assert stage.refine(documents).to_pylist() == [text for _, text in expected]
    assert np.all(measures["sentences"] >= 0)
