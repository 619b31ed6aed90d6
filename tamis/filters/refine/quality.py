"""How good programs are, beside gold ones.

Lines are compared as sets of numbers of removed lines, over all documents together: with P those
that a program removes and G those of the gold program, TP = |P & G|, precision TP / |P|, recall
TP / |G|, F1 = 2 TP / (|P| + |G|). Of documents, to keep is the positive class. Source: Zhou et al.
2024 (arXiv:2409.17115), section 4 and table 35.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tamis.filters.refine.executor import keeps, run
from tamis.filters.refine.line_programs import removed_lines, replaced_lines


class Gold(NamedTuple):
    """A document and what a perfect refiner writes."""

    text: str
    program: str
    keep: bool


class F1(NamedTuple):
    """Precision, recall and F1; 1 where there is nothing to find and nothing was found."""

    precision: float
    recall: float
    f1: float


def f1(both: int, found: int, gold: int) -> F1:
    """From |P & G|, |P| and |G|."""
    return F1(
        both / found if found else float(gold == 0),
        both / gold if gold else float(found == 0),
        2 * both / (found + gold) if found + gold else 1.0,
    )


def measure_programs(
    gold: Sequence[Gold], chunk_programs: Sequence[str], document_programs: Sequence[str]
) -> dict[str, Any]:
    """Lines, lines with replacements, documents, failures and what is kept.

    Lines are measured on the documents that the gold programs keep. ``failures`` is the part of
    their chunk programs that the executor finds an error in, or unknown lines; ``tokens_kept`` the
    part of the words of all documents that is left after both programs, ``gold_tokens_kept`` after
    the gold ones.
    """
    lines, replaced, documents = [0, 0, 0], [0, 0, 0], [0, 0, 0]
    failures = words = kept = gold_kept = 0
    for one, chunk, document in zip(gold, chunk_programs, document_programs, strict=True):
        stays = keeps(document)
        outcome = run(one.text, chunk)
        words += len(one.text.split())
        kept += _words_left(outcome.text) if stays else 0
        gold_kept += _words_left(run(one.text, one.program).text) if one.keep else 0
        _count(documents, {0} if stays else set(), {0} if one.keep else set())
        if one.keep:
            split = one.text.split("\n")
            _count(lines, *(removed_lines(each, len(split)) for each in (chunk, one.program)))
            _count(replaced, *(replaced_lines(each, split) for each in (chunk, one.program)))
            failures += bool(outcome.errors or outcome.unknown or outcome.cut)
    stay = sum(one.keep for one in gold)
    return {
        "pages": len(gold),
        "lines": f1(*lines)._asdict(),
        "replacements": f1(*replaced)._asdict(),
        "documents": f1(*documents)._asdict(),
        "failures": failures / stay if stay else 0.0,
        "tokens_kept": kept / words if words else 1.0,
        "gold_tokens_kept": gold_kept / words if words else 1.0,
    }


def _words_left(text: str | None) -> int:
    return len((text or "").split())


def _count(counts: list[int], found: set[int], gold: set[int]) -> None:
    counts[0] += len(found & gold)
    counts[1] += len(found)
    counts[2] += len(gold)


def format_quality(quality: dict[str, Any]) -> str:
    """A few lines to read."""
    rows = [f"on {quality['pages']:,} pages of sites held out:"]
    for name in ("lines", "replacements", "documents"):
        one = quality[name]
        rows.append(
            f"  {name:<13} F1 {one['f1']:.3f}  precision {one['precision']:.3f}  "
            f"recall {one['recall']:.3f}"
        )
    rows.append(
        f"  programs with errors {quality['failures']:.2%}, words kept "
        f"{quality['tokens_kept']:.1%} (gold programs {quality['gold_tokens_kept']:.1%})"
    )
    return "\n".join(rows)
