"""The run folder: files that appear whole or not at all, and records that say which of them are valid.

The folder may be any fsspec URL. A file is written under a temporary name and renamed (on object stores: uploaded in one
piece), and its length and xxh3-128 hash go into the record of the task that wrote it. A record is written last. So a task is
done exactly when its record is there, has the task's key, and its files have the lengths and hashes that the record names.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
import xxhash

from tamis.pipeline.errors import TamisError

TEMPORARY = ".writing-"


class HashedFile(io.RawIOBase):
    """A binary file that knows the length and hash of what was written to it, so that nothing is read twice."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = xxhash.xxh3_128()
        self.length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        size = memoryview(data).nbytes
        self.length += size
        self._file.write(data)
        return size

    def tell(self) -> int:
        return self.length

    def identity(self) -> dict[str, Any]:
        return {"bytes": self.length, "xxh3": self._digest.hexdigest()}


class RunFolder:
    """Reads and writes files by names relative to the root; picklable, so that tasks can carry it."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root).rstrip("/") or "/"
        fs, path = fsspec.core.url_to_fs(self.root)
        self.path = path.rstrip("/")
        self.is_local = "file" in (
            fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
        )

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return fsspec.core.url_to_fs(self.root)[0]

    def full(self, name: str) -> str:
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.full(name)))

    @contextmanager
    def write(self, name: str) -> Iterator[HashedFile]:
        """A binary file that takes its name only when the block ends without an exception."""
        target = self.full(name)
        parent, _, base = target.rpartition("/")
        temporary = f"{parent}/{TEMPORARY}{uuid.uuid4().hex[:12]}-{base}"
        with explained(target):
            self.fs.makedirs(parent, exist_ok=True)
            try:
                with self.fs.open(temporary, "wb") as file:
                    yield HashedFile(file)
                if self.is_local:
                    os.replace(temporary, target)
                else:
                    self.fs.mv(temporary, target)
            except BaseException:
                if self.fs.exists(temporary):
                    self.fs.rm(temporary)
                raise

    def read(self, name: str) -> bytes:
        with self.fs.open(self.full(name), "rb") as file:
            content: bytes = file.read()
        return content

    def write_json(self, name: str, value: Any) -> None:
        with self.write(name) as file:
            file.write(
                json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            )

    def read_json(self, name: str) -> Any:
        """The parsed file, or None when it is missing or not valid JSON (a torn record counts as none)."""
        try:
            return json.loads(self.read(name))
        except (FileNotFoundError, ValueError):
            return None

    def names(self, folder: str) -> list[str]:
        """The files below a folder, as sorted names relative to the root; none when it does not exist."""
        with explained(self.full(folder)):
            found = self.fs.find(self.full(folder)) if self.exists(folder) else []
        return sorted(path[len(self.path) + 1 :] for path in found)

    def remove(self, name: str) -> None:
        if self.exists(name):
            self.fs.rm(self.full(name), recursive=True)

    def local(self, name: str) -> Path:
        """A path on this machine's disk with the content of a file or folder (a copy when the root is remote)."""
        if self.is_local:
            return Path(self.full(name))
        copy = Path(tempfile.mkdtemp(prefix="tamis-")) / Path(name).name
        self.fs.get(self.full(name), str(copy), recursive=True)
        return copy

    def publish(self, folder: Path, name: str) -> None:
        """Move a finished local folder under a name of the root, replacing what was there."""
        self.remove(name)
        with explained(self.full(name)):
            self.fs.makedirs(self.full(name).rpartition("/")[0], exist_ok=True)
            if self.is_local:
                shutil.move(folder, self.full(name))
            else:
                self.fs.put(str(folder), self.full(name), recursive=True)

    def identity(self, name: str) -> dict[str, Any]:
        """Length and xxh3-128 hash of a file, read in blocks."""
        digest, length = xxhash.xxh3_128(), 0
        with self.fs.open(self.full(name), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                length += len(block)
        return {"bytes": length, "xxh3": digest.hexdigest()}

    def is_intact(self, name: str, identity: dict[str, Any]) -> bool:
        """Whether the file is there with the recorded length and content."""
        try:
            return (
                self.fs.size(self.full(name)) == identity["bytes"]
                and self.identity(name) == identity
            )
        except FileNotFoundError:
            return False

    def remove_unfinished(self) -> None:
        """Delete what killed processes left under temporary names."""
        for name in self.names(""):
            if name.rpartition("/")[2].startswith(TEMPORARY):
                self.remove(name)


_REASONS = {
    errno.ENOSPC: "no space is left on the device; free some and run again, the finished part is kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run again, the finished part is kept",
    errno.EACCES: "permission denied; choose an output folder that you may write to (-o DIR)",
    errno.EPERM: "permission denied; choose an output folder that you may write to (-o DIR)",
    errno.EROFS: "the file system is read-only; choose another output folder (-o DIR)",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another output folder (-o DIR)",
    errno.EEXIST: "a part of this path is a file, not a folder; choose another output folder (-o DIR)",
}


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn the operating system's errors about a path into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise TamisError(f"cannot write {path}: {_REASONS[error.errno]}") from error
