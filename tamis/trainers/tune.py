"""Supervised fine-tuning of a causal model of ``transformers``: all weights, by AdamW."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from tamis.generation.generator import Prompt
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.storage import TEMPORARY, explained
from tamis.trainers.answers import TEMPLATE
from tamis.trainers.schedule import Schedule
from tamis.trainers.view import View

_POOL = 256
"""Pairs among which those of like length go together."""


class Row(NamedTuple):
    """A pair as tokens."""

    prompt: list[int]
    answer: list[int]
    """With the token that ends it."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class Tuning(NamedTuple):
    """How a model is tuned."""

    epochs: int
    learning_rate: float
    batch_tokens: int
    """Of a step, padding included; a pair alone may have more."""
    schedule: Schedule
    clip: float
    weight_decay: float
    seed: int
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16"] | None


class Chat:
    """The tokenizer of a model, with its own chat template, or ``TEMPLATE`` if it has none.

    Raises TamisError if the folder has no tokenizer, or nothing that ends an answer.
    """

    def __init__(self, folder: Path) -> None:
        self.loaded: Any = _load("AutoTokenizer", folder)
        if not self.loaded.chat_template:
            self.loaded.chat_template = TEMPLATE
            if self.loaded.bos_token is None:
                self.loaded.chat_template = TEMPLATE.removeprefix("{{ bos_token }}")
        if self.loaded.eos_token_id is None:
            raise TamisError(f"{folder}: its tokenizer has no eos_token, which ends an answer")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without special ones around it."""
        return [len(one) for one in self._encode(texts)]

    def rows(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Row]:
        """Prompts in the template, and answers with what ends them."""
        end = self.loaded.eos_token_id
        asked = self._encode([self._templated(one) for one in prompts])
        return [
            Row(prompt, [*answer, end])
            for prompt, answer in zip(asked, self._encode(answers), strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        rows = self.loaded(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [list(row) for row in rows]

    def _templated(self, prompt: Prompt) -> str:
        messages = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
        try:
            return str(
                self.loaded.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:
            reason = " ".join(str(error).split())
            raise TamisError(
                f"the chat template of {self.loaded.name_or_path} fails: {reason}"
            ) from error


def open_model(folder: Path) -> Any:
    """The model in a folder, with float32 weights.

    Raises:
        TamisError: if it cannot be loaded.
    """
    import torch

    return _load("AutoModelForCausalLM", folder, dtype=torch.float32)


def context_of(model: Any) -> int:
    """The most tokens that the model sees at once."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048)


def tune(model: Any, rows: Sequence[Row], how: Tuning, view: View) -> None:
    """Train a model on answers, in place; the same rows and settings give the same weights on a CPU
    with as many threads.

    Raises:
        TamisError: if the loss is no number any more.
    """
    import torch

    device = how.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device: cuda, and there is no GPU that torch can use")
    precision = how.precision or ("bfloat16" if device == "cuda" else "float32")
    torch.manual_seed(how.seed)
    model.to(device).train()
    optimizer = torch.optim.AdamW(_groups(model, how), lr=how.learning_rate, betas=(0.9, 0.95))
    epochs = [list(_batches(rows, how.batch_tokens, (how.seed, at))) for at in range(how.epochs)]
    steps = sum(map(len, epochs))
    targets = how.epochs * sum(len(row.answer) for row in rows)
    view.begin(targets, f"{steps:,} steps on {targets:,} tokens of answers ({device})")
    done = learned = 0
    for batch in (one for epoch in epochs for one in epoch):
        begun = time.monotonic()
        rate = how.learning_rate * how.schedule.value(done + 1, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = _loss(model, [rows[at] for at in batch])
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TamisError(
                f"the loss of step {done + 1} is no number: take a lower learning_rate"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), how.clip)
        optimizer.step()
        done, fresh = done + 1, sum(len(rows[at].answer) for at in batch)
        learned += fresh
        speed = fresh / max(time.monotonic() - begun, 1e-9)
        view.step({"step": done, "tokens": learned, "loss": value, "tokens_per_second": speed})
    model.eval()


def save(model: Any, chat: Chat, folder: Path) -> None:
    """Write model and tokenizer into a new folder, which appears whole.

    Raises:
        TamisError: if it cannot be written.
    """
    with explained(str(folder)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        try:
            scratch.chmod(0o755)
            with _quiet():
                model.save_pretrained(scratch)
            chat.loaded.save_pretrained(scratch)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _loss(model: Any, rows: Sequence[Row]) -> Any:
    """The mean cross-entropy of the tokens of answers. Rows end together, so that logits are made
    of their last places alone.
    """
    import torch

    longest, last = max(map(len, rows)), max(len(row.answer) for row in rows)
    tokens = torch.zeros((len(rows), longest), dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    labels = torch.full((len(rows), last), -100)
    for number, row in enumerate(rows):
        tokens[number, longest - len(row) :] = torch.tensor([*row.prompt, *row.answer])
        mask[number, longest - len(row) :] = 1
        labels[number, last - len(row.answer) :] = torch.tensor(row.answer)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    logits = model(
        input_ids=tokens.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=places.to(model.device),
        logits_to_keep=last + 1,
        use_cache=False,
    ).logits
    return torch.nn.functional.cross_entropy(
        logits[:, -last - 1 : -1].flatten(0, 1).float(), labels.flatten().to(model.device)
    )


def _batches(rows: Sequence[Row], most: int, seed: tuple[int, int]) -> Iterator[list[int]]:
    """The numbers of all rows, drawn anew for each epoch, in batches of like length."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows)).tolist()
    batches: list[list[int]] = []
    for begin in range(0, len(order), _POOL):
        batch: list[int] = []
        for at in sorted(order[begin : begin + _POOL], key=lambda at: len(rows[at])):
            if batch and (len(batch) + 1) * len(rows[at]) > most:
                batches.append(batch)
                batch = []
            batch.append(at)
        batches.append(batch)
    for at in random.permutation(len(batches)).tolist():
        yield batches[at]


def _groups(model: Any, how: Tuning) -> list[dict[str, Any]]:
    """Weight decay acts on matrices alone."""
    weights = [one for one in model.parameters() if one.requires_grad]
    return [
        {"params": [one for one in weights if one.ndim > 1], "weight_decay": how.weight_decay},
        {"params": [one for one in weights if one.ndim < 2], "weight_decay": 0.0},
    ]


def _load(name: str, folder: Path, **settings: Any) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise RecipeError(
            "tuning a model of transformers needs the package: pip install 'tamis[models]'"
        ) from error
    try:
        # Code that comes with a model is never run, and nothing is asked of the hub.
        with _quiet():
            return getattr(transformers, name).from_pretrained(
                folder, local_files_only=True, **settings
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TamisError(f"The model in {folder} cannot be loaded: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars."""
    from transformers.utils import logging

    display = cast(Any, logging)
    display.disable_progress_bar()
    try:
        yield
    finally:
        display.enable_progress_bar()
