"""Hostile input and a hostile machine, through the command line: one sentence, no traceback."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tamis.pipeline.errors import TamisError
from tamis.pipeline.progress import Progress
from tests.pipeline import runs

STAGES = """
  - exact_dedup
  - gopher_quality: {min_words: 30}
  - c4_quality: {require_terminal_punctuation: false}
  - minhash
"""


def recipe(folder: Path, path: Path | str, *more: str, stages: str = STAGES) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(
        "\n".join(
            [
                f"input: {{path: '{path}', max_document_bytes: 1MB}}",
                "slice_size: 100kB",
                *more,
                f"stages: {stages if stages.strip() else '[]'}",
                f"output: {{path: '{folder / 'run'}', shard_size: 200kB}}",
            ]
        )
    )
    return file


def tamis(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command; whatever it says, it is no traceback and no noise of a library's."""
    done = subprocess.run(
        [sys.executable, "-m", "tamis.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **settings,
    )
    said = done.stdout + done.stderr
    for noise in ("Traceback", "Exception ignored", "distributed.", "Warning", "tamis: unexpected"):
        assert noise not in said, said
    return done


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed command says last: the only line that begins with its name."""
    (line,) = (one for one in done.stderr.splitlines() if one.startswith("tamis: "))
    return line


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "manifest.json").read_text())
    return found


GOOD = [
    json.dumps({"id": f"d{number}", "text": f"This is document {number}, and it has words. " * 12})
    for number in range(20)
]


def lines_of(*odd: bytes) -> bytes:
    """Twenty good documents with odd lines in between."""
    lines = [one.encode() for one in GOOD]
    for number, line in enumerate(odd):
        lines.insert(3 + 4 * number, line)
    return b"\n".join(lines) + b"\n"


LINES: dict[str, tuple[bytes, str]] = {
    "broken": (b'{"text": "cut off', "line 4"),
    "no_object": (b"[1, 2, 3]", "line 4"),
    "no_json": (b"\xff\xfe\x00\x01 binary", "line 4"),
    "no_utf8": (b'{"text": "caf\xe9 society"}', "line 4"),
    "no_text": (b'{"id": "x", "body": "the text is elsewhere"}', "line 4"),
    "text_is_number": (b'{"id": "x", "text": 12}', "line 4"),
    "too_long": (b'{"text": "' + b"long " * 300_000 + b'"}', "line 4"),
    "deep": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 4"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_fails_alone(tmp_path: Path, name: str) -> None:
    line, position = LINES[name]
    (tmp_path / "in.jsonl").write_bytes(lines_of(line))
    done = tamis("run", recipe(tmp_path, tmp_path / "in.jsonl", stages=" "))
    assert done.returncode == 0, done.stderr
    counts = manifest(tmp_path)["counts"]
    assert (counts["in"], counts["kept"], counts["failed"]) == (21, 20, 1)
    (error,) = (tmp_path / "run/errors").rglob("*.jsonl")
    found = json.loads(error.read_text())
    assert found["file"].endswith("in.jsonl")
    assert position in found["position"]
    assert found["reason"]
    assert len(error.read_text()) < 2000


def test_odd_documents_are_documents(tmp_path: Path) -> None:
    odd = [
        {"id": "d3", "text": ""},
        {"id": "d3", "text": "a\u0000b \u0000"},
        {"id": "../../etc/passwd", "text": "\ud83d\ude00 " * 9},
        {"id": None, "text": "no id"},
    ]
    (tmp_path / "in.jsonl").write_bytes(lines_of(*(json.dumps(one).encode() for one in odd)))
    done = tamis("run", recipe(tmp_path, tmp_path / "in.jsonl", stages=" "))
    assert done.returncode == 0, done.stderr
    counts = manifest(tmp_path)["counts"]
    assert (counts["in"], counts["kept"], counts["failed"]) == (24, 24, 0)
    found = pl.read_parquet(tmp_path / "run/data/*.parquet")
    assert found.filter(pl.col("id") == "d3")["text"].to_list()[:2] == [
        "",
        json.loads(GOOD[3])["text"],
    ]
    assert "a\0b \0" in found["text"].to_list()
    assert found["id"].null_count() == 0


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "a.jsonl").write_bytes(lines_of())
    whole = gzip.compress(("\n".join(GOOD * 40) + "\n").encode(), mtime=0)
    (crawl / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (crawl / "c.jsonl.gz").write_bytes(b"this is no gzip\n" * 20)
    (crawl / "d.parquet").write_bytes(b"PAR1 and then nothing")
    (crawl / "e.jsonl").write_bytes(b"")
    (crawl / "f.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd broken frame")
    done = tamis("run", recipe(tmp_path, crawl, stages=" "))
    if done.returncode:
        # The schema cannot be known when a Parquet file has no footer.
        assert "d.parquet" in sentence(done)
        (crawl / "d.parquet").unlink()
        done = tamis("run", recipe(tmp_path, crawl, stages=" "))
    assert done.returncode == 0, done.stderr
    found = manifest(tmp_path)
    counts = found["counts"]
    assert counts["in"] == counts["kept"] + counts["failed"]
    assert counts["kept"] >= 20
    errors = "".join(path.read_text() for path in (tmp_path / "run/errors").rglob("*.jsonl"))
    for name in ("b.jsonl.gz", "c.jsonl.gz", "f.jsonl.zst"):
        assert name in errors
    assert any("e.jsonl" in note for note in found["notes"])


INPUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "does not exist"),
    "empty_folder": (lambda path: path.mkdir(), "no documents|no file"),
    "zero_bytes": (lambda path: [path.mkdir(), (path / "a.jsonl").touch()], "empty"),
    "only_broken": (
        lambda path: [path.mkdir(), (path / "a.jsonl").write_bytes(b"{\n{\n{\n")],
        "none of the 3 documents",
    ),
    "no_column": (
        lambda path: [
            path.mkdir(),
            pl.DataFrame({"body": ["x"]}).write_parquet(path / "a.parquet"),
        ],
        "column 'text'",
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_input_without_a_single_document(tmp_path: Path, name: str) -> None:
    make, expected = INPUTS[name]
    make(tmp_path / "crawl")
    done = tamis("run", recipe(tmp_path, tmp_path / "crawl", stages=" "))
    assert done.returncode in (1, 2)
    assert re.search(expected, sentence(done)), done.stderr
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_max_errors_stops_a_run_and_counts_what_was_done_before(tmp_path: Path) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl", every=6)
    done = tamis("run", recipe(tmp_path, crawl, "max_errors: 5"))
    assert done.returncode == 1
    assert "6 documents failed, more than max_errors: 5" in sentence(done)
    assert tamis("run", recipe(tmp_path, crawl, "max_errors: 6")).returncode == 0
    (tmp_path / "run" / "manifest.json").unlink()
    done = tamis("run", recipe(tmp_path, crawl, "max_errors: 2"))
    assert done.returncode == 1
    assert "more than max_errors: 2" in sentence(done)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system that is soon full; skips the test where this user may not make one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tamis-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk(tmp_path: Path, workers: int) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl")
    with small_disk(tmp_path / "disk", "3m") as disk:
        order = ["run", recipe(tmp_path, crawl), "-o", disk / "run", "--workers", workers]
        done = tamis(*order)
        assert done.returncode == 1
        assert "no space is left on the device" in sentence(done)
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        assert tamis(*order).returncode == 0
        found = runs.results(disk / "run")
        assert runs.leftovers(disk / "run") == []
    assert tamis("run", recipe(tmp_path, crawl)).returncode == 0
    assert found == runs.results(tmp_path / "run")


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl")
    path = recipe(tmp_path, crawl)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = tamis("run", path, preexec_fn=limit)
    assert done.returncode == 1
    assert "ulimit -f" in sentence(done)
    assert tamis("run", path).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount a tmpfs")
def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl", every=20)
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = tamis("run", recipe(tmp_path, crawl), "-o", disk / "run")
    assert done.returncode == 1
    assert "read-only" in sentence(done)


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_the_output_is_a_file(tmp_path: Path, inside: str) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl", every=20)
    (tmp_path / "taken").write_text("mine")
    done = tamis("run", recipe(tmp_path, crawl), "-o", tmp_path / "taken" / inside)
    assert done.returncode == 1
    assert "file" in sentence(done)
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_unknown_store_and_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl", every=20)
    done = tamis("run", recipe(tmp_path, crawl), "-o", "nostore://somewhere")
    assert done.returncode in (1, 2)
    assert "nostore" in sentence(done)
    done = tamis("run", recipe(tmp_path, crawl), "--scheduler", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in sentence(done)


def test_two_commands_at_once(tmp_path: Path) -> None:
    crawl = runs.write_corpus(tmp_path / "crawl")
    order = [sys.executable, "-m", "tamis.cli", "run", str(recipe(tmp_path, crawl)), "--quiet"]
    first = subprocess.Popen(order, stdout=subprocess.DEVNULL)
    while not (tmp_path / "run" / "state" / "p0").exists():
        time.sleep(0.01)
        assert first.poll() is None
    # It would be over before the other has started.
    first.send_signal(signal.SIGSTOP)
    second = tamis(*order[3:])
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert "another run is writing into" in sentence(second)
    assert first.wait() == 0
    assert tamis(*order[3:]).returncode == 0


def test_input_that_changes_or_goes_while_it_is_read(tmp_path: Path) -> None:
    """The stage of the first task changes the input of the tasks that follow."""
    for change, expected in ((Path.unlink, "again"), (_append, "changed")):
        crawl = runs.write_corpus(tmp_path / change.__name__, every=6)
        pipeline = runs.pipeline("no_fitted", crawl, tmp_path / f"run-{change.__name__}")
        plan = pipeline.plan()
        whole = runs.pipeline("no_fitted", crawl, tmp_path / "whole").run()
        listener = _Meddler(crawl / "part-4.jsonl", change)
        with pytest.raises(TamisError, match=expected):
            pipeline.run(progress=listener)
        assert len(plan.slices) > 5
        shutil.rmtree(crawl)
        runs.write_corpus(crawl, every=6)
        assert pipeline.run().counts == whole.counts


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


class _Meddler(Progress):
    """Changes a file as soon as the first batch was read."""

    def __init__(self, path: Path, change: Callable[[Path], object]) -> None:
        super().__init__(quiet=True)
        self.path, self.change = path, change

    def read(self, documents: int, size: int) -> None:
        if self.path:
            self.change(self.path)
            self.path = None  # type: ignore[assignment]


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """300 MB of text, and a small gzip file that is large inside, in less than 1 GB."""
    rows = runs.documents()
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    with (crawl / "a.jsonl").open("w") as file, gzip.open(crawl / "b.jsonl.gz", "wt", 1) as packed:
        for number in range(100):
            for one in rows:
                line = json.dumps(
                    {"id": f"{number}-{one['id']}", "text": f"{number} {one['text']}"}
                )
                (file if number < 70 else packed).write(line + "\n")
        packed.write(json.dumps({"id": "ratio", "text": "a" * 900_000}) + "\n")
        packed.write(json.dumps({"id": "bomb", "text": "a" * 200_000_000}) + "\n")
    path = recipe(tmp_path, crawl)
    path.write_text(path.read_text().replace("100kB", "32MB").replace("200kB", "256MB"))
    done = tamis("run", path)
    assert done.returncode == 0, done.stderr
    found = manifest(tmp_path)
    assert found["counts"]["bytes_in"] > 290_000_000
    assert found["counts"]["failed"] == 1
    assert found["peak_memory_bytes"] < 1_000_000_000
