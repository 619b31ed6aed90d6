"""A causal language model of ``transformers`` in this process, on a CPU or a GPU.

Prompts are sorted by their length, so that those of a batch need little padding, which stands on
their left; a batch has a bounded number of tokens. Neither changes an answer, but for what rounding
does to two tokens that are equally likely.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import xxhash
from pydantic import Field

from tamis.embedding.models import model_folder
from tamis.filters.once import once
from tamis.generation.generator import Answer, Generator, Prompt, in_order, plain_text
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import nearest_file

if TYPE_CHECKING:
    from torch import Tensor

_ONE_AT_A_TIME = threading.RLock()
_INSTALL = "pip install 'tamis[models]'"
_KINDS = {".json", ".jinja", ".model", ".safetensors", ".bin"}
"""Of files that a model is made of."""


class Transformers(Generator):
    """A causal model in a folder, ours or any that ``transformers`` loads."""

    kind: ClassVar[str] = "transformers"

    model: str = Field(min_length=1)
    """Its folder, that of a training, or its name on the hub if it has been downloaded before."""
    template: str | None = None
    """How a prompt is written: ``plain`` (system, blank line, user, blank line) or a file with a
    chat template in Jinja. None for the model's own, and plain if it has none."""
    device: str = "auto"
    """In torch's words; ``auto`` is the GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; ``auto`` is float32 on a CPU, else what the model was saved in."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens of a batch, those that may still be written included; a prompt alone may have more."""
    seed: int = 0
    """Of what is drawn at a temperature above 0: each prompt has its own numbers by it."""

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        return in_order(self.arriving(prompts, max_tokens, temperature), len(prompts))

    def arriving(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> Iterator[tuple[int, Answer]]:
        tokenizer = self._tokenizer()
        with _ONE_AT_A_TIME:
            rows = tokenizer.encode(prompts)
        model = self._model(tokenizer)
        room = [min(max_tokens, model.context - len(row)) for row in rows]
        for number in (number for number, most in enumerate(room) if most < 1):
            yield number, Answer("", len(rows[number]), 0, cut=True)
        # Those that do not fit whole end at different lengths: each is its own batch.
        short = [number for number, most in enumerate(room) if 1 <= most < max_tokens]
        whole = [number for number, most in enumerate(room) if most == max_tokens]
        batches = [
            *self._batches({number: len(rows[number]) for number in whole}, max_tokens),
            *([number] for number in short),
        ]
        for batch in batches:
            seeds = [_seed(self.seed, prompts[number]) for number in batch]
            with _ONE_AT_A_TIME:
                answers = model.answer(
                    [rows[number] for number in batch], room[batch[0]], temperature, seeds
                )
            yield from zip(batch, answers, strict=True)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer = self._tokenizer()
        with _ONE_AT_A_TIME:
            return [len(row) for row in tokenizer.encode_texts(texts)]

    def identity(self) -> str:
        (folder, *template) = self.models()
        content = [f"{one.name} {once(_hash, one)}" for one in (*_files(folder), *template)]
        digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
        how = f"{'plain' if self.template == 'plain' else 'chat'}, {self.dtype}, seed {self.seed}"
        return f"transformers {folder.name}, {digest}, {how}"

    def models(self) -> tuple[Path, ...]:
        if find_spec("transformers") is None or find_spec("torch") is None:
            raise RecipeError(f"generator: {self.kind} needs the package transformers: {_INSTALL}")
        of_training = Path(self.model).expanduser() / "model"
        is_training = (of_training / "config.json").is_file()
        folder = of_training if is_training else model_folder(self.model)
        if self.template in (None, "plain"):
            return (folder,)
        template = Path(str(self.template)).expanduser()
        if not template.is_file():
            raise RecipeError(f"generator: there is no template {template}{nearest_file(template)}")
        return (folder, template)

    def _tokenizer(self) -> _Tokenizer:
        folder, *template = self.models()
        with _ONE_AT_A_TIME:
            loaded = _load_tokenizer(folder)
        if template:
            return _Tokenizer(loaded, template[0].read_text(encoding="utf-8"), is_plain=False)
        return _Tokenizer(loaded, None, self.template == "plain" or not loaded.chat_template)

    def _model(self, tokenizer: _Tokenizer) -> _Model:
        folder = self.models()[0]
        with _ONE_AT_A_TIME:
            model = _load_model(folder, self.device, self.dtype)
        text = model.config.get_text_config()
        context = int(getattr(text, "max_position_embeddings", None) or 2048)
        return _Model(model, tokenizer.loaded, context, _ends(model, tokenizer.loaded))

    def _batches(self, lengths: dict[int, int], max_tokens: int) -> Iterator[list[int]]:
        """Numbers of prompts that are answered together, the longest first."""
        order = sorted(lengths, key=lambda number: (-lengths[number], number))
        begin = 0
        while begin < len(order):
            size = max(1, self.batch_tokens // (lengths[order[begin]] + max_tokens))
            yield order[begin : begin + size]
            begin += size


class _Tokenizer(NamedTuple):
    """What makes tokens of prompts."""

    loaded: Any
    template: str | None
    """In Jinja; None for its own."""
    is_plain: bool
    """Whether prompts are written as ``PLAIN``, without a template."""

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each prompt in its template."""
        if not self.is_plain:
            # The template has all special tokens.
            return self.encode_texts([self._templated(prompt) for prompt in prompts])
        begin = self.loaded.bos_token_id
        begins = [] if begin is None else [begin]
        rows = self.encode_texts([plain_text(prompt) for prompt in prompts])
        return [begins + row for row in rows]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without special ones around it."""
        if not texts:
            return []
        rows = self.loaded(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [list(row) for row in rows]

    def _templated(self, prompt: Prompt) -> str:
        system = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages = [*system, {"role": "user", "content": prompt.user}]
        try:
            text = self.loaded.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            reason = " ".join(str(error).split())
            raise TamisError(
                f"the chat template of {self.loaded.name_or_path} fails: {reason}; "
                "template: plain does without it"
            ) from error
        return str(text)


class _Model(NamedTuple):
    """What writes answers."""

    model: Any
    tokenizer: Any
    context: int
    ends: frozenset[int]
    """The tokens that end an answer."""

    def answer(
        self, rows: Sequence[list[int]], most: int, temperature: float, seeds: Sequence[int]
    ) -> list[Answer]:
        """The answers of a batch, of at most so many tokens."""
        import torch

        longest = max(map(len, rows))
        pad = min(self.ends, default=0)
        tokens = torch.full((len(rows), longest), pad, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for number, row in enumerate(rows):
            begin = longest - len(row)
            tokens[number, begin:] = torch.tensor(row, dtype=torch.int64)
            mask[number, begin:] = 1
        drawn = [_Draw(temperature, seeds)] if temperature > 0 else []
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=tokens.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
                eos_token_id=sorted(self.ends) or None,
                logits_processor=drawn,
            )
        return [
            self._finished(row, one[longest:])
            for row, one in zip(rows, written.tolist(), strict=True)
        ]

    def _finished(self, row: Sequence[int], ids: list[int]) -> Answer:
        end = next((place for place, one in enumerate(ids) if one in self.ends), None)
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        count = len(ids) if end is None else end + 1
        return Answer(str(text), len(row), count, cut=end is None)


class _Draw:
    """Makes the likeliest token one that is drawn from softmax(logits / temperature), for each row
    of a batch with numbers of its own: Gumbel noise is added (Gumbel 1954; the "Gumbel-max trick").
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        import torch

        self._temperature = temperature
        self._random = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        import torch

        noise = torch.stack(
            [
                -torch.empty(logits.shape[1], dtype=torch.float64).exponential_(generator=one).log()
                for one in self._random
            ]
        )
        return logits.double() / self._temperature + noise.to(logits.device)


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix in _KINDS and one.is_file())


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _seed(seed: int, prompt: Prompt) -> int:
    content = f"{seed}\0{prompt.system}\0{prompt.user}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 1


@lru_cache(maxsize=2)
def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with _explained(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@lru_cache(maxsize=1)
def _load_model(folder: Path, device: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind: Any = dtype
    if dtype != "auto" or device == "cpu":
        kind = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    display, load = cast(Any, logging), cast(Any, AutoModelForCausalLM.from_pretrained)
    display.disable_progress_bar()
    try:
        # Code that comes with a model is never run, and nothing is asked of the hub.
        with _explained(folder):
            return load(folder, dtype=kind, local_files_only=True).to(device).eval()
    finally:
        display.enable_progress_bar()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Whatever goes wrong while a model is loaded, in one sentence."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TamisError(f"The model in {folder} cannot be loaded: {reason}") from error


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """What the model and its tokenizer say ends an answer."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in (*several, tokenizer.eos_token_id) if one is not None)
