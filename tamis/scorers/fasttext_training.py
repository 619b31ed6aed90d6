"""Training of a fastText classifier by the library, in a way that gives the same bytes every time.

Sources of the recipes: Li et al. 2024 (arXiv:2406.11794, DCLM), Shum et al. 2025 (arXiv:2503.00808,
PreSelect, Table 5 and A.2), Mizrahi et al. 2025 (arXiv:2507.12466, BETR, Appendix A).

What is trained on is what is scored later: a line break is a space, as it is to the scorer, and the
two kinds of words that the library reads as its own signs are treated as it treats them in a text
to be scored (``training_line``).
"""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tamis.filters.fasttext.model import zero_word
from tamis.pipeline.errors import TamisError

Recipe = Literal["dclm", "preselect", "betr"]

RECIPES: dict[str, dict[str, Any]] = {
    "dclm": {"wordNgrams": 2},
    "preselect": {"wordNgrams": 2, "zero_end_of_line": True},
    "betr": {"wordNgrams": 2, "lr": 0.03, "dim": 128, "ws": 10, "minCount": 5},
}
"""What the published recipes change of the library's settings."""

INSTALL = "pip install 'tamis[fasttext]'"

_SEPARATORS = r"[ \n\r\t\v\f\0]"
_LABEL_WORD = re.compile(rf"(?:(?<={_SEPARATORS})|\A)__label__[^ \n\r\t\v\f\0]*")
_END_WORD = re.compile(rf"(?:(?<={_SEPARATORS})|\A)</s>(?={_SEPARATORS}|\Z)")


class FastTextSettings(BaseModel):
    """How a classifier is trained, by the names and defaults of ``fasttext supervised``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe | None = None
    """The settings that a paper published, for what is not set otherwise."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate; falls linearly to 0."""
    dim: int = Field(default=100, ge=1)
    """Numbers a word or n-gram."""
    ws: int = Field(default=5, ge=1)
    """Without meaning to a classifier; kept in the file as published."""
    epoch: int = Field(default=5, ge=1)
    minCount: int = Field(default=1, ge=1)  # noqa: N815
    """Rarer words are unknown; they still take part in n-grams."""
    wordNgrams: int = Field(default=1, ge=1, le=64)  # noqa: N815
    bucket: int = Field(default=2_000_000, ge=1)
    """Rows that n-grams are hashed to: the file has 4 * dim bytes for each."""
    minn: int = Field(default=0, ge=0)
    maxn: int = Field(default=0, ge=0)
    """Character n-grams; 0 for none."""
    loss: Literal["softmax", "ova", "ns", "hs"] = "softmax"
    neg: int = Field(default=5, ge=1)
    """Samples, for the loss ``ns``."""
    lrUpdateRate: int = Field(default=100, ge=1)  # noqa: N815
    seed: int = Field(default=0, ge=0)
    """Of the first weights, and of the order of the texts."""
    threads: int = Field(default=1, ge=1)
    """With more than one the threads write to the same weights without waiting for each other
    (Hogwild): faster, and no longer the same file every time.
    """
    zero_end_of_line: bool = False
    """Set the row of ``</s>``, which the library adds to every text once and which therefore weighs
    more in short ones, to zeros after training.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return RECIPES.get(str(given.get("recipe")), {}) | given
        return given

    @classmethod
    def preset(cls, recipe: Recipe, **changes: Any) -> FastTextSettings:
        """The settings of a published recipe, with changes.

        Raises:
            ValueError: for a recipe that there is not, or a wrong setting.
        """
        return cls.model_validate({"recipe": recipe, **changes})

    def arguments(self) -> dict[str, Any]:
        """The arguments of the library's ``train_supervised``."""
        chosen = self.model_dump(exclude={"recipe", "threads", "zero_end_of_line"})
        return {**chosen, "thread": self.threads, "verbose": 0}


def training_line(text: str) -> str:
    """A text as one line of a training file, that gives the library the same words as the scorer
    takes the text to have.

    A line break is a space. Words that begin with ``__label__`` would become labels of the text;
    they are left out, as the scorer leaves them out. A word ``</s>`` ends a text, there as here.
    """
    if "__label__" in text:
        text = _LABEL_WORD.sub("", text)
    if "</s>" in text:
        end = _END_WORD.search(text)
        text = text[: end.start()] if end else text
    return text.replace("\n", " ")


