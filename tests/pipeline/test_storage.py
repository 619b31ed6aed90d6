"""Files that appear whole or not at all, records that know when they were changed, locks."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import fsspec
import pytest

from tamis.pipeline.errors import TamisError
from tamis.pipeline.storage import LOCK, RunFolder, digest, explained


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    if request.param == "disk":
        return RunFolder(tmp_path / "run")
    store = fsspec.filesystem("memory")
    if store.exists("/storage"):
        store.rm("/storage", recursive=True)
    return RunFolder("memory://storage")


def test_a_file_appears_when_it_is_whole(folder: RunFolder) -> None:
    with folder.write("data/a") as file:
        file.write(b"first ")
        file.write(memoryview(b"second"))
        assert folder.names("data") == [] or not folder.exists("data/a")
    assert folder.read("data/a") == b"first second"
    assert file.identity()["bytes"] == 12
    assert folder.identity("data/a") == file.identity()
    assert folder.is_intact("data/a", file.identity())


def test_a_file_that_was_not_finished_is_not_there(folder: RunFolder) -> None:
    with folder.write("data/a") as file:
        file.write(b"the old content")
    with pytest.raises(ZeroDivisionError), folder.write("data/a") as file:
        file.write(b"half of the new")
        raise ZeroDivisionError
    file.write(b"what a writer still has to say")
    assert folder.read("data/a") == b"the old content"
    assert folder.names("data") == ["data/a"]


@pytest.mark.parametrize("change", [b"", b"x", b"the old contenT", b"the old content "])
def test_damage_is_seen(folder: RunFolder, change: bytes) -> None:
    with folder.write("a") as file:
        file.write(b"the old content")
    folder.fs.pipe(folder.full("a"), change)
    assert not folder.is_intact("a", file.identity())
    folder.remove("a")
    assert not folder.is_intact("a", file.identity())


def test_a_record_is_found_by_its_key_and_only_when_sound(folder: RunFolder) -> None:
    with folder.write("data/a") as file:
        file.write(b"text")
    record = {"key": "k", "files": {"data/a": file.identity()}, "seen": {7: 1.5}, "pair": (1, 2)}
    folder.write_record("state/r.json", record)
    found = folder.read_record("state/r.json", "k")
    assert found == json.loads(json.dumps(record))
    assert folder.read_record("state/r.json", "another") is None
    assert folder.read_record("state/none.json", "k") is None
    whole = folder.read("state/r.json")
    for torn in (whole[:40], b"", b"[]", b"{}", whole.replace(b"1.5", b"2.5"), b"\xff\xfe"):
        folder.fs.pipe(folder.full("state/r.json"), torn)
        assert folder.read_record("state/r.json", "k") is None
    folder.fs.pipe(folder.full("state/r.json"), whole)
    folder.fs.pipe(folder.full("data/a"), b"tex")
    assert folder.read_record("state/r.json", "k") is None


def test_what_killed_processes_left_is_removed(folder: RunFolder) -> None:
    for name in ("data/.writing-1-a", "state/p0/.writing-2-b", ".writing-3-c", "other/.writing-4"):
        folder.fs.makedirs(folder.full(name).rpartition("/")[0], exist_ok=True)
        folder.fs.pipe(folder.full(name), b"half")
    folder.remove_unfinished(["data", "state", "measures"])
    # What lies in a folder that no run owns is somebody else's.
    assert folder.names("") == ["other/.writing-4"]


def test_a_run_waits_for_nobody_but_keeps_others_out(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    with first.locked(print):
        with first.working():
            pass
        with pytest.raises(TamisError, match="another run is writing"), second.locked(print):
            pass
    with second.locked(print):
        # A worker that a killed run left behind has nothing to write any more.
        with pytest.raises(TamisError, match="another run has begun"), first.working():
            pass
        with second.working():
            pass
    assert (tmp_path / LOCK).read_text() == second.token


def test_copies_of_remote_files_are_local_files(folder: RunFolder) -> None:
    for name in ("state/a", "state/b"):
        with folder.write(name) as file:
            file.write(name.encode())
    with folder.copies(["state/b", "state/a"]) as paths:
        assert [path.read_text() for path in paths] == ["state/b", "state/a"]
    assert folder.local("state/a", "1").read_text() == "state/a"
    assert folder.local("state/a", "1") == folder.local("state/a", "1")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_the_system_are_one_sentence(number: int, said: str) -> None:
    with pytest.raises(TamisError, match=f"cannot write /x/y: .*{said}"), explained("/x/y"):
        raise OSError(number, os.strerror(number))


def test_a_full_device(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "full").symlink_to("/dev/full")
    with (
        pytest.raises(TamisError, match="no space is left"),
        explained("full"),
        folder.fs.open(folder.full("full"), "wb") as file,
    ):
        file.write(b"x" * 100_000)


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
