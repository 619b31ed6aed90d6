"""Planted noise: clean documents become pages of web sites, with the programs that clean them.

    for page in plant(documents, sites=40):
        execute(page.text, page.program) == page.clean

A site has its own menu, footer, notices, habits and phrases: where the menu stands, what separates
its entries, which lines are on every page. Of every list of phrases a quarter belongs to the sites
that are held out, and to no other. The pages of a site that have nothing to keep (errors, forms,
lists of links, repeated advertising) come with ``drop_doc()``.

Source of the idea: Zhou et al. 2024 (arXiv:2409.17115), appendix A.1: menus, addresses, footers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tamis.filters.refine import noise_phrases as phrases
from tamis.filters.refine.executor import execute
from tamis.filters.refine.line_features import ADDRESS, KEEP, REMOVE
from tamis.filters.refine.line_programs import address_sources, line_program

_RESERVED = 4
_SEPARATORS = (" | ", " · ", " » ", " > ", " / ", " - ", " • ", "  ")
_BULLETS = ("", "", "* ", "• ", "- ", "» ")
_MONTHS = ("January", "March", "May", "July", "October", "December")
_DOMAINS = (".com", ".org", ".net", ".info", ".io", ".co.uk")


class Page(NamedTuple):
    """A page with noise, and the programs that a perfect refiner writes for it."""

    text: str
    program: str
    """The gold chunk program, with line numbers from 0."""
    keep: bool
    """Whether the gold document program keeps it."""
    clean: str
    """What the program leaves; empty for a page that is dropped."""
    labels: tuple[int, ...]
    """KEEP, REMOVE or ADDRESS of each line."""
    site: int


class Source(NamedTuple):
    """A clean document."""

    text: str
    language: str = "en"


class _Site:
    """The phrases and habits of one web site."""

    def __init__(self, number: int, held_out: bool, seed: int) -> None:
        self.number = number
        self.held_out = held_out
        self.random = np.random.default_rng([seed, held_out, number])
        self.name = self.word().capitalize() + self.word()
        self.domain = self.name.lower() + self.pick(_DOMAINS)
        self.separator = self.pick(_SEPARATORS)
        self.bullet = self.pick(_BULLETS)
        self.menu_in_a_line = self.chance(0.4)
        self.menu_size = int(self.random.integers(3, 11))
        self.menu_at_bottom = self.chance(0.25)
        self.blank_lines = self.chance(0.5)
        self.footers = int(self.random.integers(1, 5))
        self.notices = int(self.random.integers(0, 3))
        self.address_rate = float(self.random.choice([0.0, 0.1, 0.3]))
        self.fixed: dict[str, tuple[list[str], list[str], list[str]]] = {}

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def pick(self, among: Sequence[str]) -> str:
        return among[int(self.random.integers(len(among)))]

    def word(self) -> str:
        return "".join(self.pick(phrases.SYLLABLES) for _ in range(int(self.random.integers(2, 4))))

    def some(self, among: dict[str, tuple[str, ...]], language: str, count: int) -> list[str]:
        """Phrases of the list's part that is this site's, without repetition."""
        mine = [
            one
            for at, one in enumerate(among.get(language, among["en"]))
            if (at % _RESERVED == _RESERVED - 1) == self.held_out
        ]
        order = self.random.permutation(len(mine))[:count]
        return [self.filled(mine[at]) for at in order]

    def filled(self, phrase: str) -> str:
        while "{word}" in phrase:
            phrase = phrase.replace("{word}", self.word().capitalize(), 1)
        day, year = self.random.integers(1, 29), self.random.integers(1998, 2026)
        date = f"{day} {self.pick(_MONTHS)} {year}"
        number = f"{self.random.integers(2, 90000)}"
        for key, value in (
            ("{site}", self.name), ("{year}", str(year)), ("{date}", date), ("{number}", number),
        ):  # fmt: skip
            phrase = phrase.replace(key, value)
        return phrase

    def address(self) -> str:
        """One that ends in a letter or a slash."""
        scheme = self.pick(("http://", "https://", "http://www.", "www."))
        domain = self.domain if self.chance(0.5) else self.word() + self.pick(_DOMAINS)
        path = "/".join(self.word() for _ in range(int(self.random.integers(0, 4))))
        query = f"?id={self.random.integers(1, 999)}&page={self.word()}" if self.chance(0.2) else ""
        return f"{scheme}{domain}/{path}{query}"

    def frame(self, language: str) -> tuple[list[str], list[str], list[str]]:
        """What is on every page in a language: (menu, footers, notices)."""
        if language not in self.fixed:
            menu = self.some(phrases.MENU, language, self.menu_size)
            if self.menu_in_a_line:
                menu = [self.separator.join(menu)]
            else:
                menu = [self.bullet + one for one in menu]
            if self.chance(0.4):
                menu.insert(0, self.name)
            self.fixed[language] = (
                menu,
                self.some(phrases.FOOTER, language, self.footers),
                self.some(phrases.NOTICE, language, self.notices),
            )
        return self.fixed[language]


def plant(
    documents: Iterable[Source], sites: int = 40, held_out: bool = False, seed: int = 0
) -> list[Page]:
    """A page for each clean document, and one page in seven that is to be dropped.

    Args:
        documents: Clean ones. Those that are too short for their page are left out: the executor
            drops what has but a few words left.
        sites: How many web sites the pages are spread over.
        held_out: Whether the sites have the phrases that are held out, or the other ones.
        seed: The same documents, settings and seed give the same pages.
    """
    of = [_Site(number, held_out, seed) for number in range(sites)]
    random = np.random.default_rng([seed, held_out])
    pages = []
    for document in documents:
        page = _page(of[int(random.integers(sites))], document)
        # The executor drops a document with a few words, or less than a twentieth, left.
        if execute(page.text, page.program) == page.clean:
            pages.append(page)
        if random.random() < 1 / 6:
            pages.append(_junk(of[int(random.integers(sites))], document.language))
    return pages


def _page(site: _Site, document: Source) -> Page:
    """The document within what its site puts around it, between it and into it."""
    menu, footers, notices = site.frame(document.language)
    noisy: list[tuple[str, int]] = []
    top, bottom = ([], menu) if site.menu_at_bottom else (menu, [])
    if site.chance(0.3):
        top = [*top, site.separator.join(site.some(phrases.MENU, document.language, 3))]
    noisy += [(one, REMOVE) for one in top if site.chance(0.97)]
    if site.blank_lines and noisy:
        noisy.append(("", REMOVE))
    noisy += _body(site, document, notices)
    ends = [*bottom, *footers]
    if site.chance(0.3):
        ends.insert(0, site.filled("Source: ") + site.address())
    if site.blank_lines and ends:
        noisy.append(("", REMOVE))
    noisy += [(one, REMOVE) for one in ends if site.chance(0.97)]
    lines = [line for line, _ in noisy]
    labels = [label for _, label in noisy]
    sources = {
        at: address_sources(lines[at]) for at, label in enumerate(labels) if label == ADDRESS
    }
    return Page(
        "\n".join(lines),
        line_program(labels, sources),
        True,
        document.text,
        tuple(labels),
        site.number,
    )


def _body(site: _Site, document: Source, notices: list[str]) -> list[tuple[str, int]]:
    """The lines of a document, with notices and addresses between them and in them."""
    lines = document.text.split("\n")
    extra = [*notices, *(site.address() for _ in range(3) if site.chance(site.address_rate))]
    after = {int(site.random.integers(len(lines))): one for one in extra}
    found = []
    for at, line in enumerate(lines):
        noisy = _with_address(site, line) if site.chance(site.address_rate / 2) else line
        found.append((noisy, KEEP if noisy == line else ADDRESS))
        if at in after:
            found.append((after[at], REMOVE))
    return found


def _with_address(site: _Site, line: str) -> str:
    """The line with an address in it, if it has a sentence to be in; else as it was."""
    spaces = [at for at in range(1, len(line) - 1) if line[at] == " " and line[at - 1].isalnum()]
    if len(spaces) < 5:
        return line
    at = spaces[int(site.random.integers(2, len(spaces)))]
    address = site.address()
    planted = site.pick((f" {address}", f" ({address})", f" [{address}]"))
    noisy = line[:at] + planted + line[at:]
    restored = [noisy.replace(one, "") for one in address_sources(noisy)]
    return noisy if restored == [line] else line


def _junk(site: _Site, language: str) -> Page:
    """A page with nothing to keep: an error or a form, a list of links, or repeated advertising."""
    menu, footers, notices = site.frame(language)
    kind = int(site.random.integers(4))
    if kind == 0:
        body = site.some(phrases.JUNK, "en", int(site.random.integers(1, 4)))
    elif kind == 1:
        body = [site.address() for _ in range(int(site.random.integers(5, 30)))]
    elif kind == 2:
        words = [site.word() for _ in range(int(site.random.integers(2, 7)))]
        size = int(site.random.integers(30, 200))
        repeated = [words[int(site.random.integers(len(words)))] for _ in range(size)]
        body = [" ".join(repeated[at : at + 15]) for at in range(0, size, 15)]
    else:
        body = [
            f"{site.bullet}{site.word().capitalize()} {site.word()} ({site.random.integers(1, 99)})"
            for _ in range(int(site.random.integers(8, 40)))
        ]
    lines = [*menu, *body, *notices, *footers]
    labels = (REMOVE,) * len(lines)
    text, program = "\n".join(lines), line_program(labels, {})
    return Page(text, program, False, "", labels, site.number)
