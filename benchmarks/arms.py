"""Compact models, one for each way of choosing the data: trained on equally many tokens, and
measured on the same held-out documents.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MODEL = {"preset": None, "hidden_size": 96, "layers": 3, "heads": 3}
VOCABULARY = 2048
CONTEXT = 128
BATCH = 16
DRAWS = 4000
"""Of the bootstrap."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What the models of some arms make of the held-out documents."""

    nats: Mapping[str, Float64]
    """By arm, (seeds, documents)."""
    bytes: Float64
    """UTF-8 bytes of the documents, (documents,)."""

    def bits_per_byte(self, arm: str) -> float:
        """Over all documents, the mean of the seeds."""
        return float(self.nats[arm].sum(1).mean() / self.bytes.sum() / np.log(2))

    def gain(self, arm: str, base: str) -> tuple[float, float, float]:
        """By how many bits per byte the arm is better than the base, with a 95 % interval: seeds
        and documents are drawn again, both arms with the same ones.
        """
        difference = (self.nats[base] - self.nats[arm]) / np.log(2)
        random = np.random.default_rng(0)
        seeds, documents = difference.shape
        gains = np.empty(DRAWS)
        for draw in range(DRAWS):
            rows = random.integers(seeds, size=seeds)
            columns = random.integers(documents, size=documents)
            drawn = difference[rows].mean(0)[columns].sum()
            gains[draw] = drawn / self.bytes[columns].sum()
        low, high = np.quantile(gains, [0.025, 0.975])
        return float(difference.mean(0).sum() / self.bytes.sum()), float(low), float(high)


def measure_arms(
    arms: Mapping[str, Sequence[str]],
    held_out: Sequence[str],
    tokens: int,
    seeds: Sequence[int],
    folder: Path,
    tokenizer_texts: Sequence[str],
) -> Measured:
    """Train a model for each arm and seed on ``tokens`` targets (texts come again when they are
    used up), as many at once as there are cores, and measure them.
    """
    from tamis.trainers.tokenizer import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer"
    train_tokenizer(tokenizer_texts, VOCABULARY).save(tokenizer)
    jobs = []
    for arm, texts in arms.items():
        path = folder / f"{arm.replace(' ', '_')}.jsonl"
        write_texts(path, texts)
        jobs += [(path, tokenizer, tokens, seed, list(held_out)) for seed in seeds]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_train_and_measure, *zip(*jobs, strict=True)))
    nats = np.array(found).reshape(len(arms), len(seeds), len(held_out))
    sizes = np.array([len(text.encode()) for text in held_out], np.float64)
    return Measured(dict(zip(arms, nats, strict=True)), sizes)


def write_texts(path: Path, texts: Sequence[str]) -> None:
    """As JSONL with ids."""
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")


def train_model(path: Path, tokenizer: Path, tokens: int, seed: int) -> Path:
    """Train on a file of texts, on one core; the folder of the training."""
    import torch

    from tamis.trainers.config import TrainConfig
    from tamis.trainers.run import train
    from tamis.trainers.view import View

    torch.set_num_threads(1)
    output = path.with_name(f"{path.stem}-{seed}")
    config = TrainConfig.model_validate(
        {
            "output": output,
            "data": {
                "sources": {"texts": str(path)},
                "tokenizer": str(tokenizer),
                "context": CONTEXT,
                "held_out": 0.0,
                "tokens": path.with_name(f"{path.stem}-tokens-{seed}"),
            },
            "model": MODEL,
            "optimizer": {"kind": "muon"},
            "tokens": tokens,
            "batch": BATCH,
            "seed": seed,
            "evaluation": {"times": 1},
            "checkpoints": {"minutes": 60},
        }
    )
    return train(config, View(quiet=True))


def document_nats(model: Path, texts: Sequence[str]) -> Float64:
    """-ln p of each text, (texts,)."""
    from tamis.trainers.evaluation.bits_per_byte import bits_per_byte
    from tamis.trainers.evaluation.items import Document
    from tamis.trainers.evaluation.scorer import open_model

    scorer, tokenizer = open_model(model)
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    outcomes = bits_per_byte(scorer, tokenizer, {"held out": documents})
    return np.array([one.metrics["nats"] for one in outcomes])


def _train_and_measure(
    path: Path, tokenizer: Path, tokens: int, seed: int, held_out: list[str]
) -> Float64:
    return document_nats(train_model(path, tokenizer, tokens, seed), held_out)
