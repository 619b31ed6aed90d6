"""The run folder: files that appear whole or not at all, and records that say which are valid.

The folder may be any fsspec URL. A file is written under a temporary name and renamed, and its
length and xxh3-128 hash go into the record of the task that wrote it. A record is written last and
carries a hash of itself. So a task is done exactly when its record is there and sound, has the
task's key, and its files have the lengths and hashes that the record names.

Two locks (in a local folder) keep writers apart: ``state/lock`` is held by the run, and
``state/working`` is shared by everything that works for it. A new run waits for the workers that a
killed one left behind; a worker that begins after that finds another run's token in ``state/lock``
and stops.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import io
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec
import orjson
import pyarrow as pa
import xxhash

from tamis.pipeline.errors import RecipeError, TamisError

TEMPORARY = ".writing-"
LOCK = "state/lock"
WORKING = "state/working"

Identity = Mapping[str, Any]
"""``bytes`` and ``xxh3`` of a file."""

# Long enough for a worker on a cluster to finish the task that it had when its run was killed.
PATIENCE_SECONDS = 600.0
_LOCKING_UNKNOWN = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def digest(*parts: Any) -> str:
    """xxh3-128 of the canonical JSON of plain values."""
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True, default=str).encode())


def _seal(body: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(body).encode()


class HashedFile(io.RawIOBase):
    """A binary file that knows the length and hash of what was written, so that nothing is read
    twice.

    Errors of the operating system come out as one sentence about ``path`` (TamisError).
    """

    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file = file
        self._path = path
        self._digest = xxhash.xxh3_128()
        self._abandoned = False
        self.length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        # Arrow's writers still write their footers when they are collected after an error.
        if not self._abandoned:
            self._digest.update(data)
            self.length += size
            with explained(self._path):
                self._file.write(data)
        return size

    def tell(self) -> int:
        return self.length

    def finish(self) -> None:
        """All of it is with the operating system."""
        with explained(self._path):
            self._file.close()

    def abandon(self) -> None:
        """What is still written goes nowhere."""
        self._abandoned = True
        with suppress(OSError):
            self._file.close()

    def identity(self) -> dict[str, Any]:
        return {"bytes": self.length, "xxh3": self._digest.hexdigest()}


class RunFolder:
    """Reads and writes files by names relative to the root; picklable: tasks carry it."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root).rstrip("/") or "/"
        fs, path = _file_system(self.root)
        self.path = path.rstrip("/")
        self.protocol = fs.protocol[0] if isinstance(fs.protocol, tuple) else fs.protocol
        self.is_local = self.protocol == "file"
        self.token = ""
        """Of the run that writes here; see ``locked``."""

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return _file_system(self.root)[0]

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
            file = HashedFile(self.fs.open(temporary, "wb"), target)
        try:
            yield file
            file.finish()
            with explained(target):
                self._rename(temporary, target)
        except BaseException:
            file.abandon()
            with suppress(OSError):
                self.fs.rm(temporary)
            raise

    def _rename(self, temporary: str, target: str) -> None:
        if self.is_local:
            Path(temporary).replace(target)
        else:
            self.fs.mv(temporary, target)

    def read(self, name: str) -> bytes:
        with self.fs.open(self.full(name), "rb") as file:
            content: bytes = file.read()
        return content

    def arrow_source(self, name: str) -> Any:
        """What Arrow reads a file from: a memory map where there is a disk, else a stream."""
        path = self.full(name)
        return pa.memory_map(path) if self.is_local else self.fs.open(path, "rb")

    def write_json(self, name: str, value: Any, indent: int | None = None) -> None:
        """A JSON file; with an indent for people to read (which takes ten times as long)."""
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
        with self.write(name) as file:
            file.write(text.encode() + b"\n")

    def read_json(self, name: str) -> Any:
        """The parsed file, or None when it is missing or not valid JSON."""
        try:
            return orjson.loads(self.read(name))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def write_record(self, name: str, record: Mapping[str, Any]) -> None:
        """A JSON object beside a hash of itself."""
        body = orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
        with self.write(name) as file:
            file.write(b'{"seal":"%s","record":%s}\n' % (_seal(body), body))

    def read_record(self, name: str, key: str) -> dict[str, Any] | None:
        """The record if it is sound, has this key, and its ``files`` are as it says; else None."""
        sealed = self.read_json(name)
        record = sealed.get("record") if isinstance(sealed, dict) else None
        if not isinstance(record, dict) or record.get("key") != key:
            return None
        if sealed["seal"] != _seal(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).decode():
            return None
        return record if all(self.is_intact(*one) for one in record["files"].items()) else None

    def names(self, folder: str) -> list[str]:
        """The files below a folder, sorted and relative to the root; none if it does not exist."""
        with explained(self.full(folder)):
            found = self.fs.find(self.full(folder)) if self.exists(folder) else []
        return sorted(path[len(self.path) + 1 :] for path in found)

    def remove(self, name: str) -> None:
        with explained(self.full(name)), suppress(FileNotFoundError):
            self.fs.rm(self.full(name), recursive=True)

    def local(self, name: str, version: str = "") -> Path:
        """A path on this machine's disk with the content of a file or folder.

        When the root is remote it is a copy, made once a process for each ``version``.
        """
        if self.is_local:
            return Path(self.full(name))
        key = (self.root, name, version)
        with _COPYING:
            if key not in _COPIES:
                scratch = tempfile.mkdtemp(prefix="tamis-")
                atexit.register(shutil.rmtree, scratch, ignore_errors=True)
                _COPIES[key] = Path(scratch, Path(name).name)
                self.fs.get(self.full(name), str(_COPIES[key]), recursive=True)
            return _COPIES[key]

    @contextmanager
    def copies(self, names: Iterable[str]) -> Iterator[list[Path]]:
        """Local paths of some files, in their order; copies of remote ones are removed after."""
        if self.is_local:
            yield [Path(self.full(name)) for name in names]
            return
        with tempfile.TemporaryDirectory(prefix="tamis-") as scratch:
            paths = []
            for number, name in enumerate(names):
                paths.append(Path(scratch, f"{number:06d}-{Path(name).name}"))
                self.fs.get(self.full(name), str(paths[-1]))
            yield paths

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
        hashed, length = xxhash.xxh3_128(), 0
        with self.fs.open(self.full(name), "rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
                length += len(block)
        return {"bytes": length, "xxh3": hashed.hexdigest()}

    def is_intact(self, name: str, identity: Identity) -> bool:
        """Whether the file is there with the recorded length and content."""
        try:
            return (
                self.fs.size(self.full(name)) == identity["bytes"]
                and self.identity(name) == identity
            )
        except (FileNotFoundError, IsADirectoryError):
            return False

    def remove_unfinished(self, folders: Iterable[str]) -> None:
        """Delete what killed processes left under temporary names in these folders and the root."""
        found = self.fs.ls(self.path, detail=False) if self.fs.exists(self.path) else []
        for folder in folders:
            if self.exists(folder):
                found += self.fs.find(self.full(folder), withdirs=True)
        for path in found:
            if path.rstrip("/").rpartition("/")[2].startswith(TEMPORARY):
                self.remove(path[len(self.path) + 1 :])

    @contextmanager
    def locked(self, say: Callable[[str], None]) -> Iterator[None]:
        """Only one run at a time may write here; raises TamisError when another one does.

        Waits until no worker of an earlier, killed run is at work.
        """
        if not self.is_local:
            yield
            return
        with self._open_lock(LOCK) as lock:
            if not _flock(lock, fcntl.LOCK_EX):
                raise TamisError(
                    f"another run is writing into {self.path}; wait for it, "
                    "or choose another folder (-o DIR)"
                )
            self.token = uuid.uuid4().hex
            with explained(self.full(LOCK)):
                os.truncate(lock, 0)
                os.pwrite(lock, self.token.encode(), 0)
            with self._open_lock(WORKING) as working:
                _wait(lambda: _flock(working, fcntl.LOCK_EX), self.path, say)
            yield

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around all that a worker does for the run that holds the folder.

        Raises TamisError when that run is over and another one has begun.
        """
        if not self.is_local or not self.token:
            yield
            return
        with self._open_lock(WORKING) as working:
            if not _flock(working, fcntl.LOCK_SH) or self.read(LOCK).decode() != self.token:
                raise TamisError(f"another run has begun in {self.path}; this one was left behind")
            yield

    @contextmanager
    def _open_lock(self, name: str) -> Iterator[int]:
        path = Path(self.full(name))
        with explained(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield handle
        finally:
            os.close(handle)


def shards_of(path: str) -> str:
    """The folder of the documents, if the path is the folder of a run; any other path as it is.

    Raises:
        RecipeError: if the run is not finished.
    """
    run = Path(path)
    if not (run / "data").is_dir():
        return path
    if (run / "manifest.json").exists():
        return str(run / "data")
    if (run / LOCK).exists():
        raise RecipeError(
            f"the run in {path} is not finished; run it again, or name the shards that are there: "
            f"{run / 'data'}"
        )
    return path


_COPYING = threading.Lock()
_COPIES: dict[tuple[str, str, str], Path] = {}


def _file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise TamisError(f"cannot open the output folder {url}: {error}") from None
    return fs, path


def _flock(handle: int, kind: int) -> bool:
    """Whether the lock was given; on a file system that knows no locks it always is."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _LOCKING_UNKNOWN:
            raise
    return True


def _wait(ready: Callable[[], bool], path: str, say: Callable[[str], None]) -> None:
    begin = time.monotonic()
    told = False
    while not ready():
        waited = time.monotonic() - begin
        if waited > 1 and not told:
            told = True
            say("waiting for the workers of a run that was killed to finish their tasks")
        if waited > PATIENCE_SECONDS:
            raise TamisError(
                f"workers of an earlier run are still writing into {path}; stop them and run again"
            )
        time.sleep(0.02)


_REASONS = {
    errno.ENOSPC: (
        "no space is left on the device; free some and run again, the finished part is kept"
    ),
    errno.EDQUOT: (
        "the disk quota is used up; free some space and run again, the finished part is kept"
    ),
    errno.EFBIG: (
        "the file grows beyond the size that the system allows (ulimit -f); raise it and run "
        "again, the finished part is kept"
    ),
    errno.ENOENT: "the folder was removed while the run was writing; run again",
    errno.EACCES: "permission denied; choose an output folder that you may write to (-o DIR)",
    errno.EPERM: "permission denied; choose an output folder that you may write to (-o DIR)",
    errno.EROFS: "the file system is read-only; choose another output folder (-o DIR)",
    errno.ENOTDIR: (
        "a part of this path is a file, not a folder; choose another output folder (-o DIR)"
    ),
    errno.EEXIST: (
        "a part of this path is a file, not a folder; choose another output folder (-o DIR)"
    ),
}


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn the operating system's errors about writing to a path into one sentence.

    It says what to do where that is known.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise TamisError(f"cannot write {path}: {reason}") from error
