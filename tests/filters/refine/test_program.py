"""The language: what is read of a program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.filters.refine.program import (
    BEYOND,
    Normalize,
    Part,
    RemoveLines,
    about_lines,
    normalize,
    parse,
    remove_lines,
)


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("remove_lines(line_start=0, line_end=3)", RemoveLines(0, 3)),
        ("remove_lines(start=0,end=3)", RemoveLines(0, 3)),
        ("  remove_lines ( line_end = 3 , line_start = -1 ) # menu", RemoveLines(-1, 3)),
        ("\tremove_lines(start=007,end=+8)\r", RemoveLines(7, 8)),
        ("remove_lines(all=True)", RemoveLines(0, None)),
        (f"remove_lines(start=0, end={'9' * 5000})", RemoveLines(0, BEYOND)),
        ('normalize(source_str="a", target_str="b")', Normalize("a", "b")),
        ("normalize(source_str='a')", Normalize("a", "")),
        ('normalize(target_str="b", source_str="a")', Normalize("a", "b")),
        ('normalize(source_str="http://x.y/?a=1,2 (b)")', Normalize("http://x.y/?a=1,2 (b)", "")),
        ('normalize(source_str="say "hi", once", target_str="")', Normalize('say "hi", once', "")),
        (r'normalize(source_str="a \"b\", target_str=\"")', Normalize('a "b", target_str="', "")),
        (r'normalize(source_str="C:\new\\x", target_str="\n")', Normalize(r"C:\new\x", r"\n")),
        ('normalize(source_str="it\'s")', Normalize("it's", "")),
        ("normalize(source_str='it's (so)')", Normalize("it's (so)", "")),
        ('normalize(source_str="# no comment")  # one', Normalize("# no comment", "")),
        ('normalize(source_str="remove_lines(all=True)")', Normalize("remove_lines(all=True)", "")),
    ],
)
def test_calls(line: str, call: RemoveLines | Normalize) -> None:
    read = parse(line)
    (part,) = read.parts
    assert [*part.removals, *part.replacements] == [call]
    assert not read.errors and not read.unknown and not read.cut


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("remove_lines(0, 3)", "an argument has no name"),
        ("remove_lines(start=0, end=3, all=True)", "takes line_start and line_end, or all=True"),
        ("remove_lines(all=False)", "takes line_start"),
        ("remove_lines()", "takes line_start"),
        ("remove_lines(start=0, start=3)", "start stands there twice"),
        ("remove_lines(start=0, line_start=1)", "takes line_start"),
        ('remove_lines(start="0", end=1)', "are numbers"),
        ("remove_lines(start=True, end=1)", "are numbers"),
        ("remove_lines(start=0, end=1.5)", "a comma or a bracket is missing"),
        ("remove_lines(start=0, end=1) remove_lines(start=3, end=4)", "something behind the call"),
        ("remove_lines[0]", "a call has brackets"),
        ("remove_lines(start=__import__('os'), end=1)", "of no known kind"),
        ("normalize()", "takes source_str"),
        ('normalize(source_str="  ")', "source_str is empty"),
        ('normalize(source_str="a", end=3)', "takes source_str"),
        ("normalize(source_str=3)", "are strings"),
        ("drop_doc", "the call does not end"),
    ],
)
def test_wrong_calls_are_errors_that_are_named(line: str, reason: str) -> None:
    read = parse(f"{line}\nkeep_all()")
    assert len(read.errors) == 1 and reason in read.errors[0]
    assert read.errors[0].startswith("line 1: ")
    assert read.parts == [Part(0, None)] and not read.drops


def test_lines_that_are_no_calls_are_counted_and_those_that_say_nothing_are_not() -> None:
    read = parse(
        "```python\n# a comment\n\nkeep_chunk()\nkeep_all()\nuntouch_doc()\n```\n"
        "I would remove the menu.\nremove_linesx(start=0, end=1)\nprint(1)"
    )
    assert read.unknown == 3 and read.errors == [] and read.cut == 0


@pytest.mark.parametrize(
    ("program", "drops"),
    [
        ("drop_doc()", True),
        (" drop_doc( ) ", True),
        ("keep_doc()", False),
        ("# do not drop\nkeep_doc()", False),
        ("drop_doc()\nkeep_doc()", True),
        ("keep_doc()\ndrop_doc()", False),
        ("drop", False),
        ("", False),
    ],
)
def test_the_first_word_about_a_document_decides(program: str, drops: bool) -> None:
    assert parse(program).drops is drops


CALL = 'normalize(source_str="a (b)", target_str="c=d, e")'


@pytest.mark.parametrize("call", [CALL, remove_lines(10, 20), "remove_lines(all=True)"])
def test_a_call_that_is_cut_off_anywhere_is_left_out_alone(call: str) -> None:
    name = call.index("(")
    for end in range(name, len(call)):
        read = parse(f"remove_lines(start=0, end=1)\n{call[:end]}")
        assert (read.cut, read.errors, read.unknown) == (1, [], 0), call[:end]
        assert read.parts == [Part(0, None, [RemoveLines(0, 1)])]
        # In the middle of a program nothing cuts: there it is an error.
        read = parse(f"{call[:end]}\nkeep_all()")
        assert (read.cut, len(read.errors)) == (0, 1)
        # The end of a chunk's program is an end.
        read = parse(f"# lines 0-4\n{call[:end]}\n# lines 5-9\nkeep_all()")
        assert (read.cut, read.errors) == (1, [])


def test_parts_follow_each_other() -> None:
    call = remove_lines(0, 1)
    removal = [RemoveLines(0, 1)]
    read = parse(f"{about_lines(0, 4)}\n{call}\n#lines 5 - 9\n{call}\n# lines 7-12\n{call}")
    assert read.parts == [Part(0, None), Part(0, 4, removal), Part(5, 9, removal * 2)]
    # Calls about the whole document leave no lines to parts.
    assert parse(f"{call}\n# lines 0-4\n{call}").parts == [Part(0, None, removal * 2)]
    assert parse(f"# lines 4-0\n{call}").parts == [Part(0, None, removal)]


@given(st.text().filter(str.strip), st.text())
def test_every_string_without_line_breaks_can_be_said(source: str, target: str) -> None:
    source, target = source.replace("\n", " "), target.replace("\n", " ")
    if source.strip():
        (part,) = parse(normalize(source, target)).parts
        assert part.replacements == [Normalize(source, target)]


def test_a_line_break_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="line breaks"):
        normalize("a\nb")