def train_classifier(
    lines: Iterable[tuple[str, str]], settings: FastTextSettings, path: Path
) -> None:
    """Train a classifier on pairs (label, text), and write it to ``path`` as a fastText ``.bin``.

    The pairs may come in any order, say all of one label first: they are shuffled. Texts without a
    word are left out. The same pairs and settings give the same bytes, if ``threads`` is 1. Memory
    is that of the model; the texts go to a file beside ``path`` while it works.

    Raises:
        TamisError: without the library, if there are fewer than two labels, a label has a space,
            no word is frequent enough, the training diverges, or the file cannot be written.
    """
    library = fasttext_library()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            texts, made = Path(folder) / "train.txt", Path(folder) / "model.bin"
            _write_shuffled(lines, settings.seed, texts)
            _train(library, texts, settings).save_model(str(made))
            if settings.zero_end_of_line:
                zero_word(made, "</s>")
            made.replace(path)
    except OSError as error:
        raise TamisError(f"{path} cannot be written: {error.strerror or error}") from error


def _train(library: Any, texts: Path, settings: FastTextSettings) -> Any:
    try:
        model = library.train_supervised(str(texts), **settings.arguments())
    except (RuntimeError, ValueError) as error:
        if "NaN" in str(error):
            raise TamisError(
                f"the training diverged with lr = {settings.lr:g}: lower it, or the epochs"
            ) from error
        raise TamisError(f"fastText cannot train: {error}") from error
    if not {*model.get_words()} - {"</s>"}:
        raise TamisError(
            f"no word occurs minCount = {settings.minCount} times: lower it, or give more text"
        )
    return model


def _write_shuffled(lines: Iterable[tuple[str, str]], seed: int, path: Path) -> None:
    """Write the lines of a training file in an order that depends on the seed alone."""
    unsorted, ends, counts = path.with_suffix(".unsorted"), array("q", [0]), Counter[str]()
    with unsorted.open("wb") as out:
        for label, text in lines:
            line = training_line(text)
            if not line.strip(" \r\t\v\f\0"):
                continue
            if label not in counts and (not label or re.search(r"\s|\0", label)):
                raise TamisError(f"the label {label!r}: a label is one word")
            counts[label] += 1
            row = f"__label__{label} {line}\n".encode(errors="replace")
            out.write(row)
            ends.append(ends[-1] + len(row))
    if len(counts) < 2:
        found = f"all of them have the label {next(iter(counts))}" if counts else "there are none"
        raise TamisError(f"a classifier needs texts of at least two labels; {found}")
    order = np.random.default_rng(seed).permutation(len(ends) - 1)
    with (
        unsorted.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        path.open("wb") as out,
    ):
        out.writelines(content[ends[row] : ends[row + 1]] for row in order)
    unsorted.unlink()


@cache
def fasttext_library() -> Any:
    """The package ``fasttext``, known to train as it should.

    The releases of the library clear only a tenth of the weights that a single thread begins with:
    what the memory happens to hold goes into the model, or NaN. Several packages install themselves
    under this name, and one of them cannot train.

    Raises:
        TamisError: if there is none, or one of those.
    """
    try:
        import fasttext
    except ImportError as error:
        raise TamisError(f"training a fastText classifier needs the library: {INSTALL}") from error
    if not hasattr(fasttext, "train_supervised") or not _begins_at_random(fasttext):
        raise TamisError(
            "the installed package fasttext is one that cannot train, or that begins with memory "
            "it did not clear; pip install --force-reinstall --no-deps fasttext-community"
        )
    return fasttext


def _begins_at_random(library: Any) -> bool:
    """Whether all weights begin between -1 / dim and 1 / dim."""
    words, dim = " ".join(f"w{number}" for number in range(200)), 16
    handle, name = tempfile.mkstemp(suffix=".txt")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(f"__label__a {words}\n__label__b {words}\n")
        try:
            model = library.train_supervised(
                name, dim=dim, lr=1e-12, epoch=1, thread=1, minCount=1, verbose=0
            )
        except RuntimeError:
            return False
        weights = np.array(model.f.getInputMatrix())
        return bool(((weights != 0) & (np.abs(weights) <= 1.01 / dim)).all())
    finally:
        Path(name).unlink()
