"""The documents that a scorer is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.readers import (
    BadRecord,
    Input,
    PassedOver,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.storage import digest, shards_of


class Corpus:
    """Documents of files of any format, of folders and of finished runs; read as often as it is
    iterated over.

    ``columns`` names further columns to read and their Arrow types. ``unreadable`` is how many
    documents could not be read the last time.

    Raises:
        TamisError: if a path leads nowhere or a file cannot be read; ``what`` begins the sentence.
    """

    def __init__(
        self, paths: Sequence[str], what: str, columns: dict[str, str] | None = None
    ) -> None:
        self.unreadable = 0
        try:
            self._input = Input(path=[shards_of(one) for one in paths], columns=columns or {})
            files = list_files(self._input)
            self._slices = plan_slices(self._input, files=files).slices
            self._schema = declare_schema(self._input, files)
        except TamisError as error:
            raise type(error)(f"{what}: {error}") from None

    def fingerprint(self) -> str:
        """Changes when a file does."""
        return digest([one.to_json() for one in self._slices])

    def __iter__(self) -> Iterator[Documents]:
        """Batches of documents in the order of the input."""
        self.unreadable = 0
        for part in self._slices:
            for batch in read_slice(part, self._input, self._schema):
                if isinstance(batch, BadRecord):
                    self.unreadable += 1
                elif not isinstance(batch, PassedOver):
                    yield Documents(batch)
