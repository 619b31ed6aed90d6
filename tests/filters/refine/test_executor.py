"""What programs make of documents: known answers, the published executor, and properties."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.filters.refine import Limits, execute, keeps, run
from tamis.filters.refine.chunks import Chunk, chunks, join_programs
from tamis.filters.refine.edits import Replacement
from tamis.filters.refine.executor import (
    _occurrences_of_few,
    _occurrences_of_many,
    _split,
    apply,
)
from tamis.filters.refine.program import about_lines, normalize, parse, remove_lines

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "prox.json").read_text())
BODY = [f"Sentence {number} says that the river is low in August." for number in range(8)]
PAGE = "\n".join(["Home | About", *BODY, "(c) 2020 River & Sons"])


@pytest.mark.parametrize("case", VECTORS["prox_chunk"], ids=lambda case: case["program"][:40])
def test_vectors_of_the_published_executor(case: dict[str, Any]) -> None:
    outcome = run(case["text"], case["program"], compat="prox")
    assert (outcome.text or "", outcome.errors) == (case["expected"], case["num_error"])
    assert execute(case["text"], case["program"], "prox") == (case["expected"] or None)


@pytest.mark.parametrize("case", VECTORS["prox_doc"], ids=lambda case: case["program"])
def test_vectors_of_document_programs(case: dict[str, Any]) -> None:
    assert keeps(case["program"], compat="prox") is case["keep"]


@pytest.mark.parametrize(
    ("program", "kept", "errors"),
    [
        # A bracket that is missing costs an error and the last character: end=1 and end=.
        ("remove_lines(start=0,end=12", [*range(2, 10)], 1),
        ("remove_lines(start=0,end=0", [*range(10)], 2),
        ("remove_lines(start=5,end=3)", [*range(10)], 0),
        ("remove_lines(start=60,end=50)", [*range(10)], 0),
        ("remove_lines(start=8,end=40)", [*range(8)], 1),
        # Those out of range merge into one error before they are looked at.
        ("remove_lines(start=20,end=30)\nremove_lines(start=31,end=40)", [*range(10)], 1),
        ("remove_lines(start=20,end=30)\nremove_lines(start=32,end=40)", [*range(10)], 2),
        ("\tremove_lines(start=0,end=0)", [*range(10)], 0),
        (" remove_lines(start=0,end=0)", [*range(1, 10)], 0),
        ("remove_lines(end=0,start=0)", [*range(1, 10)], 0),
        ("remove_lines(0,1,2)", [*range(10)], 1),
        ("remove_lines(x=0,y=0,z=1)", [*range(1, 10)], 0),
    ],
)
def test_quirks_of_line_numbers(program: str, kept: list[int], errors: int) -> None:
    lines = PAGE.split("\n")
    outcome = run(PAGE, program, compat="prox")
    assert outcome.text == "\n".join(lines[number] for number in kept)
    assert outcome.errors == errors


@pytest.mark.parametrize(
    ("arguments", "becomes", "errors"),
    [
        ('source_str="low, in"', "low, in x=1 (b)", 1),
        ('source_str="low, in", target_str=""', "low, in x=1 (b)", 0),
        ('source_str="x=1", target_str=""', "low, in =1 (b)", 0),
        ('source_str="(b)", target_str=""', "low, in x=1 )", 0),
        ("source_str='low', target_str=''", "low, in x=1 (b)", 0),
        ('source_str="low"', ", in x=1 (b)", 0),
        ('source_str=" ", target_str=""', "low, in x=1 (b)", 0),
        ('source_str="", target_str="y"', "low, in x=1 (b)", 0),
        ('"low"', "low, in x=1 (b)", 1),
    ],
)
def test_quirks_of_strings(arguments: str, becomes: str, errors: int) -> None:
    text = "\n".join([*BODY, "low, in x=1 (b)"])
    outcome = run(text, f"normalize({arguments})", compat="prox")
    assert outcome.text is not None
    assert outcome.errors == errors
    assert outcome.text.split("\n")[-1] == becomes


def test_errors_of_the_published_executor_do_not_keep_what_is_too_short() -> None:
    assert execute("only five words stand here", "keep_all()", "prox") is None
    assert execute("", "keep_all()", "prox") is None
    outcome = run(PAGE, "remove_lines(all=True)\nremove_lines\nremove_lines", "prox")
    assert (outcome.errors, outcome.text, outcome.dropped_by) == (2, None, "min_words_left")
    mistaken = "remove_lines(start=1,end=2)\nremove_lines\nremove_lines"
    assert execute(PAGE, mistaken, "prox") == PAGE


def test_lines_and_strings_go() -> None:
    program = (
        "remove_lines(line_start=0, line_end=0)\nremove_lines(start=9, end=9)\n"
        'normalize(source_str="(c) 2020, x=1", target_str="")\n'
        'normalize(source_str=" in August.", target_str="!")'
    )
    outcome = run(PAGE, program)
    assert outcome.text == "\n".join(one.replace(" in August.", "!") for one in BODY)
    assert outcome.removed == ((0, 0), (9, 9))
    assert outcome.replaced == (Replacement(" in August.", "!", 8),)
    assert (outcome.errors, outcome.unknown, outcome.cut, outcome.dropped_by) == (0, 0, 0, None)
    assert outcome.words_left == 8 * 8 and outcome.removed_fraction == pytest.approx(1 - 64 / 88)


def test_strings_are_those_the_model_saw() -> None:
    text = "\n".join(["ab abc b c (d) | d=1, e", *BODY])
    for program, first in [
        # Not the outcome of the call before; of two that begin together the longer.
        ([("ab", "b"), ("b", "X")], "b bc X c (d) | d=1, e"),
        ([("ab", ""), ("abc", "Y")], " Y b c (d) | d=1, e"),
        ([("ab", "1"), ("ab", "2")], "1 1c b c (d) | d=1, e"),
        ([(" (d) | d=1, e", ""), ("c", "é")], "ab abé b é"),
        ([("nowhere", "x"), ("\ud800", "y"), ("ab", "é")], "é éc b c (d) | d=1, e"),
    ]:
        calls = "\n".join(normalize(*one) for one in program)
        text_after = execute(text, calls)
        assert text_after is not None and text_after.split("\n")[0] == first


@pytest.mark.parametrize("known", [[], ["River & Sons"], ["River", "& Sons", "Sons"]])
def test_many_strings_of_which_some_are_no_text(known: list[str]) -> None:
    calls = [normalize(one) for one in [*map(chr, range(0xD800, 0xD820)), "x" * 300, *known]]
    after = execute(PAGE, "\n".join(calls))
    assert after is not None
    assert after.split() == [
        one for one in PAGE.split() if not known or one not in ("River", "&", "Sons")
    ]


def test_calls_are_about_the_lines_of_their_chunk() -> None:
    program = "\n".join(
        [
            about_lines(0, 3),
            normalize("Sentence", "S"),
            about_lines(4, 9),
            remove_lines(9, 9),
            normalize("River & Sons"),
        ]
    )
    after = run(PAGE, program)
    assert after.text == "\n".join(
        ["Home | About", *(one.replace("Sentence", "S") for one in BODY[:3]), *BODY[3:]]
    )
    # A string in a line that goes is not replaced.
    assert after.replaced == (Replacement("Sentence", "S", 3),)
    # What the model of a chunk says about lines that it was not shown is an error.
    outside = run(PAGE, f"{about_lines(4, 9)}\n{remove_lines(3, 4)}")
    assert (outside.removed, outside.errors) == (((4, 4),), 1)
    assert run(PAGE, f"{about_lines(4, 7)}\nremove_lines(all=True)").removed == ((4, 7),)


def test_programs_with_errors_are_ignored_and_one_is_allowed() -> None:
    one = f"{remove_lines(0, 0)}\n{remove_lines(50, 60)}"
    assert run(PAGE, one).removed == ((0, 0),)
    two = run(PAGE, f"{one}\nremove_lines(0, 0)\ndrop_doc()")
    assert (two.text, two.ignored, two.errors, two.removed) == (PAGE, True, 2, ())
    assert "lines 50 to 60 are asked for, there is 0 to 9" in two.problems
    assert run(PAGE, one, limits=Limits(max_errors=0)).text == PAGE


def test_documents_are_dropped_for_what_is_left() -> None:
    assert run(PAGE, "remove_lines(all=True)").dropped_by == "max_removed_fraction"
    assert run(PAGE, remove_lines(1, 9)).dropped_by == "max_removed_fraction"
    short = "\n".join(["menu", *BODY[:2]])
    assert run(short, remove_lines(0, 1)).dropped_by == "min_words_left"
    assert run(short, remove_lines(0, 0)).text == "\n".join(BODY[:2])
    assert run(short, remove_lines(0, 0), limits=Limits(1, 0.5, None)).text is not None
    # 57 of 60 words are the bound, 56 are not.
    many = "\n".join(["w"] * 60)
    limits = Limits(min_words_left=None)
    assert run(many, remove_lines(0, 56), limits=limits).text is None
    assert run(many, remove_lines(0, 55), limits=limits).text == "w\nw\nw\nw"
    assert run(PAGE, "drop_doc()").dropped_by == "drop_doc" and execute(PAGE, "drop_doc()") is None


def test_documents_that_a_program_does_not_change_stay_however_short() -> None:
    for text in ("", "five words", "\n\n", " "):
        for program in ("", "keep_all()", "remove_lines(start=7, end=3)", normalize("absent")):
            assert execute(text, program) == text


def test_words_of_scripts_without_spaces_are_counted() -> None:
    chinese = "\n".join(["首页 关于", *["河水在八月很低，鸟儿在飞翔。"] * 4])
    after = run(chinese, remove_lines(0, 0))
    assert after.text == "\n".join(chinese.split("\n")[1:]) and after.words_left == 48
    assert execute(chinese, remove_lines(0, 0), "prox") is None
    assert run(chinese, remove_lines(1, 4)).dropped_by == "min_words_left"


def test_a_text_does_not_explode() -> None:
    text = "\n".join(["a" * 200, *BODY])
    program = "\n".join(normalize("a" * n, "a" * 50) for n in (1, 2, 3))
    outcome = run(text, program)
    assert outcome.text == text and "would add" in outcome.problems[0]
    published = run(
        text, "\n".join(['normalize(source_str="a", target_str="aaaaaaaa")'] * 50), "prox"
    )
    assert len(published.edited) < 17 * len(text)


def test_a_program_is_never_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("eval", "exec", "compile", "__import__"):
        monkeypatch.setattr("builtins." + name, None)
    for program in (
        "__import__('os').system('true')",
        "remove_lines(line_start=__import__('os').getpid(), line_end=9)",
        'normalize(source_str=open("/etc/passwd").read(), target_str="")',
    ):
        assert execute(PAGE, program) == PAGE
        assert execute(PAGE, program, "prox") == PAGE


def test_no_such_compat() -> None:
    with pytest.raises(ValueError, match="there is prox"):
        run("text", "", compat="other")  # type: ignore[arg-type]


LINES = st.lists(st.text("AB C", max_size=8), min_size=1, max_size=12)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.integers(-2, 14), st.integers(-2, 14)),
        st.tuples(st.text("ABC ", min_size=1, max_size=3), st.text("xy", max_size=3)),
        st.just(None),
    ),
    max_size=5,
)
NOTHING = st.sampled_from(
    ["keep_all()", "keep_chunk()", "untouch_doc()", "keep_doc()", "# so", "hm", ""]
)


def written(calls: list[Any], shift: int = 0) -> str:
    lines = []
    for call in calls:
        if call is None:
            lines.append("remove_lines(all=True)")
        elif isinstance(call[0], int):
            lines.append(remove_lines(call[0] + shift, call[1] + shift))
        elif call[0].strip():
            lines.append(normalize(*call))
    return "\n".join(lines)


@given(LINES, st.integers(1, 6), st.lists(CALLS, min_size=12, max_size=12))
def test_chunked_is_whole(lines: list[str], size: int, calls: list[list[Any]]) -> None:
    """The joined program on the document does what that of every chunk does on the chunk."""
    text = "\n".join(lines)
    windows = chunks(text, lambda texts: [0] * len(texts), window=size)
    positive = [
        [one for one in some if one is None or not isinstance(one[0], int) or one[0] >= 0]
        for some in calls
    ]
    programs = [written(some, one.first) for one, some in zip(windows, positive, strict=False)]
    whole, problems = apply(text, parse(join_programs(programs, windows)))
    kept, wrong = [], 0
    for window, some in zip(windows, positive, strict=False):
        part = "\n".join(lines[window.first : window.last + 1])
        after, errors = apply(part, parse(written(some)))
        gone = sum(last - first + 1 for first, last in after.removed)
        kept += after.text.split("\n") if gone <= window.last - window.first else []
        wrong += len(errors)
    assert whole.text.split("\n") == (kept or [""])
    assert len(problems) == wrong


@given(st.text(), st.lists(NOTHING), st.sampled_from([None, "prox"]))
def test_programs_that_do_nothing_are_identity(text: str, lines: list[str], compat: Any) -> None:
    text += " and ten words more, so that it is never too short"
    assert execute(text, "\n".join(lines), compat) == text


def is_subsequence(inner: str, outer: str) -> bool:
    characters = iter(outer)
    return all(one in characters for one in inner)


@given(LINES, CALLS)
def test_nothing_is_added_but_targets(lines: list[str], calls: list[Any]) -> None:
    text = "\n".join(lines)
    outcome = run(text, written(calls), limits=Limits(99, None, None))
    old = outcome.edited.replace("x", "").replace("y", "")
    assert is_subsequence(old, text)
    added = len(outcome.edited) - len(old)
    assert added == sum(len(one.target) * one.times for one in outcome.replaced)
    targets = [one[1] for one in calls if one is not None and isinstance(one[1], str)]
    assert all(one.target in targets for one in outcome.replaced)


@given(LINES, CALLS, st.sampled_from([None, "prox"]))
def test_no_document_is_lost_silently(lines: list[str], calls: list[Any], compat: Any) -> None:
    text = "\n".join(lines)
    outcome = run(text, written(calls), compat)
    assert (outcome.text is None) == (outcome.dropped_by is not None)
    if outcome.dropped_by == "max_removed_fraction":
        assert outcome.removed_fraction >= 0.95 and not outcome.ignored
    if outcome.dropped_by == "min_words_left":
        assert outcome.words_left <= 10
        assert len(outcome.edited.split()) <= 10 or compat == "prox"


FRAGMENTS = [
    "remove_lines(", "line_start=", "start=", "line_end=", "end=", "all=True", "0", "3", "-1", "12",
    "9" * 40, ",", ", ", ")", "(", "=", '"', "'", "\\", '\\"', "normalize(", "source_str=",
    "target_str=", '"river"', '"the "', '" "', '""', "\n", "\n", "# lines 0-4", "# lines 5-9", "\t",
    "drop_doc()", "keep_doc()", "keep_all()", "é", "河", "\x00", "\u2028", "\r", "lambda: 0", "]",
    "remove_lines(line_start=2, line_end=4)", "remove_lines(start=0,end=0)\n",
    "remove_lines(all=True)", "```",
    'normalize(source_str="in August", target_str="e e")\n', 'normalize(source_str="e")\n',
]  # fmt: skip


def fuzzed(chance: random.Random) -> str:
    """Well-formed calls with wild numbers, pieces of calls in any order, or any characters."""
    kind = chance.random()
    if kind < 0.3:
        return "\n".join(
            remove_lines(chance.randint(-3, 14), chance.randint(-3, 14))
            for _ in range(chance.randint(1, 5))
        )
    if kind < 0.9:
        return "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 12)))
    return "".join(map(chr, chance.choices(range(1, 0x3000), k=chance.randint(0, 30))))


@pytest.mark.parametrize("compat", [None, "prox"])
def test_fuzzed_programs_stay_within_the_bounds(compat: Any) -> None:
    """50,000 for each executor."""
    chance = random.Random(7)
    words = len(PAGE.split())
    changed = 0
    for _ in range(50_000):
        program = fuzzed(chance)
        outcome = run(PAGE, program, compat)
        after = outcome.text
        if after is None:
            assert outcome.dropped_by, program
        elif after != PAGE:
            changed += 1
            left = len(after.split())
            assert left > 10 and left > 0.05 * words, program
            assert len(after) <= 16 * len(PAGE), program
            assert set(after) <= set(PAGE) | set(program), program
    assert changed > 5000


def operations(call: Callable[[], Any]) -> int:
    """Lines of Python that a call executes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


