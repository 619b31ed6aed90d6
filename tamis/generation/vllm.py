"""A language model in vLLM's engine, in this process, on a GPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tamis.embedding.models import model_folder
from tamis.generation.generator import Answer, Generator, Prompt, plain_text
from tamis.pipeline.errors import RecipeError, TamisError


class Vllm(Generator):
    """A model that vLLM loads. Batches are vLLM's own."""

    kind: ClassVar[str] = "vllm"

    model: str = Field(min_length=1)
    """Its folder, or its name on the hub if it has been downloaded before."""
    seed: int = 0
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of ``vllm.LLM``: {tensor_parallel_size: 2, max_model_len: 4096}."""

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        engine = self._engine()
        sampling = import_module("vllm").SamplingParams(
            temperature=temperature, max_tokens=max_tokens, seed=self.seed
        )
        if engine.get_tokenizer().chat_template is None:
            found = engine.generate([plain_text(one) for one in prompts], sampling, use_tqdm=False)
        else:
            found = engine.chat([_messages(one) for one in prompts], sampling, use_tqdm=False)
        return [
            Answer(
                one.outputs[0].text,
                len(one.prompt_token_ids),
                len(one.outputs[0].token_ids),
                one.outputs[0].finish_reason == "length",
            )
            for one in found
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        encode = self._engine().get_tokenizer().encode
        return [len(encode(text, add_special_tokens=False)) for text in texts]

    def identity(self) -> str:
        return f"vllm {self.models()[0].resolve()}, seed {self.seed}, {self._options()}"

    def models(self) -> tuple[Path, ...]:
        if find_spec("vllm") is None:
            raise RecipeError(
                "generator: vllm needs the package vllm, on Linux with a GPU: "
                "pip install 'tamis[vllm]'"
            )
        return (model_folder(self.model),)

    def _engine(self) -> Any:
        (folder,) = self.models()
        return _load(str(folder), self.seed, self._options())

    def _options(self) -> str:
        return json.dumps(self.options, sort_keys=True)


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": prompt.user}]


@lru_cache(maxsize=1)
def _load(folder: str, seed: int, options: str) -> Any:
    try:
        return import_module("vllm").LLM(model=folder, seed=seed, **json.loads(options))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise TamisError(f"The model in {folder} cannot be loaded by vLLM: {reason}") from error
