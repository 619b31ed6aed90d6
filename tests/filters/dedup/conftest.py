"""Real text for the deduplication tests: the demo corpus, and pieces of it with planted copies."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tamis
from tamis.pipeline.documents import ROW, Documents


def make_documents(texts, ids=None, first_row=0, alive=None):
    ids = [f"doc-{i}" for i in range(len(texts))] if ids is None else ids
    columns = {
        "id": pa.array(ids, pa.string()),
        "text": pa.array(texts, pa.large_string()),
        ROW: pa.array(np.arange(first_row, first_row + len(texts), dtype=np.uint64)),
    }
    return Documents(pa.RecordBatch.from_pydict(columns), alive)


@pytest.fixture(scope="session")
def demo():
    path = Path(tamis.__file__).parent / "demo" / "minicrawl.jsonl.gz"
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def copies(demo):
    """3,000 pieces of real text, 40 to 400 words, and edited copies of 900 (0 to 12 % of words)."""
    random.seed(7)
    vocabulary = [word for record in demo[::7] for word in record["text"].split()]
    pieces = []
    for record in demo:
        words = record["text"].split()
        while len(words) >= 40 and len(pieces) < 3000:
            size = random.randint(40, 400)
            pieces.append(words[:size])
            words = words[size:]
    edited = []
    for piece in random.sample(pieces, 900):
        rate = random.choice([0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12])
        copy = [random.choice(vocabulary) if random.random() < rate else w for w in piece]
        edited.append(copy)
    texts = [" ".join(piece) for piece in pieces + edited]
    random.shuffle(texts)
    return texts
