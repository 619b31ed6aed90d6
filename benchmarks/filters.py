"""Quality filters: documents per CPU second, and whether the decisions are the same."""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.harness import Comparison, Side, clock, compare, measure, side_by_side
from benchmarks.peers import datatrove_documents, datatrove_filters, fresh_copies
from benchmarks.texts import Part, documents_of, record_batches, text_bytes

THREE = ["gopher_repetition", "gopher_quality", "fineweb_quality"]
FOUR = [*THREE, "c4_quality"]


def tamis_subject(path: str, kinds: list[str], words: str) -> dict[str, Any]:
    """Measure and decide every document with every filter, compiled code loaded beforehand."""
    from tamis.pipeline.warmup import warm_up
    from tamis.registry import stage_class

    stages: list[Any] = [stage_class(kind).model_validate({"words": words}) for kind in kinds]
    list(warm_up(stages))
    batches = record_batches(path)
    keep: list[list[bool]] = [[] for _ in stages]
    with clock() as spent:
        for documents in documents_of(batches):
            for stage, kept in zip(stages, keep, strict=True):
                kept += stage.decide(stage.measure(documents)).keep.tolist()
    decisions = dict(zip(kinds, keep, strict=True))
    return spent.result(len(keep[0]), text_bytes(batches), decisions=decisions)


def datatrove_subject(path: str, kinds: list[str], words: str) -> dict[str, Any]:
    """Ask every filter about every document, the tokenizer loaded beforehand."""
    filters = datatrove_filters(words, kinds)
    documents = datatrove_documents(path)
    for one, document in zip(filters, fresh_copies(documents[:1] * len(filters)), strict=True):
        one.filter(document)
    decisions = {}
    copies = [list(fresh_copies(documents)) for _ in filters]
    with clock() as spent:
        # Document by document, as datatrove's pipelines do: its filters share remembered words.
        verdicts = [
            [one.filter(document) is True for one, document in zip(filters, row, strict=True)]
            for row in zip(*copies, strict=True)
        ]
    for number, kind in enumerate(kinds):
        decisions[kind] = [row[number] for row in verdicts]
    size = sum(len(document.text.encode()) for document in documents)
    return spent.result(len(documents), size, decisions=decisions)


def differences(comparison: Comparison) -> str:
    """How many documents one side keeps and the other does not, by filter."""
    ours, peer = comparison.ours[0].facts["decisions"], comparison.peer[0].facts["decisions"]
    found = []
    for kind, kept in ours.items():
        differing = sum(a != b for a, b in zip(kept, peer[kind], strict=True))
        found.append(f"{kind} {differing} of {len(kept):,}")
    return ", ".join(found)


def run(part: Part, small: Part) -> str:
    """The section of the results; datatrove's own tokenizer is slow, so it gets the small part."""
    path, few = part.path("jsonl"), small.path("jsonl")
    split = {"path": path, "kinds": THREE, "words": "whitespace"}
    three = compare(Side(tamis_subject, split), Side(datatrove_subject, split))
    spacy = {"path": few, "kinds": FOUR, "words": "spacy"}
    default = Side(datatrove_subject, spacy)
    with tempfile.TemporaryDirectory() as cache:
        # The discarded first run of ours fills the memory of words; the few documents that
        # datatrove gets would be over before ours is up to speed.
        memory = {"TAMIS_CACHE": cache}
        warm = compare(Side(tamis_subject, {**spacy, "path": path}, memory), default, 2)
        same = Comparison([measure(Side(tamis_subject, spacy, memory))], warm.peer)
    cold = Comparison([], warm.peer)
    for _ in warm.peer:
        with tempfile.TemporaryDirectory() as cache:
            cold.ours.append(measure(Side(tamis_subject, spacy, {"TAMIS_CACHE": cache})))
    rows = [
        ("Gopher repetition + quality, FineWeb; words of str.split", "datatrove, str.split", three),
        ("the same and C4; spaCy's words, memory of words empty", "datatrove default", cold),
        ("the same, memory of words full", "datatrove default", warm),
    ]
    return (
        f"## Quality filters\n\n{side_by_side(rows)}\n"
        f"Different decisions, words of str.split: {differences(three)}.\n"
        f"Different decisions, spaCy's words, memory empty: {differences(cold)}; "
        f"full: {differences(same)}.\n"
    )
