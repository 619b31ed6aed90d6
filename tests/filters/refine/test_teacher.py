"""The rules that see all pages of a site."""

from __future__ import annotations

from tamis.filters.refine import execute
from tamis.filters.refine.teacher import SitePage, teach

MENU = ["Wetland News", "Birds", "Maps"]
BODY = [
    "The heron stands in the water of lake {n} and waits for hours.",
    "",
    "Then it moves, {n} times in a morning, and there is a fish in its bill.",
    "Nobody has counted how many of them it takes in a year, or in {n}.",
]
FOOT = ["Page {n} of the archive", "wetland society, 12 reed street"]


def site(pages: int = 8) -> list[SitePage]:
    return [
        SitePage("\n".join([*MENU, "", *BODY, "", *FOOT]).replace("{n}", str(n)), "wetland.test")
        for n in range(pages)
    ]


def taught(*lines: str) -> str | None:
    (lesson,) = teach([SitePage("\n".join(lines), "one.test")])
    return execute("\n".join(lines), lesson.program)


SENTENCES = [f"The river is low in the month of August {n}, and the birds stay." for n in "abcdef"]


def test_lines_on_most_pages_of_a_site_go_digits_aside() -> None:
    names = ("Anna", "Berta", "Carl", "Dora", "Emil", "Frida", "Gustav", "Hanna")
    pages = [
        SitePage(
            "\n".join(f"{name}: {line}" if line in text else line for line in lines), page.site
        )
        for page, name in zip(site(), names, strict=True)
        if (lines := page.text.split("\n")) and (text := {one for one in lines[4:8] if one})
    ]
    for page, lesson in zip(pages, teach(pages), strict=True):
        lines = page.text.split("\n")
        assert execute(page.text, lesson.program) == "\n".join(lines[3:9])
        assert lesson.keep


def test_few_pages_say_nothing_about_a_site() -> None:
    assert {lesson.program for lesson in teach(site(4))} == {"keep_chunk()"}


def test_another_site_is_another_count() -> None:
    pages = site(4) + [SitePage(page.text, "other.test") for page in site(4)]
    assert {lesson.program for lesson in teach(pages)} == {"keep_chunk()"}


def test_a_menu_goes_and_a_title_stays() -> None:
    menu = ["Home", "* About", "Contact | Search | Log in"]
    assert taught(*menu, "The low river", *SENTENCES) == "\n".join(["The low river", *SENTENCES])


def test_two_words_of_menus_are_none() -> None:
    lines = ["Home", "Contact", *SENTENCES]
    assert taught(*lines) == "\n".join(lines)


def test_addresses() -> None:
    lines = [
        "https://river.test/a?b=1,2",
        SENTENCES[0][:-1] + " (see http://river.test/x) now.",
        *SENTENCES,
        "- www.river.test/levels -",
    ]
    body = [SENTENCES[0][:-1] + " (see http://river.test/x) now.", *SENTENCES]
    body[0] = body[0].replace(" http://river.test/x", "")
    assert taught(*lines) == "\n".join(body)


def test_footers_at_the_end_and_notices() -> None:
    about = "Copyright 1923 was the first thing that the printers set, in very large letters."
    lines = [
        about, *SENTENCES, "Share this: Facebook", *SENTENCES, *SENTENCES,
        "© 2014 River Society", "Privacy policy",
    ]  # fmt: skip
    assert taught(*lines) == "\n".join([about, *SENTENCES, *SENTENCES, *SENTENCES])


def test_a_page_of_which_nothing_is_left_is_dropped() -> None:
    links = [f"http://river.test/{n}" for n in range(30)]
    (lesson,) = teach([SitePage("\n".join(links), "one.test")])
    assert not lesson.keep


def test_texts_that_are_hardly_texts() -> None:
    pages = [SitePage(text, "x") for text in ("", "\n\n", "one line " * 10_000, "\ud800 Home")]
    assert [lesson.program for lesson in teach(pages)] == ["keep_chunk()"] * 4
