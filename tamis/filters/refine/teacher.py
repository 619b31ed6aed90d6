"""The rule teacher: programs for real pages by plain rules, from all pages of their sites.

    teach([SitePage(text, site), ...])      a chunk program and a document program for each

Lines go that stand on most pages of a site (digits do not count), menus at the top, lines that are
an address, notices (cookies, sharing, newsletters) and, at the end, footers; addresses within
sentences are cut out. A page goes of which little is left. These are weak labels: a model that is
trained on them sees one page at a time, and learns what such lines look like.

Source of the idea: Zhou et al. 2024 (arXiv:2409.17115), appendix A.1; the rules are ours.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import xxhash

from tamis.filters.refine.line_features import ADDRESS, KEEP, REMOVE
from tamis.filters.refine.line_programs import address_sources, addresses, line_program
from tamis.filters.refine.noise_phrases import MENU

FEWEST_PAGES = 5
"""Of a site whose repeated lines are looked for."""
REPEATED_SHARE = 0.6
"""Of the pages of a site that a line stands on, to be part of its frame."""
LEAST_LEFT = 0.15
"""Of the characters of a page, that have to be left."""
_EDGE = 15
"""Lines from the top and the bottom in which a repeated line is part of the frame."""
_EVERYWHERE = 0.9
"""Of the pages: a line that is on so many is part of the frame wherever it stands."""
_END = 12
"""Lines from the bottom in which footers are looked for."""
_LONGEST = 160
"""Characters of a line that notices and footers may have."""

_DIGITS = re.compile(r"\d+")
_SPACES = re.compile(r"\s+")
_EDGES = " \t\u00a0*•·-»«>|/#+–—"
_ENTRIES = re.compile(r"\s*[|·»>•]\s*|\s{2,}|\t+")
_SENTENCE = re.compile(r"[.!?。！？;:](\s|$)")
_MENU_WORDS = frozenset(
    one.replace("(0)", "").strip().casefold() for words in MENU.values() for one in words
)
_FOOTER = re.compile(
    r"©|\(c\)\s*(19|20)\d\d|copyright\b.{0,30}\b(19|20)\d\d|all rights reserved|alle rechte"
    r"|tous droits réservés|todos los derechos|все права|版权所有|無断転載"
    r"|privacy policy|terms (of|and) (use|service|conditions)|impressum|datenschutz"
    r"|mentions légales"
    r"|aviso legal|powered by|back to top|last (updated|modified)|haut de page|volver arriba"
    r"|nach oben|generated (by|on)|debug info",
    re.IGNORECASE,
)
_NOTICE = re.compile(
    r"\b(uses?|using|utilise|utiliza|verwendet) (des )?cookies\b|^share (this|on)\b"
    r"|^(advertisement|anzeige|publicité|publicidad)$|\b(subscribe|sign up) (to|for)\b.*newsletter"
    r"|\blogged in to (post|comment|leave)|^leave a (reply|comment)|^posted (by|on|in)\b"
    r"|^filed under\b|^tags:|^\d+ comments?$|enable javascript|^click here to\b",
    re.IGNORECASE,
)


class SitePage(NamedTuple):
    """A page and the name of its site."""

    text: str
    site: str


class Lesson(NamedTuple):
    """What the teacher says about a page."""

    program: str
    keep: bool
    labels: tuple[int, ...]
    """KEEP, REMOVE or ADDRESS of each line."""


def teach(pages: Sequence[SitePage]) -> list[Lesson]:
    """Programs for the pages, which are all that is known of their sites."""
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    sizes = Counter(page.site for page in pages)
    for page in pages:
        counts[page.site].update({_key(line) for line in page.text.split("\n") if line.strip()})
    return [_lesson(page, counts[page.site], sizes[page.site]) for page in pages]


def _key(line: str) -> int:
    """The same for lines that differ in digits, case and white space alone."""
    folded = _DIGITS.sub("0", _SPACES.sub(" ", line.strip()).casefold())
    return xxhash.xxh3_64_intdigest(folded.encode("utf-8", "surrogatepass"))


def _lesson(page: SitePage, counts: Counter[int], pages: int) -> Lesson:
    lines = page.text.split("\n")
    solid = [at for at, line in enumerate(lines) if line.strip()]
    labels = [KEEP] * len(lines)
    for at in (
        *_repeated(lines, solid, counts, pages),
        *_menu(lines, solid),
        *_addresses(lines, solid),
        *_notices(lines, solid),
        *_footers(lines, solid),
    ):
        labels[at] = REMOVE
    _remove_gaps(lines, labels)
    sources = {}
    for at in solid:
        if labels[at] == KEEP and (found := address_sources(lines[at])):
            labels[at], sources[at] = ADDRESS, found
    left = sum(len(lines[at]) for at in solid if labels[at] != REMOVE)
    keep = left >= LEAST_LEFT * sum(len(lines[at]) for at in solid) and left > 0
    return Lesson(line_program(labels, sources), keep, tuple(labels))


def _repeated(
    lines: list[str], solid: list[int], counts: Counter[int], pages: int
) -> Iterator[int]:
    """Lines that stand on most pages of the site."""
    if pages < FEWEST_PAGES:
        return
    for place, at in enumerate(solid):
        share = counts[_key(lines[at])] / pages
        at_edge = place < _EDGE or place >= len(solid) - _EDGE
        if share >= (REPEATED_SHARE if at_edge else _EVERYWHERE):
            yield at


def _menu(lines: list[str], solid: list[int]) -> Iterator[int]:
    """The first lines that are short and no sentences, as far as the last that holds words of
    menus, if there are three such words. What follows a menu word too late is a title.
    """
    known, last = 0, -1
    for place, at in enumerate(solid):
        entries = [one.strip(_EDGES) for one in _ENTRIES.split(lines[at].strip(_EDGES))]
        entries = [one for one in entries if one]
        if any(len(one.split()) > 4 or _SENTENCE.search(one) for one in entries):
            break
        words = sum(one.casefold() in _MENU_WORDS for one in entries)
        known += words
        if words:
            last = place
        elif place - last > 3:
            break
    if known >= 3:
        yield from solid[: last + 1]


def _addresses(lines: list[str], solid: list[int]) -> Iterator[int]:
    """Lines that have no words beside addresses."""
    for at in solid:
        found = addresses(lines[at])
        if found:
            rest = lines[at]
            for start, end in reversed(found):
                rest = rest[:start] + rest[end:]
            if sum(map(str.isalnum, rest)) <= 2:
                yield at


def _notices(lines: list[str], solid: list[int]) -> Iterator[int]:
    for at in solid:
        line = lines[at].strip(_EDGES)
        if len(line) <= _LONGEST and _NOTICE.search(line):
            yield at


def _footers(lines: list[str], solid: list[int]) -> Iterator[int]:
    for at in solid[-_END:]:
        if len(lines[at]) <= _LONGEST and _FOOTER.search(lines[at]):
            yield at


def _remove_gaps(lines: list[str], labels: list[int]) -> None:
    """Blank lines between lines that go, go too; those before the first and behind the last line as
    well, if that goes.
    """
    went, gap = True, []
    for at, line in enumerate(lines):
        if not line.strip():
            gap.append(at)
            continue
        if went and labels[at] == REMOVE:
            for one in gap:
                labels[one] = REMOVE
        went, gap = labels[at] == REMOVE, []
    if went and len(gap) < len(lines):
        for one in gap:
            labels[one] = REMOVE
