"""DSIR beside the code that its authors released, and the difficulty of documents beside the same
definitions in plain Python.
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Side, clock, compare, side_by_side
from benchmarks.texts import Part, documents_of, read_records, record_batches, text_bytes
from tamis.pipeline.documents import TEXT

PEERS = ("data-selection==1.0.3", "nltk==3.10.4")
# The target: every tenth document.
TARGET = 10


def fit_model(path: str, model: str) -> None:
    """Count a tenth of the documents as the target, all of them as the raw corpus."""
    from tamis.scorers.dsir import DsirModel
    from tamis.scorers.hashed_ngrams import ngram_counts

    documents = documents_of(record_batches(path))
    target, raw = np.zeros(10_000, np.int64), np.zeros(10_000, np.int64)
    for one in documents:
        raw += ngram_counts(one, 2, 10_000)
        one.alive = np.arange(len(one)) % TARGET == 0
        target += ngram_counts(one, 2, 10_000)
    DsirModel(2, 0.1, {"target": target}, raw).save(Path(model))


def tamis_subject(path: str, model: str) -> dict[str, Any]:
    """Log importance weights of all documents; model and compiled code loaded beforehand."""
    from tamis.scorers.dsir import Dsir

    stage = Dsir(model=Path(model), min_tokens=1)
    batches = record_batches(path)
    stage.measure(next(documents_of([batches[0].slice(0, 2)])))
    scores: list[float] = []
    with clock() as spent:
        for documents in documents_of(batches):
            scores += stage.measure(documents)["score"].tolist()
    return spent.result(len(scores), text_bytes(batches), scores=scores)


def released_subject(path: str, model: str) -> dict[str, Any]:
    """``featurizer`` and ``importance_estimator`` of the released code, with the same counts."""
    from data_selection import HashedNgramDSIR

    from tamis.scorers.dsir import DsirModel

    peer = HashedNgramDSIR([], [], cache_dir=str(Path(model).parent / "released"))
    peer.log_diff = DsirModel.load(Path(model)).log_ratios("target")
    texts = [record[TEXT] for record in read_records(path)]
    with clock() as spent:
        scores = [float(peer.importance_estimator(peer.featurizer(text))) for text in texts]
    return spent.result(len(texts), sum(len(one.encode()) for one in texts), scores=scores)


def difficulty_subject(path: str) -> dict[str, Any]:
    """Compression ratio, MTLD and Flesch of all documents; compiled code loaded beforehand."""
    from tamis.scorers.difficulty import Difficulty

    batches = record_batches(path)
    Difficulty().measure(next(documents_of([batches[0].slice(0, 2)])))
    with clock() as spent:
        for documents in documents_of(batches):
            Difficulty().measure(documents)
    return spent.result(sum(len(batch) for batch in batches), text_bytes(batches))


def factors(words: list[str]) -> float:
    """Factors of MTLD in one direction."""
    found, types, tokens = 0.0, set[str](), 0
    for word in words:
        types.add(word)
        tokens += 1
        if len(types) / tokens <= 0.72:
            found, types, tokens = found + 1, set(), 0
    return found + (1 - len(types) / tokens) / 0.28 if tokens else found


def python_subject(path: str) -> dict[str, Any]:
    """Compression ratio and MTLD by their definitions, words by ``str.split``."""
    texts = [record[TEXT] for record in read_records(path)]
    with clock() as spent:
        for text in texts:
            content = text.encode()
            assert len(content) / max(len(zlib.compress(content, 9)), 1) > 0
            words = text.lower().split()
            assert factors(words) >= 0 <= factors(words[::-1])
    return spent.result(len(texts), sum(len(one.encode()) for one in texts))


def run(part: Part, small: Part, folder: Path) -> str:
    """The section of the results; ``folder`` takes the model and the peer."""
    folder.mkdir(parents=True)
    model = str(folder / "dsir.npz")
    fit_model(part.path("jsonl"), model)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(folder / "peer"), *PEERS], check=True)
    at = {"path": small.path("jsonl"), "model": model}
    released = compare(
        Side(tamis_subject, {**at, "path": part.path("jsonl")}),
        Side(released_subject, at, {"PYTHONPATH": str(folder / "peer")}),
    )
    ours = np.array(tamis_subject(**at)["facts"]["scores"])
    theirs = np.array(released.peer[0].facts["scores"])
    gap = np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1.0))
    path = {"path": part.path("jsonl")}
    difficulty = compare(Side(difficulty_subject, path), Side(python_subject, path))
    rows = [
        ("dsir", "data-selection, HashedNgramDSIR", released),
        ("difficulty", "the definitions in Python, without Flesch", difficulty),
    ]
    return (
        "## DSIR and difficulty\n\n"
        + side_by_side(rows)
        + f"\nThe log importance weights differ by at most {gap:.0e} of their size.\n"
    )
