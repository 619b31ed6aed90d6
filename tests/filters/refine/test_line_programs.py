"""Labels of lines as programs, and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tamis.filters.refine.executor import run
from tamis.filters.refine.line_features import ADDRESS, KEEP, REMOVE
from tamis.filters.refine.line_programs import (
    address_sources,
    line_program,
    removed_lines,
    replaced_lines,
)


def test_addresses_with_what_goes_with_them() -> None:
    assert address_sources("see http://a.test/x?y=1,2, and go") == [" http://a.test/x?y=1,2"]
    assert address_sources("see (https://a.test/x).") == [" (https://a.test/x)"]
    assert address_sources("www.a.test/river is new") == ["www.a.test/river "]
    assert address_sources("HTTP://A.TEST/1 [ftp://b.test/22]") == [
        "HTTP://A.TEST/1 ",
        " [ftp://b.test/22]",
    ]
    assert address_sources("http:// is a scheme, www. is none") == []


def test_a_replacement_is_about_its_line_alone() -> None:
    program = line_program([REMOVE, KEEP, ADDRESS, KEEP, REMOVE, REMOVE], {2: [" http://a.test"]})
    assert program.split("\n") == [
        "# lines 0-1",
        "remove_lines(line_start=0, line_end=0)",
        "# lines 2-2",
        'normalize(source_str=" http://a.test", target_str="")',
        "# lines 3-5",
        "remove_lines(line_start=4, line_end=5)",
    ]
    lines = ["menu", "keep http://a.test", "cut http://a.test it", "so", "foot", "foot"]
    outcome = run("\n".join(lines), program)
    assert outcome.edited == "keep http://a.test\ncut it\nso"
    assert outcome.errors == 0
    assert replaced_lines(program, lines) == {2}


def test_nothing_to_do() -> None:
    assert line_program([KEEP, KEEP], {}) == "keep_chunk()"
    assert line_program([], {}) == "keep_chunk()"


@given(
    st.lists(st.sampled_from([KEEP, REMOVE, ADDRESS]), min_size=1, max_size=40),
)
def test_back_and_forth(labels: list[int]) -> None:
    sources = {at: [f" http://a.test/{at}"] for at, one in enumerate(labels) if one == ADDRESS}
    lines = [f"line {at}" + "".join(sources.get(at, [])) for at in range(len(labels))]
    program = line_program(labels, sources)
    outcome = run("\n".join(lines), program)
    left = [f"line {at}" for at, one in enumerate(labels) if one != REMOVE]
    assert removed_lines(program, len(labels)) == {
        at for at, one in enumerate(labels) if one == REMOVE
    }
    assert replaced_lines(program, lines) == set(sources)
    assert outcome.edited == "\n".join(left)
    assert outcome.errors == outcome.unknown == 0


def test_programs_of_others_are_read() -> None:
    assert removed_lines("remove_lines(start=1, end=2)", 9) == {1, 2}
    assert removed_lines("remove_lines(all=True)", 3) == {0, 1, 2}
    assert removed_lines("remove_lines(line_start=-1, line_end=99)", 3) == {0, 1, 2}
    assert removed_lines("# lines 2-3\nremove_lines(all=True)", 9) == {2, 3}
    assert removed_lines("drop_doc()", 3) == set()
