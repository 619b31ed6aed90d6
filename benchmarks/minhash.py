"""Near-duplicates: from text to clusters."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Side, clock, compare, side_by_side
from benchmarks.peers import datatrove_documents, datatrove_minhash, quiet_datatrove
from benchmarks.texts import Part, documents_of, read_records, record_batches, text_bytes


def tamis_subject(path: str, ngram: int = 5) -> dict[str, Any]:
    """Signatures, bands, clusters, and for every document whether it is a duplicate."""
    from tamis.filters.dedup.minhash import MinHash
    from tamis.pipeline.warmup import warm_up

    stage = MinHash(ngram=ngram)
    list(warm_up([stage]))
    batches = record_batches(path)
    table = pa.Table.from_batches(batches)
    with clock() as spent:
        fitted = stage.fit_table(table)
        duplicates = sum(
            np.count_nonzero(fitted.measure(documents)["duplicate"])
            for documents in documents_of(batches)
        )
    return spent.result(table.num_rows, text_bytes(batches), duplicates=int(duplicates))


def datatrove_subject(path: str, words: str) -> dict[str, Any]:
    """Signatures, buckets, clusters and the filter, in one process."""
    quiet_datatrove()
    documents = datatrove_documents(path)
    with tempfile.TemporaryDirectory() as folder:
        signature, buckets, cluster, remove = datatrove_minhash(Path(folder), words)
        with clock() as spent:
            signature.run(iter(documents))
            for bucket in range(14):
                buckets.run(rank=bucket, world_size=14)
            cluster.run()
            kept = sum(1 for _ in remove.run(iter(documents)))
    size = sum(len(document.text.encode()) for document in documents)
    return spent.result(len(documents), size, duplicates=len(documents) - kept)


def datasketch_subject(path: str) -> dict[str, Any]:
    """112 permutations of word 5-grams; an LSH index of 14 bands, asked before it is added to."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    records = read_records(path)
    index = MinHashLSH(num_perm=112, params=(14, 8))
    duplicates = 0
    with clock() as spent:
        for number, record in enumerate(records):
            words = record["text"].lower().split()
            shingles = {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}
            signature = MinHash(num_perm=112, hashfunc=xxhash.xxh32_intdigest)
            signature.update_batch(list(shingles))
            duplicates += bool(index.query(signature))
            index.insert(number, signature)
    size = sum(len(record["text"].encode()) for record in records)
    return spent.result(len(records), size, duplicates=duplicates)


def run(part: Part, small: Part) -> str:
    """The section of the results."""
    path, few = part.path("jsonl"), small.path("jsonl")
    ours = Side(tamis_subject, {"path": path})
    datasketch = compare(ours, Side(datasketch_subject, {"path": path}), repetitions=2)
    split = compare(ours, Side(datatrove_subject, {"path": few, "words": "whitespace"}))
    spacy = compare(ours, Side(datatrove_subject, {"path": few, "words": "spacy"}), repetitions=2)
    rows = [
        ("text to duplicates", "datasketch, xxh32", datasketch),
        ("text to duplicates", "datatrove, str.split", split),
        ("text to duplicates", "datatrove default", spacy),
    ]
    found = [one[0].facts["duplicates"] for one in (datasketch.ours, datasketch.peer)]
    return (
        f"## Near-duplicates (5-grams, 14 bands of 8)\n\n{side_by_side(rows)}\n"
        f"Duplicates in {part.documents:,} documents: {found[0]:,} by tamis, {found[1]:,} by "
        "datasketch (which counts a document as one when anything before it is similar).\n"
    )
