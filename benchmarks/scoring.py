"""fastText scoring beside the library row by row and datatrove's filter, with one model file.

The model is trained here as DCLM's is (pairs of words, dim 100, 2M buckets) on the whole corpus:
prose of encyclopedias, news, biographies and speeches against the rest.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.harness import Comparison, Side, clock, compare, measure, side_by_side, table
from benchmarks.peers import datatrove_documents
from benchmarks.texts import Part, documents_of, read_records, record_batches, text_bytes
from tamis.pipeline.documents import TEXT

PROSE = ("encyclopedia", "encyclopedia passages", "news", "biographies", "speeches")
PEER = "fasttext-predict==0.9.2.4"


def labelled(path: str) -> Iterator[tuple[str, str]]:
    """(label, text) of all documents of a JSONL file."""
    with Path(path).open("rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            yield ("hq" if record["domain"] in PROSE else "cc"), record[TEXT]


def training_subject(path: str, model: str) -> dict[str, Any]:
    """Train the model, one thread, once over the texts."""
    from tamis.scorers.fasttext_training import FastTextSettings, train_classifier

    pairs = list(labelled(path))
    with clock() as spent:
        train_classifier(pairs, FastTextSettings.preset("dclm", epoch=1), Path(model))
    return spent.result(len(pairs), sum(len(text.encode()) for _, text in pairs))


def tamis_subject(path: str, model: str) -> dict[str, Any]:
    """Score every document; model and compiled code loaded beforehand."""
    from tamis.scorers.fasttext import FastText

    stage = FastText(model=Path(model))
    batches = record_batches(path)
    stage.measure(next(documents_of(batches[:1])))
    scores: list[float] = []
    with clock() as spent:
        for documents in documents_of(batches):
            scores += stage.measure(documents)["score"].tolist()
    return spent.result(len(scores), text_bytes(batches), scores=scores)


def library_subject(path: str, model: str) -> dict[str, Any]:
    """``predict`` of the package fasttext-predict for every text, loaded beforehand."""
    import fasttext

    peer = fasttext.load_model(model)
    texts = [record[TEXT] for record in read_records(path)]
    scores = []
    with clock() as spent:
        for text in texts:
            labels, found = peer.predict(text.replace("\n", " "), k=2)
            scores.append(float(found[labels.index("__label__hq")]))
    return spent.result(len(texts), sum(len(one.encode()) for one in texts), scores=scores)


def datatrove_subject(path: str, model: str) -> dict[str, Any]:
    """datatrove's filter, with line breaks as spaces; model loaded beforehand."""
    from datatrove.pipeline.filters import FastTextClassifierFilter

    # It asks for one of the packages named fasttext; ours is another, with the same functions.
    FastTextClassifierFilter._requires_dependencies = []
    peer = FastTextClassifierFilter(model, keep_labels=("hq", 0.5), newline_replacement=" ")
    documents = datatrove_documents(path)
    assert peer.model
    size = sum(len(one.text.encode()) for one in documents)
    with clock() as spent:
        for document in documents:
            peer.filter(document)
    scores = [one.metadata["__label__hq"] for one in documents]
    return spent.result(len(documents), size, scores=scores)


def loading_subject(model: str, library: bool) -> dict[str, Any]:
    """Load the model alone; the peak of memory is of interest too."""
    from tamis.filters.fasttext import FastTextModel

    with clock() as spent:
        if library:
            import fasttext

            fasttext.load_model(model)
        else:
            FastTextModel.load(model)
    private = sum(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
        if line.startswith("Private_Dirty")
    )
    # Long enough for the peak to be seen.
    time.sleep(0.2)
    return spent.result(1, Path(model).stat().st_size, private=private)


def difference(comparison: Comparison) -> str:
    """The largest difference of two scores, and how many decisions at 0.5 differ."""
    sides = (comparison.ours[0].facts["scores"], comparison.peer[0].facts["scores"])
    ours, peer = (np.minimum(np.array(one, np.float64), 1.0) for one in sides)
    gap = np.nanmax(np.abs(ours - peer))
    return f"{gap:.1e}, {int(((ours >= 0.5) != (peer >= 0.5)).sum())} decisions at 0.5"


def loading(model: str, env: dict[str, str]) -> str:
    """What it takes to load the model for the first time, again, and by the library."""
    rows = []
    for name, library in (("first time", False), ("again", False), ("fasttext-predict", True)):
        found = measure(Side(loading_subject, {"model": model, "library": library}, env))
        private = found.facts["private"]
        rows.append([name, f"{found.cpu:.2f}", f"{found.peak / 1e6:,.0f}", f"{private / 1e6:,.0f}"])
    return table(["load the model", "CPU s", "peak MB", "of its own after, MB"], rows)


def run(whole: Part, part: Part, small: Part, folder: Path) -> str:
    """The section of the results; ``folder`` takes the model and the peer."""
    folder.mkdir(parents=True)
    model = str(folder / "quality.bin")
    training = measure(Side(training_subject, {"path": whole.path("jsonl"), "model": model}))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(folder / "peer"), PEER], check=True)
    env = {"TAMIS_CACHE": str(folder / "cache")}
    peer_env = {**env, "PYTHONPATH": str(folder / "peer")}
    loads = loading(model, peer_env)
    at = {"path": part.path("jsonl"), "model": model}
    few = {"path": small.path("jsonl"), "model": model}
    library = compare(Side(tamis_subject, at, env), Side(library_subject, at, peer_env))
    datatrove = compare(Side(tamis_subject, few, env), Side(datatrove_subject, few, env))
    rows = [
        ("fasttext", "fasttext-predict, row by row", library),
        ("fasttext", "datatrove, FastTextClassifierFilter", datatrove),
    ]
    size = Path(model).stat().st_size
    return (
        f"## fastText scoring\n\nA model of {size / 1e9:.2f} GB: pairs of words, dim 100, 2M "
        f"buckets, trained on {training.documents:,} documents in {training.cpu:.0f} CPU seconds "
        "(one thread, one epoch).\n\n"
        f"{side_by_side(rows)}\n"
        f"Largest difference of a score: {difference(library)} (fasttext-predict); "
        f"{difference(datatrove)} (datatrove).\n\n"
        f"{loads}\n"
        "The first load multiplies the model out and keeps the table in the cache folder; later "
        "ones, and other processes, map it into memory and share it.\n"
    )
