"""Supervised fine-tuning: a document is a prompt with the answer to it, and the answer alone is
learned from.

    data: {sources: {pairs: pairs.parquet}, packing: best_fit, document_mask: true}
    methods: ["tamis.trainers.answers:Answers"]

``text`` holds prompts as a chat template makes them, up to where the answer begins; the answer is
in a column of its own. ``TEMPLATE`` is the template that goes along with the trained model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tamis.generation.generator import Prompt
from tamis.pipeline.documents import TEXT
from tamis.pipeline.errors import TamisError, nearest
from tamis.pipeline.storage import explained
from tamis.trainers.hooks import Encoded, Hook

if TYPE_CHECKING:
    from tamis.trainers.tokenizer import Tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""In Jinja: Qwen's form, which servers look for in models of Qwen3's form, as ours are."""


class Answers(Hook):
    """``bos``, the prompt, the answer, ``eos``; the last two are targets."""

    column: str = "answer"

    def encode(
        self, documents: pa.RecordBatch, tokenizer: Tokenizer, stage: int
    ) -> Sequence[Encoded | None] | None:
        names = documents.schema.names
        if self.column not in names:
            raise TamisError(
                f"answers: the documents have no column {self.column}{nearest(self.column, names)}"
            )
        prompts = tokenizer.encode(documents.column(TEXT))
        answers = tokenizer.encode(documents.column(self.column))
        found: list[Encoded | None] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            tokens = np.concatenate([[tokenizer.bos], prompt, answer, [tokenizer.eos]])
            weights = np.ones(len(tokens), np.float32)
            weights[: 1 + len(prompt)] = 0
            found.append((tokens.astype(np.int32), weights))
        return found


def templated(prompt: Prompt) -> str:
    """The prompt as ``TEMPLATE`` writes it, without ``bos``."""
    system = f"<|im_start|>system\n{prompt.system}<|im_end|>\n" if prompt.system else ""
    return f"{system}<|im_start|>user\n{prompt.user}<|im_end|>\n<|im_start|>assistant\n"


def write_template(folder: Path) -> None:
    """Let the model in a folder be asked in ``TEMPLATE``.

    Raises:
        TamisError: if its tokenizer_config.json cannot be changed.
    """
    path = folder / "tokenizer_config.json"
    with explained(str(path)):
        settings = json.loads(path.read_text(encoding="utf-8")) | {"chat_template": TEMPLATE}
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
