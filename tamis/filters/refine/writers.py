"""Who writes the programs of documents: a model, or somebody before, behind one interface.

A stage takes a writer as its setting ``writer``:

    {model: FILE}                       the compact refiner (null: the one that comes along)
    {generator: {openai: {...}}}          a language model that was trained to write programs
    {column: NAME, document: NAME}        programs that the documents bring along

and in Python also ``Function.of(function)``. Which of them it is says the first key; the others are
its further settings.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError, nearest


class Cost(NamedTuple):
    """What it takes to ask a language model for the programs of some documents."""

    prompts: int
    prompt_tokens: int
    """In all prompts together, the system prompt included."""
    most_tokens: int
    """That are generated if every answer is as long as it may be."""

    def __add__(self, other: tuple[Any, ...]) -> Cost:
        return Cost(*(one + more for one, more in zip(self, other, strict=True)))


class ProgramWriter(BaseModel):
    """Programs for documents. Its fields are its configuration; a model is loaded when first used.

    The field of the name ``kind`` is the one by which a recipe chooses this writer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: ClassVar[str]
    """Its key in a recipe, and the name of the field that the key sets."""

    @abstractmethod
    def document_programs(self, documents: Documents) -> list[str]:
        """For each row of the batch ``drop_doc()`` or ``keep_doc()``, as the model wrote it; empty
        for rows that are not alive.

        Raises:
            TamisError: if there is no answer for any document: a missing model, server or column.
        """

    @abstractmethod
    def chunk_programs(self, documents: Documents) -> list[str]:
        """For each row of the batch the calls that clean it, with line numbers that count from the
        beginning of the document (``chunks.join_programs`` puts those of chunks together); empty
        for rows that are not alive.

        Raises:
            TamisError: as ``document_programs``.
        """

    @abstractmethod
    def identity(self) -> str:
        """What the programs depend on, beside the documents: model, revision, prompts."""

    def requires(self) -> tuple[str, ...]:
        """Columns besides id and text that must exist."""
        return ()

    def models(self) -> tuple[Path, ...]:
        """Files and folders that the programs depend on, for ``Stage.models``.

        Raises:
            RecipeError: if a package or a model is missing.
        """
        return ()

    def needs_processes(self) -> bool:
        """Whether most of its time is spent in Python; see ``Stage.needs_processes``."""
        return True

    def document_cost(self, documents: Documents) -> Cost | None:
        """What ``document_programs`` of these documents would ask; None for who asks nobody."""
        return None

    def chunk_cost(self, documents: Documents) -> Cost | None:
        """What ``chunk_programs`` of these documents would ask; None for who asks nobody."""
        return None

    def settings(self) -> Any:
        """The plain value that ``read_writer`` makes this writer of."""
        return self.model_dump(mode="json")


class Column(ProgramWriter):
    """Programs that were written elsewhere, in columns of strings."""

    kind: ClassVar[str] = "column"

    column: str | None = None
    """The chunk programs, with line numbers that count from the beginning of the document."""
    document: str | None = None
    """The document programs."""

    @model_validator(mode="after")
    def _has_one(self) -> Column:
        if self.column is None and self.document is None:
            raise ValueError("name a column: {column: NAME}, {column: null, document: NAME}")
        return self

    def document_programs(self, documents: Documents) -> list[str]:
        return _column(documents, self.document)

    def chunk_programs(self, documents: Documents) -> list[str]:
        return _column(documents, self.column)

    def identity(self) -> str:
        return f"columns {self.column} and {self.document}"

    def requires(self) -> tuple[str, ...]:
        return tuple(one for one in (self.column, self.document) if one is not None)


def _column(documents: Documents, name: str | None) -> list[str]:
    """The strings of a column; empty where there is none, or the row is not alive."""
    if name is None:
        return [""] * len(documents)
    if name not in documents.batch.schema.names:
        raise TamisError(
            f"The documents have no column {name} of programs; "
            f"their columns are {', '.join(documents.batch.schema.names)}."
        )
    values = documents.batch.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise TamisError(f"The column {name} holds {values.type}; programs are strings.")
    programs: list[str] = values.fill_null("").to_pylist()
    return [one if alive else "" for one, alive in zip(programs, documents.alive, strict=True)]


