"""Planted noise comes with the programs that take it out again."""

from __future__ import annotations

from collections import Counter

from tamis.filters.refine import execute
from tamis.filters.refine.line_features import ADDRESS, KEEP, REMOVE
from tamis.filters.refine.line_programs import removed_lines
from tamis.filters.refine.noise import Source, plant
from tamis.filters.refine.noise_phrases import FOOTER, MENU
from tamis.filters.refine.quality import Gold, measure_programs

CLEAN = [
    Source(
        "\n".join(
            f"{name} walked along the river {day} times in August, and wrote {day} letters home."
            for day in range(3, 9)
        )
        + ("\n" if number % 2 else "\n\nThe end, as they say in books: it was over."),
        language,
    )
    for number, (name, language) in enumerate(
        (name, language) for name in ("Ada", "Ben", "Cleo", "Dan", "Eva") for language in MENU
    )
]
PAGES = plant(CLEAN * 4, sites=20)


def test_gold_programs_restore_the_clean_text() -> None:
    kept = [page for page in PAGES if page.keep]
    assert len(kept) == len(CLEAN) * 4
    assert [execute(page.text, page.program) for page in kept] == [page.clean for page in kept]
    assert [page.clean for page in kept] == [one.text for one in CLEAN * 4]
    assert sum(page.text != page.clean for page in kept) == len(kept)


def test_an_oracle_has_an_f1_of_one() -> None:
    gold = [Gold(page.text, page.program, page.keep) for page in PAGES]
    judged = ["keep_doc()" if page.keep else "drop_doc()" for page in PAGES]
    found = measure_programs(gold, [page.program for page in PAGES], judged)
    assert found["lines"]["f1"] == found["replacements"]["f1"] == found["documents"]["f1"] == 1
    assert found["failures"] == 0
    assert found["tokens_kept"] == found["gold_tokens_kept"] < 0.95


def test_all_kinds_of_noise_occur() -> None:
    labels = Counter(label for page in PAGES if page.keep for label in page.labels)
    assert set(labels) == {KEEP, REMOVE, ADDRESS}
    assert labels[ADDRESS] > 20
    lines = [
        (page.text.split("\n")[at], at, len(page.labels))
        for page in PAGES
        if page.keep
        for at in removed_lines(page.program, len(page.labels))
    ]
    assert any("cookies" in line.lower() for line, _, _ in lines)
    assert any(line.startswith(("http", "www.")) for line, _, _ in lines)
    assert any("©" in line and at > size - 6 for line, at, size in lines)
    assert any(line == "Home" and at < 12 for line, at, _ in lines)
    assert sum(not page.keep for page in PAGES) > len(PAGES) / 12


def test_labels_are_what_the_program_does() -> None:
    for page in PAGES:
        removed = {at for at, label in enumerate(page.labels) if label == REMOVE}
        assert removed_lines(page.program, len(page.labels)) == removed


def test_held_out_sites_have_phrases_of_their_own() -> None:
    held = plant(CLEAN * 4, sites=20, held_out=True)
    known = {one for among in (MENU, FOOTER) for words in among.values() for one in words}
    seen, unseen = (
        {line for page in pages for line in page.text.split("\n")} & known
        for pages in (PAGES, held)
    )
    assert len(seen) > 60
    assert len(unseen) > 25
    # Entries like "Forum" are the same in several languages.
    shared = Counter(one for words in MENU.values() for one in words)
    assert {one for one in seen & unseen if shared[one] == 1} == set()


def test_the_seed_decides() -> None:
    assert plant(CLEAN, sites=20) == plant(CLEAN, sites=20)
    assert plant(CLEAN, sites=20) != plant(CLEAN, sites=20, seed=1)


def test_a_text_that_the_executor_would_drop_is_left_out() -> None:
    assert not any(page.keep for page in plant([Source("Three words only")] * 20, sites=3))
