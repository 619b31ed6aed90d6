"""Does a model learn more from refined text? The same badly extracted pages raw, after rules, after
the compact refiner, and extracted well; compact models of each on equally many tokens.

The corpus is HTML documentation with all its text nodes, menus and footers included. The refiner
never sees the sites that it refines: there are two groups of sites, and each is refined by one that
was trained on the other. Measured is text that is clean: other pages, with their main content
alone, without the lines that most pages of their site have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

import tamis
from benchmarks.arms import measure_arms
from benchmarks.harness import table
from tamis.filters.refine import execute
from tamis.filters.refine.embedded import CompactRefiner
from tamis.filters.refine.fit import FitRefiner
from tamis.filters.refine.line_programs import removed_lines
from tamis.filters.refine.quality import F1, f1
from tamis.filters.refine.teacher import SitePage, teach
from tamis.pipeline.documents import Documents

GROUPS = (
    ("postgresql-doc-15", "anarchism"),
    ("libreoffice-help-en-us", "sqlite3-doc", "python3.11-doc"),
)
PAGES = 500
"""Of a site."""
LONGEST = 60_000
"""Characters of a page."""
EVERY = 8
"""So many pages of a site, one is measured on."""
TOKENS = 400_000
SEEDS = (0, 1, 2)


class Page(NamedTuple):
    """A page of a site, extracted in both ways."""

    site: str
    url: str
    raw: str
    clean: str


def read_pages(corpus: Path, most: int) -> list[Page]:
    """Pages of the groups' sites, evenly spread."""
    sites = {site for group in GROUPS for site in group}
    found: dict[str, list[dict[str, Any]]] = {site: [] for site in sites}
    with corpus.open("rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            if record.get("html") and record["package"] in sites:
                found[record["package"]].append(record)
    pages = []
    for site in sorted(sites):
        step = max(1, len(found[site]) // most)
        records = found[site][::step][:most]
        raw, clean = (extracted([one["html"] for one in records], main) for main in (False, True))
        lessons = teach([SitePage(text, site) for text in clean])
        for record, noisy, text, lesson in zip(records, raw, clean, lessons, strict=True):
            left = execute(text, lesson.program) if lesson.keep else None
            if left and len(noisy) <= LONGEST:
                pages.append(Page(site, record["url"], noisy, left))
    return pages


def extracted(pages: Sequence[str], main_content: bool) -> list[str]:
    """The texts of HTML pages; empty for those that have none."""
    names = [str(number) for number in range(len(pages))]
    stage = tamis.Extract(main_content=main_content)
    found = stage(pa.table({"id": names, "text": pa.array(pages, pa.large_string())}))
    texts = dict(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))
    return [texts.get(name, "") for name in names]


def refined(pages: Sequence[Page], folder: Path) -> dict[str, tuple[str | None, F1]]:
    """By address what the compact refiner leaves of each page, and of each site (by its name) how
    well it found the lines that are not in the clean text.
    """
    after: dict[str, tuple[str | None, F1]] = {}
    for number, group in enumerate(GROUPS):
        others = [page for page in pages if page.site not in group]
        lines = [json.dumps({"text": page.raw, "site": page.site}) for page in others]
        data = folder / f"others-{number}.jsonl"
        data.write_text("\n".join(lines), "utf-8")
        model = folder / f"refiner-{number}.npz"
        FitRefiner.model_validate(
            {"data": [str(data)], "site": "site", "output": model, "held_out": [others[0].site]}
        ).fit()
        for site in group:
            mine = [page for page in pages if page.site == site]
            after |= _refine_site(site, mine, model)
    return after


def _refine_site(site: str, pages: list[Page], model: Path) -> dict[str, tuple[str | None, F1]]:
    texts = [page.raw for page in pages]
    names = [page.url for page in pages]
    rows = pa.table({"id": names, "text": pa.array(texts, pa.large_string())})
    found = tamis.ProX(writer={"model": str(model)})(rows)
    left = dict(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))
    both = removed = gold = 0
    batch = Documents(rows.combine_chunks().to_batches()[0])
    programs = CompactRefiner.load(model).chunk_programs(batch)
    for page, program in zip(pages, programs, strict=True):
        lines = page.raw.split("\n")
        stay = {line.strip() for line in page.clean.split("\n")}
        wrong = {at for at, line in enumerate(lines) if line.strip() not in stay}
        taken = {at for at in removed_lines(program, len(lines)) if lines[at].strip()}
        both, removed, gold = both + len(wrong & taken), removed + len(taken), gold + len(wrong)
    quality = f1(both, removed, gold)
    return {page.url: (left.get(page.url), quality) for page in pages} | {site: (None, quality)}


def ruled(pages: Sequence[Page]) -> list[str]:
    """What the rules of Gopher, C4 and FineWeb keep."""
    texts = pa.array([page.raw for page in pages], pa.large_string())
    left = pa.table({"id": [page.url for page in pages], "text": texts})
    for stage in (
        tamis.GopherRepetition,
        tamis.GopherQuality,
        tamis.C4Quality,
        tamis.FineWebQuality,
    ):
        left = stage()(left)
    kept: list[str] = left["text"].to_pylist()
    return kept


def run(corpus: Path, folder: Path, pages: int = PAGES, tokens: int = TOKENS) -> str:
    """The section of the results."""
    everything = read_pages(corpus, pages)
    held_out = everything[EVERY // 2 :: EVERY]
    measured = {page.url for page in held_out}
    learned = [page for page in everything if page.url not in measured]
    after = refined(learned, folder)
    arms = {
        "raw": [page.raw for page in learned],
        "rules": ruled(learned),
        "refined": [text for page in learned if (text := after[page.url][0])],
        "main content": [page.clean for page in learned],
    }
    found = measure_arms(
        arms,
        [page.clean for page in held_out],
        *(tokens, SEEDS, folder / "arms"),
        [text for texts in arms.values() for text in texts],
    )
    rows = []
    for arm, texts in arms.items():
        gain, low, high = found.gain(arm, "raw")
        interval = "" if arm == "raw" else f"**{gain:+.3f}** ({low:+.3f} to {high:+.3f})"
        rows.append(
            [
                *(arm, f"{len(texts):,}", f"{sum(map(len, texts)) / 1e6:.2f} MB"),
                *(f"{found.bits_per_byte(arm):.3f}", interval),
            ]
        )
    header = ["trained on", "pages", "text", "bits per byte of clean text", "better than raw by"]
    lines = [
        f"{site}: {after[site][1].f1:.3f}" for group in GROUPS for site in group if site in after
    ]
    return (
        f"## Refined text\n\n{len(everything):,} pages of {len(lines)} sites of documentation, "
        f"{len(held_out):,} of them measured; {tokens:,} tokens, {len(SEEDS)} seeds; intervals of "
        f"95 % over seeds and pages. {GROUPS[0]} refined by a refiner of the others, and the other "
        "way round. F1 of the lines that it removed, beside those that the main content does not "
        f"have: {', '.join(lines)}.\n\n{table(header, rows)}"
    )
