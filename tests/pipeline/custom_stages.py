"""Small real stages of the kinds that a user writes, some with the faults that those have."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.pipeline.documents import ID, TEXT, Documents
from tamis.pipeline.stages import Expand, Filter, Measure, Measures, Quantity, Refine, Rule, count


class Paragraphs(Expand):
    """Every paragraph is a document; one with nothing but white space gives none."""

    kind: ClassVar[str] = "paragraphs"

    def expand(self, documents: Documents) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        parents, texts, ids = [], [], []
        names = documents.batch.column(ID).to_pylist()
        for row, text in enumerate(documents.text.to_pylist()):
            for number, one in enumerate(part for part in text.split("\n\n") if part.strip()):
                parents.append(row)
                texts.append(one)
                ids.append(f"{names[row]}#{number}")
        batch = documents.batch.take(pa.array(parents, pa.int64()))
        for name, values in ((TEXT, texts), (ID, ids)):
            index = batch.schema.get_field_index(name)
            field = batch.schema.field(index)
            batch = batch.set_column(index, field, pa.array(values, field.type))
        return batch, np.array(parents, np.int64)


class Characters(Measure):
    """A score that goes with the documents into the output."""

    kind: ClassVar[str] = "characters"

    def provides(self) -> tuple[Quantity, ...]:
        return (count("characters", "code points of the text"),)

    def measure(self, documents: Documents) -> Measures:
        return {"characters": pc.utf8_length(documents.text).to_numpy()}


class Longest(Filter):
    """Drops by a column that an earlier stage measured."""

    kind: ClassVar[str] = "longest"
    max_characters: int = 20_000

    def requires(self) -> tuple[str, ...]:
        return ("characters.characters",)

    def provides(self) -> tuple[Quantity, ...]:
        return (count("characters", "as measured before"),)

    def rules(self) -> tuple[Rule, ...]:
        return (Rule("max_characters", ">", "characters"),)

    def measure(self, documents: Documents) -> Measures:
        return {"characters": documents.batch.column("characters.characters").to_numpy()}


class Reluctant(Filter):
    """Keeps everything, but cannot bear documents with an ``unbearable`` word.

    ``fault`` says what happens: it raises, or the process dies.
    """

    kind: ClassVar[str] = "reluctant"
    unbearable: tuple[str, ...] = ()
    fault: str = "raise"
    processes: bool = False
    min_letters: int | None = None

    def needs_processes(self) -> bool:
        return self.processes

    def provides(self) -> tuple[Quantity, ...]:
        return (count("letters", "how often the letter e occurs"),)

    def rules(self) -> tuple[Rule, ...]:
        return (Rule("min_letters", "<", "letters"),)

    def measure(self, documents: Documents) -> Measures:
        for word in self.unbearable:
            found = pc.match_substring(documents.text, word).to_numpy(zero_copy_only=False)
            if (found & documents.alive).any():
                self._fail(word)
        return {"letters": pc.count_substring(documents.text, "e").to_numpy()}

    def _fail(self, word: str) -> None:
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(f"cannot bear {word!r}")


class Upper(Refine):
    """Upper case, by a stage that holds the interpreter lock: it runs in processes."""

    kind: ClassVar[str] = "upper"

    def needs_processes(self) -> bool:
        return True

    def refine(self, documents: Documents) -> pa.LargeStringArray:
        return pa.array([text.upper() for text in documents.text.to_pylist()], pa.large_string())