class Function(ProgramWriter):
    """Any function from a list of texts to a list of programs (Python only).

    ``version`` names what it gives: its name and source by default. A function whose model changes
    while its source does not needs a version of its own.
    """

    kind: ClassVar[str] = "function"

    function: str
    """The version."""
    _chunk: Callable[[list[str]], list[str]] | None = PrivateAttr(default=None)
    _document: Callable[[list[str]], list[str]] | None = PrivateAttr(default=None)

    @classmethod
    def of(
        cls,
        chunk: Callable[[list[str]], list[str]] | None = None,
        document: Callable[[list[str]], list[str]] | None = None,
        version: str | None = None,
    ) -> Function:
        """The writer of functions that give chunk programs and document programs.

        Raises:
            ValueError: if one of them is no plain function and there is no version.
        """
        functions = [one for one in (chunk, document) if one is not None]
        made = cls(function=version or " ".join(_identity(one) for one in functions))
        made._chunk, made._document = chunk, document
        return made

    def document_programs(self, documents: Documents) -> list[str]:
        return self._apply(self._document, documents)

    def chunk_programs(self, documents: Documents) -> list[str]:
        return self._apply(self._chunk, documents)

    def identity(self) -> str:
        return f"function {self.function}"

    def _apply(
        self, function: Callable[[list[str]], list[str]] | None, documents: Documents
    ) -> list[str]:
        if self._chunk is None and self._document is None:
            raise TamisError(
                f"The programs are those of the Python function {self.function}, which a recipe "
                "cannot name: run the Pipeline again in Python."
            )
        programs = [""] * len(documents)
        rows = np.flatnonzero(documents.alive)
        if function is None or not len(rows):
            return programs
        given = list(function(documents.text.take(pa.array(rows)).fill_null("").to_pylist()))
        if len(given) != len(rows) or not all(isinstance(one, str) for one in given):
            raise TamisError(
                f"The function {self.function} gave {len(given)} programs for {len(rows)} texts; "
                "it has to give a string for each."
            )
        for row, program in zip(rows.tolist(), given, strict=True):
            programs[row] = program
        return programs


_KINDS = {
    "model": "tamis.filters.refine.tagger:Tagger",
    "generator": "tamis.filters.refine.generated:Generated",
    "column": "tamis.filters.refine.writers:Column",
    "function": "tamis.filters.refine.writers:Function",
}


def read_writer(value: Any) -> ProgramWriter:
    """The writer of a setting: a mapping with one of the keys model, generator and column, or a
    function from texts to chunk programs.

    Raises:
        ValueError: for anything else, in one sentence.
    """
    if isinstance(value, ProgramWriter):
        return value
    if callable(value):
        return Function.of(value)
    if not isinstance(value, dict) or not value:
        raise ValueError("it is {model: FILE}, {generator: {...}} or {column: NAME}")
    kinds = [str(one) for one in value if one in _KINDS]
    if len(kinds) != 1:
        first = next(iter(value)) if not kinds else ""
        raise ValueError(
            f"there is no writer {first}{nearest(str(first), _KINDS)}"
            if not kinds
            else f"{' and '.join(kinds)} are two writers; give one of them"
        )
    module, _, name = _KINDS[kinds[0]].partition(":")
    cls: type[ProgramWriter] = getattr(import_module(module), name)
    try:
        return cls(**{str(key): one for key, one in value.items()})
    except ValidationError as error:
        raise ValueError(_explained(error, cls)) from error


def _explained(error: ValidationError, cls: type[ProgramWriter]) -> str:
    one = error.errors(include_url=False)[0]
    name = ".".join(map(str, one["loc"]))
    if one["type"] == "extra_forbidden":
        return f"the writer {cls.kind} has no setting {name}{nearest(name, cls.model_fields)}"
    reason = one["msg"].removeprefix("Value error, ")
    return f"{name} = {one['input']!r}: {reason[:1].lower() + reason[1:]}" if name else reason


def _identity(function: Callable[..., Any]) -> str:
    """The name of a function with a hash of its source."""
    if not inspect.isfunction(function):
        raise ValueError(
            "nothing tells when the programs of this object change; give them a name: "
            "tamis.filters.refine.Function.of(it, version=...)"
        )
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        source = inspect.getsource(function)
    except OSError:
        return name
    return f"{name}:{xxhash.xxh3_64_hexdigest(source.encode())}"


Programs = Annotated[
    ProgramWriter, BeforeValidator(read_writer), PlainSerializer(lambda one: one.settings())
]
"""The type of a stage's setting."""