ADVERSARIAL: list[Callable[[int], tuple[str, str]]] = [
    lambda n: ("w\n" * n, f"{remove_lines(0, n)}\n" * n),
    lambda n: ("w w\n" * n, f"# lines 0-{n}\n{normalize('w', 'v')}\n" * n),
    lambda n: ("a b " * n, "\n".join(normalize(f"a{k}", "b") for k in range(n))),
    lambda n: ("w\n" * n, "\n".join(f"# lines {k}-{k}\n{remove_lines(k, k)}" for k in range(n))),
    lambda n: ("w w\n" * n, "normalize(source_str=" + '"' * n),
    lambda n: ("w w\n" * n, 'normalize(source_str="' + "\\" * n),
    lambda n: ("w w\n" * n, "remove_lines(" + " " * n + "!"),
    lambda n: ("w w\n" * n, "(" * n),
]


@pytest.mark.parametrize("case", range(len(ADVERSARIAL)))
def test_work_grows_with_the_size_alone(case: int) -> None:
    small, large = ADVERSARIAL[case](200), ADVERSARIAL[case](1600)
    run(*small)  # What is imported when first used does not count.
    assert operations(lambda: run(*large)) < 10 * operations(lambda: run(*small)) + 500


@settings(max_examples=30)
@given(st.text("ab\n", max_size=40), st.integers(1, 5))
def test_windows_cover_the_text(text: str, size: int) -> None:
    windows = chunks(
        text, lambda texts: [len(one) for one in texts], window=size, long_lines="whole"
    )
    shown = "\n".join(one.text for one in windows)
    assert shown == "\n".join(f"[{at:03d}]{line}" for at, line in enumerate(text.split("\n")))
    assert [one.first for one in windows] == [0, *(one.last + 1 for one in windows[:-1])]
    assert all(isinstance(one, Chunk) for one in windows)


@given(
    st.text("abé河 ", max_size=60),
    st.lists(st.text("abé河", min_size=1, max_size=4), min_size=17, max_size=25, unique=True),
)
def test_few_strings_and_many_are_found_alike(text: str, sources: list[str]) -> None:
    longest_first = sorted(sources, key=len, reverse=True)
    assert _occurrences_of_many(text, longest_first) == _occurrences_of_few(text, longest_first)
    many = run(text, "\n".join(normalize(one, "x") for one in sources))
    assert "\n".join(_split(text, sources)[0]).replace("\n", "x") == many.edited
