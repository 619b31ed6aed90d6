"""Answers of a compact model on a CPU: prompts one by one, in batches as they come, and in batches
of like length.

The prompts are the windows of real documents, most of which are full and many of which are not; the
model, of four layers, has random weights, so that every answer is as long as it may be.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Sample, Side, clock, measure, table
from benchmarks.texts import Part, read_records
from tamis.filters.refine.chunks import chunk_documents, count_words
from tamis.filters.refine.prompts import chunk_prompt
from tamis.generation.generator import Prompt
from tamis.generation.transformers import Transformers

PROMPTS, WORDS, TOKENS = 48, 50, 24
BATCH_TOKENS = 4096


class AsTheyCome(Transformers):
    """Batches of the same size in the order of the prompts."""

    def _batches(self, lengths: dict[int, int], max_tokens: int) -> Iterator[list[int]]:
        batch: list[int] = []
        for number in lengths:
            longest = max(lengths[one] for one in [*batch, number])
            if batch and (len(batch) + 1) * (longest + max_tokens) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(number)
        yield batch


def prompts(path: str) -> list[Prompt]:
    """The windows of documents that are spread over the corpus."""
    texts = [record["text"] for record in read_records(path)]
    step = max(1, len(texts) // PROMPTS)
    windows = chunk_documents(texts[::step], count_words, WORDS)
    return [chunk_prompt(one) for several in windows for one in several[-2:]][:PROMPTS]


def write_model(folder: Path) -> None:
    """A model of four layers and a million parameters, with a tokenizer of bytes."""
    from tamis.trainers.export import save_model
    from tamis.trainers.model import Decoder, model_config
    from tamis.trainers.tokenizer import byte_tokenizer

    config = model_config(
        vocab_size=258, hidden_size=160, layers=4, heads=4, kv_heads=2, context=4096
    )
    save_model(Decoder(config, seed=0), byte_tokenizer(), folder)


def generate_subject(path: str, how: str) -> dict[str, Any]:
    """``how``: alone, as they come, by length."""
    import torch

    torch.set_num_threads(1)
    asked = prompts(path)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        cls = AsTheyCome if how == "as they come" else Transformers
        size = 1 if how == "alone" else BATCH_TOKENS
        generator = cls(model=folder, device="cpu", batch_tokens=size)
        generator.generate(asked[:1], 2)
        with clock() as spent:
            answers = generator.generate(asked, TOKENS)
    sizes = [one.prompt_tokens for one in answers]
    return spent.result(
        *(len(asked), sum(len(one.user.encode()) for one in asked)),
        texts=[one.text for one in answers],
        tokens=sum(one.tokens for one in answers),
        prompt_tokens=(min(sizes), statistics.median(sizes), max(sizes)),
    )


def run(part: Part) -> str:
    """The table: tokens written a CPU second."""
    ways = ("alone", "as they come", "by length")
    sides = {how: Side(generate_subject, {"path": part.path("jsonl"), "how": how}) for how in ways}
    samples: dict[str, list[Sample]] = {how: [] for how in ways}
    for _ in range(3):
        for how, side in sides.items():
            samples[how].append(measure(side))
    speeds = {
        how: sorted(one.facts["tokens"] / one.cpu for one in several)
        for how, several in samples.items()
    }
    slowest = statistics.median(speeds["alone"])
    rows = [
        [how, f"{middle:,.0f}", f"{middle / slowest:.2f}x"]
        for how, middle in ((how, statistics.median(speed)) for how, speed in speeds.items())
    ]
    first = samples["alone"][0].facts
    low, middle, high = first["prompt_tokens"]
    answers = {tuple(one.facts["texts"]) for several in samples.values() for one in several}
    return (
        f"A model of four layers in this process (transformers, float32): {PROMPTS} windows of "
        f"{low:,} to {high:,} tokens (median {middle:,.0f}), {TOKENS} tokens for each; the answers "
        f"are {'the same' if len(answers) == 1 else 'not the same: this is wrong'}.\n\n"
        + table(["prompts", "tokens written a CPU second", ""], rows)
    )
