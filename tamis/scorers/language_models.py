"""Language models as scorers see them: how probable a document is.

    folder    a training or model of ours, or any causal model that transformers loads
    file      an n-gram model of KenLM (.arpa or binary), of words or of SentencePiece pieces

Every document is by itself: nothing of another one is seen before it. To a model with a context it
stands behind the token that begins documents, its end is not predicted, and what is longer than the
context is seen through windows that begin every ``stride`` tokens (``evaluation.bits_per_byte``).
To KenLM it is one sentence: its words are predicted behind ``<s>``, and then ``</s>``.

The nats of a whole document can be compared between models whatever their tokenizers; those of a
token cannot.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tamis.embedding.models import model_folder
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import nearest_file
from tamis.pipeline.storage import digest

if TYPE_CHECKING:
    from tamis.trainers.evaluation.scorer import Scorer
    from tamis.trainers.tokenizer import Tokenizer

_TOGETHER = 256
"""Documents that are tokenized and scored at once."""
_BATCH_TOKENS = {"cpu": 8192, "cuda": 65536}
NO_KENLM = "{path} is a file, and n-gram models need KenLM: pip install 'tamis[kenlm]'"
_NGRAM_FILES = (".arpa", ".bin", ".binary", ".gz", ".klm")
_MARKERS = {"<s>", "</s>"}
_LN10 = float(np.log(10))
# Tokenizers change while they work: two threads cannot use one. They and torch have threads inside.
_ONE_AT_A_TIME = threading.RLock()


class ModelSetting(BaseModel):
    """Which language model, and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    """A folder with a causal model or a training, a KenLM file, or the name of a model on the hub
    that has been downloaded before.
    """
    pieces: Path | None = None
    """The SentencePiece model of a KenLM model of pieces; without, its words are between spaces."""
    context: int | None = Field(default=None, ge=1)
    """Tokens that are seen at once; all that the model can by default."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens between two windows; half the context by default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def is_ngram(self) -> bool:
        """Whether it is a KenLM file."""
        return self.model.is_file()

    def path(self) -> Path:
        """The folder or file of the model.

        Raises:
            RecipeError: if there is none, or a setting does not go with it.
        """
        if self.is_ngram:
            for name in ("context", "stride"):
                if getattr(self, name) is not None:
                    raise RecipeError(
                        f"{name} is for models with a context, and the file {self.model} is taken "
                        "for an n-gram model"
                    )
            if self.pieces is not None and not self.pieces.is_file():
                raise RecipeError(f"there is no file {self.pieces}{nearest_file(self.pieces)}")
            if find_spec("kenlm") is None:
                raise RecipeError(NO_KENLM.format(path=self.model))
            return self.model
        if self.model.suffix in _NGRAM_FILES:
            raise RecipeError(f"there is no file {self.model}{nearest_file(self.model)}")
        if self.pieces is not None:
            raise RecipeError(f"pieces are for an n-gram model, and {self.model} is no file")
        return _folder(self.model)

    def fingerprint(self) -> str:
        """Of the model's files, by size and time of change, and of how it is asked."""
        paths = [self.path(), *filter(None, [self.pieces])]
        files = [one for path in paths for one in ([path] if path.is_file() else path.rglob("*"))]
        stamps = sorted(
            (str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file()
        )
        return digest(stamps, self.context, self.stride)


class Predicted(NamedTuple):
    """How probable texts are to a model, (texts,)."""

    nats: NDArray[np.float64]
    """-ln p of each whole text."""
    tokens: NDArray[np.int64]
    """What was predicted: its tokens; of KenLM its words or pieces and the end."""


class LanguageModel(Protocol):
    """Whatever gives texts a probability."""

    tokenizer: str
    """What text is cut into: equal for models whose tokens are the same."""

    def nats(self, texts: Sequence[str]) -> Predicted:
        """How probable each text is by itself; an empty one is 0 nats and 0 tokens."""


class CausalModel:
    """A decoder and its tokenizer."""

    def __init__(
        self, scorer: Scorer, tokenizer: Tokenizer, context: int | None, stride: int | None
    ) -> None:
        from tamis.trainers.evaluation.bits_per_byte import fixed_context

        self._scorer, self._tokenizer = scorer, tokenizer
        self._context, self._stride = fixed_context(scorer, context, stride)
        self.tokenizer = tokenizer.fingerprint

    def nats(self, texts: Sequence[str]) -> Predicted:
        """See ``LanguageModel``."""
        from tamis.trainers.evaluation.bits_per_byte import document_nats

        nats, tokens = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
        bos = np.array([self._tokenizer.bos], np.int64)
        for first in range(0, len(texts), _TOGETHER):
            part = slice(first, first + _TOGETHER)
            with _ONE_AT_A_TIME:
                encoded = self._tokenizer.encode(texts[part])
                rows = [np.concatenate([bos, np.asarray(ids, np.int64)]) for ids in encoded]
                nats[part] = document_nats(self._scorer, rows, 1, self._context, self._stride)
            tokens[part] = [len(row) - 1 for row in rows]
        return Predicted(nats, tokens)


class KenLMModel:
    """An n-gram model; ``pieces`` cuts text for a model of SentencePiece pieces."""

    def __init__(self, path: Path, pieces: Path | None = None) -> None:
        self._model = _open_kenlm(path)
        self._cut = split_words(pieces)
        self.tokenizer = str(path) if pieces is None else str(pieces)

    def nats(self, texts: Sequence[str]) -> Predicted:
        """See ``LanguageModel``."""
        nats, tokens = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
        for number, text in enumerate(texts):
            words = self._cut(text)
            if words:
                nats[number] = -self._model.score(" ".join(words)) * _LN10
                tokens[number] = len(words) + 1
        return Predicted(nats, tokens)


def split_words(pieces: Path | None = None) -> Callable[[str], list[str]]:
    """Text to the words of an n-gram model: what stands between white space, or the pieces of a
    SentencePiece model. A word that is written like a mark of KenLM is an unknown one.

    Raises:
        TamisError: if there is no such model, or the package is missing.
    """
    cut: Callable[[str], list[str]] = str.split if pieces is None else _open_pieces(pieces)

    def words(text: str) -> list[str]:
        # KenLM stops reading at a zero byte.
        found = cut(text.replace("\0", " "))
        if _MARKERS.isdisjoint(found):
            return found
        return ["<unk>" if word in _MARKERS else word for word in found]

    return words


def load_language_model(setting: ModelSetting) -> LanguageModel:
    """The model, in memory as long as somebody holds it.

    Raises:
        RecipeError: if there is none, or a setting does not go with it.
        TamisError: if it cannot be loaded, or a package is missing, in one sentence.
    """
    path = setting.path()
    if setting.is_ngram:
        return KenLMModel(path, setting.pieces)
    from tamis.trainers.evaluation.scorer import choose_device, open_model

    with _ONE_AT_A_TIME:
        device = choose_device(setting.device)
        scorer, tokenizer = open_model(path, device, _BATCH_TOKENS[device])
    return CausalModel(scorer, tokenizer, setting.context, setting.stride)


def open_language_model(setting: ModelSetting | str | Path) -> LanguageModel:
    """The same, loaded once a process as long as its files stay the same.

    Raises:
        RecipeError, TamisError: see ``load_language_model``.
    """
    if not isinstance(setting, ModelSetting):
        setting = ModelSetting(model=Path(setting))
    with _ONE_AT_A_TIME:
        return _kept(setting, setting.fingerprint())


@lru_cache(maxsize=2)
def _kept(setting: ModelSetting, _fingerprint: str) -> LanguageModel:
    return load_language_model(setting)


def _folder(path: Path) -> Path:
    """Of a training its model; a name that is no folder is one on the hub."""
    if not path.is_dir():
        return model_folder(str(path))
    if (path / "config.json").is_file():
        return path
    from tamis.trainers.export import find_model

    try:
        return find_model(path)
    except TamisError as error:
        raise RecipeError(str(error)) from None


def _open_kenlm(path: Path) -> Any:
    try:
        import kenlm
    except ImportError:
        raise TamisError(NO_KENLM.format(path=path)) from None
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(path), config)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TamisError(f"{path} is no model that KenLM reads: {reason}") from None


def _open_pieces(path: Path) -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise TamisError(
            f"{path} needs the package sentencepiece: pip install 'tamis[kenlm]'"
        ) from None
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TamisError(f"{path} is no SentencePiece model: {reason}") from None
    return processor.encode_as_pieces
