"""``tamis fit refiner CONFIG`` with ``method: generate``: a language model that writes programs.

    method: generate
    data: [documents.jsonl.gz]
    labels: [planted, teacher]
    transformers: models/Qwen3-0.6B     # or start_from: runs/base, or model: {preset: 20M}
    output: models/refiner

It is tuned on pairs of a prompt, just as ``refine`` asks it later, and the gold program: windows of
numbered lines of the pages that stay, and all pages with ``keep_doc()`` or ``drop_doc()``. The loss
is that of the programs' tokens alone. Source: Zhou et al. 2024 (arXiv:2409.17115), section 3.2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from tamis.filters.refine.chunks import WINDOW, Chunk, CountTokens, chunk_documents
from tamis.filters.refine.fit import Example, RefinerData
from tamis.filters.refine.generated import Generated
from tamis.filters.refine.line_programs import window_program
from tamis.filters.refine.prompts import (
    CHUNK_ANSWER_TOKENS,
    DOCUMENT_ANSWER_TOKENS,
    DOCUMENT_PROMPT_TOKENS,
    chunk_prompt,
    document_prompts,
)
from tamis.filters.refine.quality import format_quality, measure_programs
from tamis.generation.cache import paid
from tamis.generation.generator import Prompt
from tamis.generation.transformers import Transformers
from tamis.pipeline.documents import TEXT, Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.storage import RunFolder, explained
from tamis.scorers.artefact import write_facts
from tamis.trainers.answers import templated, write_template
from tamis.trainers.config import ModelSection, NewTokenizer, TrainConfig
from tamis.trainers.schedule import Schedule
from tamis.trainers.view import View

if TYPE_CHECKING:
    from tamis.trainers.tokenizer import Tokenizer

LEARNING_RATE = 1e-5
"""Of the source, for a model that has been trained before."""


class Pair(NamedTuple):
    """What a refiner is asked, and its answer."""

    prompt: Prompt
    answer: str


def make_pairs(
    examples: Sequence[Example],
    count_tokens: CountTokens,
    level: Literal["both", "document", "chunk"] = "both",
    window: int = WINDOW,
    max_prompt_tokens: int = DOCUMENT_PROMPT_TOKENS,
) -> list[Pair]:
    """The pairs of examples: first about windows of those that stay, then about all documents.

    Args:
        examples: Pages and their gold programs.
        count_tokens: By the tokenizer of the model.
        level: Which of both.
        window: Tokens of a window.
        max_prompt_tokens: Of a question about a document.

    Raises:
        ValueError: if ``max_prompt_tokens`` has no room for a text.
    """
    pairs = []
    if level != "document":
        stay = [one.gold for one in examples if one.gold.keep]
        windows = chunk_documents([one.text for one in stay], count_tokens, window)
        for gold, several in zip(stay, windows, strict=True):
            lines = gold.text.split("\n")
            pairs += [
                Pair(chunk_prompt(one), window_program(gold.program, lines, one)) for one in several
            ]
    if level != "chunk":
        texts = [one.gold.text for one in examples]
        prompts = document_prompts(texts, count_tokens, max_prompt_tokens)
        for one, prompt in zip(examples, prompts, strict=True):
            pairs.append(Pair(prompt, "keep_doc()" if one.gold.keep else "drop_doc()"))
    return pairs


class FitGenerator(RefinerData):
    """Tunes a language model to write programs: one of ours or any causal one of transformers."""

    kind: ClassVar[str] = "refiner"

    method: Literal["generate"] = "generate"
    model: ModelSection | None = None
    """A decoder of ours with random weights: ``{preset: 20M}`` or a shape."""
    start_from: Path | None = None
    """A model of ours, or the folder of a training."""
    transformers: str | None = None
    """The folder of a causal model, or its name on the hub if it has been downloaded."""
    tokenizer: str | NewTokenizer = "bytes"
    """Of ``model``: ``bytes``, a tokenizer.json, or ``{vocabulary: 8192}`` to train one."""
    level: Literal["both", "document", "chunk"] = "both"
    """Which programs are learned: one model for both, or one for each."""
    window: int = Field(default=WINDOW, ge=1)
    max_tokens: int = Field(default=CHUNK_ANSWER_TOKENS, ge=1)
    """Of an answer about a window, when it is measured."""
    max_prompt_tokens: int = Field(default=DOCUMENT_PROMPT_TOKENS, ge=1)
    epochs: int = Field(default=4, ge=1, le=1000)
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Its peak; by default 1e-5, and for random weights what ``tamis train`` takes."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens of a step, of prompts and padding too."""
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the products; weights are float32. By default bfloat16 on a GPU."""
    measured: int = Field(default=300, ge=1)
    """The most pages of sites held out that the model writes programs for, for each of ``labels``:
    the first ones."""

    def model_post_init(self, context: object, /) -> None:
        super().model_post_init(context)
        given = (self.model, self.start_from, self.transformers)
        if sum(one is not None for one in given) != 1:
            raise RecipeError(
                "method: generate tunes one of model (random weights), start_from (a training of "
                "ours) and transformers (a folder); name one of them"
            )

    def fit(self) -> str:
        self._check_output()
        examples = self.examples()
        learned = [one for one in examples if not one.held_out]
        tune = self._tune_ours if self.transformers is None else self._tune_transformers
        facts = {"pages": len(learned), **tune(learned)}
        facts["held out"] = quality = self._measure([one for one in examples if one.held_out])
        write_facts(self.output, "refine", {"writer": self._writer()}, self, facts)
        shown = [
            f"labels: {kind}\n{format_quality(one)}\n  answers that did not end "
            f"{one['cut_answers']:.2%}"
            for kind, one in quality.items()
        ]
        shown.append(
            f"trained on {facts['pairs']:,} answers about {len(learned):,} pages: {self.output}"
        )
        if self.level != "both":
            other = "chunk" if self.level == "document" else "document"
            shown.append(f"no {other} programs were learned: the gold ones stand for them above")
        if facts["left_out"]:
            shown.append(f"{facts['left_out']:,} answers were left out: they do not fit the model")
        return "\n\n".join(shown)

    def _check_output(self) -> None:
        """Nothing that is there is written over; a training of ours that was stopped goes on."""
        ours = self.transformers is None and (self.output / "manifest.json").is_file()
        with explained(str(self.output)):
            used = self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir()))
        if used and not ours:
            raise TamisError(
                f"{self.output} exists and is not empty; choose another output, or remove it"
            )

    def _pairs(self, examples: Sequence[Example], count_tokens: CountTokens) -> list[Pair]:
        try:
            return make_pairs(
                examples, count_tokens, self.level, self.window, self.max_prompt_tokens
            )
        except ValueError as error:
            raise RecipeError(f"max_prompt_tokens = {self.max_prompt_tokens}: {error}") from error

    def _tune_ours(self, examples: Sequence[Example]) -> dict[str, Any]:
        from tamis.trainers.model import preset
        from tamis.trainers.run import fingerprint, train

        tokenizer = self._open_tokenizer(examples)

        def count_tokens(texts: Sequence[str]) -> list[int]:
            return [len(one) for one in tokenizer.encode(texts)]

        pairs = self._pairs(examples, count_tokens)
        prompts = [templated(one.prompt) for one in pairs]
        asked = count_tokens(prompts)
        answers = [size + 1 for size in count_tokens([one.answer for one in pairs])]
        (around,) = count_tokens([templated(chunk_prompt(Chunk(0, 0, "")))])
        about_window = self.window + self.max_tokens
        about_document = self.max_prompt_tokens + DOCUMENT_ANSWER_TOKENS
        context = 1 + around + max(about_window, about_document)
        # A shape that cannot be is refused before anything is written.
        shape = (self._shape() or ModelSection()).model_dump()
        preset(shape.pop("preset"), tokenizer.vocab_size, context, **shape)
        fits = [at for at, size in enumerate(asked) if 1 + size + answers[at] <= context]
        self._enough(fits)
        table = pa.table(
            {
                "id": [str(at) for at in fits],
                "text": [prompts[at] for at in fits],
                "answer": [pairs[at].answer for at in fits],
            }
        )
        tokenizer.save(self.output / "tokenizer")
        targets = self.epochs * sum(answers[at] for at in fits)
        config = self._training(self._write(table), context, targets)
        known = RunFolder(str(self.output)).read_json("manifest.json")
        if isinstance(known, dict) and known.get("config") != fingerprint(config):
            raise TamisError(
                f"{self.output} holds another training; choose another output, or remove it"
            )
        train(config, View())
        write_template(self.output / "model")
        return {"pairs": len(fits), "left_out": len(pairs) - len(fits)}

    def _open_tokenizer(self, examples: Sequence[Example]) -> Tokenizer:
        """That of the model which is gone on from, else the one of the setting."""
        from tamis.trainers.tokenizer import open_tokenizer, train_tokenizer

        if self.start_from is not None:
            from tamis.trainers.export import find_model

            return open_tokenizer(find_model(self.start_from))
        if isinstance(self.tokenizer, NewTokenizer):
            texts = (one.gold.text for one in examples)
            return train_tokenizer(texts, self.tokenizer.vocabulary)
        return open_tokenizer(self.tokenizer)

    def _write(self, table: pa.Table) -> Path:
        """The pairs as a file, named by what is in it: other pairs are another training."""
        content = pa.BufferOutputStream()
        pq.write_table(table, content)
        data = content.getvalue().to_pybytes()
        path = self.output / f"pairs-{xxhash.xxh3_64_hexdigest(data)}.parquet"
        with explained(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
        return path

    def _training(self, pairs: Path, context: int, targets: int) -> TrainConfig:
        rate = self.learning_rate or (LEARNING_RATE if self.start_from is not None else None)
        return TrainConfig.model_validate(
            {
                "output": self.output,
                "data": {
                    "sources": {"pairs": str(pairs)}, "context": context,
                    "tokenizer": str(self.output / "tokenizer"), "packing": "best_fit",
                    "document_mask": True, "held_out": 0.0,
                },
                "model": self._shape(),
                "tokens": targets,
                "batch": max(1, self.batch_tokens // context),
                "optimizer": {
                    "lr": rate, "weight_decay": self.weight_decay, "clip": self.clip,
                },
                "schedule": {"kind": "cosine"},
                "methods": ["tamis.trainers.answers:Answers"],
                "start_from": self.start_from,
                "seed": self.seed,
                "device": self.device,
                "precision": self.precision,
            }
        )  # fmt: skip

    def _shape(self) -> ModelSection | None:
        """Of a decoder of ours."""
        if self.start_from is None:
            return self.model
        from tamis.trainers.export import load_with_tokenizer

        shape = load_with_tokenizer(self.start_from)[0].config.model_dump()
        return ModelSection(**{name: shape.get(name) for name in ModelSection.model_fields})

    def _tune_transformers(self, examples: Sequence[Example]) -> dict[str, Any]:
        from tamis.embedding.models import model_folder
        from tamis.trainers.tune import Chat, Tuning, context_of, open_model, save, tune

        folder = model_folder(str(self.transformers))
        chat, model = Chat(folder), open_model(folder)
        pairs = self._pairs(examples, chat.count_tokens)
        rows = chat.rows([one.prompt for one in pairs], [one.answer for one in pairs])
        fits = [row for row in rows if len(row) <= context_of(model)]
        self._enough(fits)
        how = Tuning(
            self.epochs, self.learning_rate or LEARNING_RATE, self.batch_tokens,
            Schedule(kind="cosine"), self.clip, self.weight_decay, self.seed, self.device,
            self.precision,
        )  # fmt: skip
        with View() as view:
            tune(model, fits, how, view)
        save(model, chat, self.output)
        return {"pairs": len(fits), "left_out": len(rows) - len(fits)}

    def _enough(self, fits: Sequence[object]) -> None:
        if not fits:
            raise TamisError(
                "no answer fits the context of the model with its prompt: take a smaller window "
                "and max_prompt_tokens"
            )

    def _writer(self) -> dict[str, Any]:
        """The setting of ``refine`` that asks the model as it was tuned."""
        sizes = {
            "window": self.window,
            "max_tokens": self.max_tokens,
            "max_prompt_tokens": self.max_prompt_tokens,
        }
        return {"generator": {"transformers": str(self.output)}, **sizes}

    def _measure(self, held: Sequence[Example]) -> dict[str, Any]:
        """What its programs are on sites held out, by ``labels``. A level that was not learned is
        taken for perfect.
        """
        found: dict[str, Any] = {}
        asks = Transformers(model=str(self.output), device=self.device)
        for kind in dict.fromkeys(self.labels):
            gold = [one.gold for one in held if one.kind == kind][: self.measured]
            if not gold:
                continue
            text = pa.array([one.text for one in gold], pa.large_string())
            documents = Documents(pa.RecordBatch.from_pydict({TEXT: text}))
            chunk = [one.program for one in gold]
            judged = ["keep_doc()" if one.keep else "drop_doc()" for one in gold]
            with tempfile.TemporaryDirectory() as cache:
                writer = Generated(
                    generator=asks, window=self.window, max_tokens=self.max_tokens,
                    max_prompt_tokens=self.max_prompt_tokens, cache=cache,
                )  # fmt: skip
                if self.level != "document":
                    chunk = writer.chunk_programs(documents)
                if self.level != "chunk":
                    judged = writer.document_programs(documents)
                cost = paid(asks, cache)
            quality = measure_programs(gold, chunk, judged)
            found[kind] = {**quality, "cut_answers": cost.cut / max(cost.answers, 1)}
        return found
