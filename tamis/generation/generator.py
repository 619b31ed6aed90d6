"""What a language model is to a stage that asks it: prompts in, answers out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Prompt:
    """One question to a chat model; its template is put around it by the generator."""

    user: str
    system: str = ""


@dataclass(frozen=True)
class Answer:
    """What a model wrote."""

    text: str
    prompt_tokens: int
    tokens: int
    cut: bool = False
    """Whether it ended because no more tokens were allowed."""


PLAIN = "{system}\n\n{user}\n\n"
"""What models see that have no chat template of their own."""


def plain_text(prompt: Prompt) -> str:
    """The prompt as ``PLAIN`` has it, without the first two line ends if there is no system
    prompt.
    """
    return (
        PLAIN.format(system=prompt.system, user=prompt.user)
        if prompt.system
        else (f"{prompt.user}\n\n")
    )


def in_order(arriving: Iterator[tuple[int, Answer]], count: int) -> list[Answer]:
    """The answers of ``Generator.arriving``, in the order of their prompts."""
    found = dict(arriving)
    return [found[number] for number in range(count)]


class Generator(BaseModel):
    """A language model that answers. Its fields are its configuration; it is loaded, or reached,
    when first used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: ClassVar[str]
    """Its name in a recipe."""
    main: ClassVar[str] = "model"
    """The field that ``{kind: VALUE}`` sets."""

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        """An answer for each prompt, in their order; greedy at temperature 0.

        Raises:
            TamisError: if the model is not there, or does not answer.
        """

    def arriving(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> Iterator[tuple[int, Answer]]:
        """(number of the prompt, answer), each as soon as it is there, in any order. What it raises
        it raises behind the answers that it still got.

        Raises:
            TamisError: as ``generate``.
        """
        yield from enumerate(self.generate(prompts, max_tokens, temperature))

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model's tokenizer makes of each text, special ones not counted."""

    @abstractmethod
    def identity(self) -> str:
        """What its answers depend on, for the cache: model, revision, template."""

    def models(self) -> tuple[Path, ...]:
        """Files and folders that the answers depend on, for ``Stage.models``.

        Raises:
            RecipeError: if a package or a model is missing.
        """
        return ()

    def settings(self) -> Any:
        """The plain value that ``read_generator`` makes this generator of."""
        return {self.kind: self.model_dump(mode="json")}
