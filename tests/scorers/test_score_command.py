"""``tamis score``: files and streams in, folders and lines out."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tamis
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.command import ScoreCommand
from tamis.scorers.difficulty import Difficulty
from tamis.scorers.scoring import Printer, Reading, print_stream, read_scorers, score_columns

TEXTS = [f"{'word ' * (n % 9 + 1)}and {n} more of them\twith tabs" for n in range(40)]


def length_scorer() -> Any:
    class Length(tamis.Measure):
        """Adds the length as a score; an empty text has none."""

        kind = "length_of_test"

        def provides(self) -> tuple[tamis.Quantity, ...]:
            return (tamis.Quantity("score", "score", "characters"),)

        def measure(self, documents: tamis.Documents) -> dict[str, Any]:
            sizes = np.diff(documents.utf8()[1]).astype(float)
            return {"score": np.where(sizes == 0, np.nan, sizes)}

    return Length


LENGTH = length_scorer()


def write_jsonl(path: Path, texts: list[str], **more: Any) -> Path:
    lines = [json.dumps({"id": f"d{n}", "text": text, **more}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path


def run(inputs: list[Any], stdin: bytes = b"", **settings: Any) -> list[str]:
    out = io.BytesIO()
    scorers = settings.pop("scorers", ["length_of_test"])
    ScoreCommand([str(one) for one in inputs], scorers, **settings).run(
        io.BytesIO(stdin), out, quiet=True
    )
    return out.getvalue().decode().splitlines()


def test_lines_have_the_id_and_a_score_for_every_scorer(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", ["abc", "", "hello"])
    assert run([path]) == ["d0\t3.0", "d1\tnan", "d2\t5.0"]
    two = run([path], scorers=["length_of_test", "difficulty"], names=["a", "b"])
    assert [line.split("\t")[:2] for line in two] == [["d0", "3.0"], ["d1", "nan"], ["d2", "5.0"]]
    assert {len(line.split("\t")) for line in two} == {1 + 1 + len(Difficulty().provides())}
    records = [json.loads(line) for line in run([path], jsonl=True, names=["n"])]
    assert [one["n.score"] for one in records] == [3.0, None, 5.0]
    assert [one["text"] for one in records] == ["abc", "", "hello"]


def test_every_kind_of_input_gives_the_same_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    expected = run([path])
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    rows = pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()])
    pq.write_table(rows, tmp_path / "t.parquet")
    (tmp_path / "folder").mkdir()
    pq.write_table(rows.slice(0, 15), tmp_path / "folder" / "1.parquet")
    pq.write_table(rows.slice(15), tmp_path / "folder" / "2.parquet")
    assert run([tmp_path / "z.jsonl.gz"]) == expected
    assert run([tmp_path / "t.parquet"]) == expected
    assert run([tmp_path / "folder"]) == expected
    assert run([tmp_path / "folder" / "*.parquet"]) == expected
    assert run(["-"], path.read_bytes()) == expected


def test_other_keys_and_ids_that_are_no_strings(tmp_path: Path) -> None:
    line = b'{"key": 7, "body": "four", "id": "x", "tab": 1}\n'
    assert run(["-"], line, text="body", id="key") == ["7\t4.0"]
    (record,) = run(["-"], line, text="body", id="key", jsonl=True)
    assert json.loads(record) == {**json.loads(line), "length_of_test.score": 4.0}
    assert run(["-"], b'{"id": "a\\tb\\nc", "text": "x"}\n') == ["a\\tb\\nc\t1.0"]
    assert run(["-"], b'{"text": "x"}\n')[0].split("\t")[1] == "1.0"


def test_bad_lines_are_told_and_the_others_scored(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        *(b'{"id": "a", "text": "ok"}', b"", b"not json", b"[1]", b'{"id": "b"}'),
        *(b'{"text": 5}', b'{"id": "c", "text": "fine"}'),
    ]
    assert run(["-"], b"\n".join(lines)) == ["a\t2.0", "c\t4.0"]
    told = capsys.readouterr().err
    assert "line 3: not JSON" in told
    assert "line 4: not a JSON object" in told
    assert "line 5: there is no key 'text' (--text KEY); there is id" in told
    assert "line 6: 'text' is no string" in told
    assert "scored: 2, could not be scored: 4" in told
    with pytest.raises(TamisError, match="none of the documents could be scored"):
        run(["-"], b"not json\n")
    assert run(["-"], b"") == []
    assert "there were no documents" in capsys.readouterr().err


def test_a_line_without_an_end_is_never_held() -> None:
    read = []

    class Endless(io.RawIOBase):
        """A line of 40 MB, and one document."""

        def readline(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            assert size is not None
            assert 0 < size <= 1001
            read.append(size)
            if len(read) < 40_000:
                return b"x" * size
            return {40_000: b"\n", 40_001: b'{"id": "a", "text": "b"}\n'}.get(len(read), b"")

    out = io.BytesIO()
    said: list[str] = []
    printer = Printer(out, [LENGTH()], said.append)
    print_stream(Endless(), printer, Reading(max_bytes=1000))  # type: ignore[arg-type]
    assert out.getvalue() == b"a\t1.0\n"
    assert said[0] == "line 1: longer than 1,000 bytes"


def test_one_document_that_a_scorer_cannot_bear_fails_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Picky(LENGTH):  # type: ignore[misc]
        """Raises on one document."""

        kind = "picky_of_test"

        def measure(self, documents: tamis.Documents) -> dict[str, Any]:
            if "bad" in documents.text.to_pylist():
                raise ValueError("I cannot read this")
            found: dict[str, Any] = super().measure(documents)
            return found

    lines = "".join(json.dumps({"id": one, "text": one}) + "\n" for one in ("a", "bad", "ccc"))
    assert run(["-"], lines.encode(), scorers=["picky_of_test"]) == ["a\t1.0", "ccc\t3.0"]
    assert "id bad: picky_of_test: ValueError: I cannot read this" in capsys.readouterr().err


class Page(HTMLParser):
    """The ids of the samples by the heading that they stand under."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[str]] = {}
        self.heading, self.inside = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = dict(attrs).get("class") or tag
        if tag == "h3":
            self.heading = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        if self.inside == "id" and data.strip():
            self.lists.setdefault(self.heading, []).append(data)


def test_a_folder_gets_all_columns_and_a_page(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, ""], lang="en")
    out = tmp_path / "out"
    run([path], output=str(out), top=3, threshold=50.5, names=["size"])
    table = pq.read_table(out / "data")
    assert {"id", "text", "lang", "size.score"} <= set(table.column_names)
    sizes = [float(len(text)) for text in TEXTS]
    assert table.column("size.score").to_pylist()[:-1] == sizes
    page = Page()
    html = (out / "scores.html").read_text()
    page.feed(html)
    order = sorted(range(40), key=lambda n: (sizes[n], n))
    down = sorted(range(40), key=lambda n: (-sizes[n], n))
    assert page.lists["score-1-highest"] == [f"d{n}" for n in down[:3]]
    assert page.lists["score-1-lowest"] == [f"d{n}" for n in order[:3]]
    above = [n for n in order if sizes[n] >= 50.5][:3]
    below = [n for n in down if sizes[n] < 50.5][:3]
    assert page.lists["score-1-above"] == [f"d{n}" for n in above]
    assert page.lists["score-1-below"] == [f"d{n}" for n in below]
    assert "40 documents have a score, 1 have none" in html
    before = (out / "data").stat().st_mtime_ns
    run([path], output=str(out), names=["size"])
    assert (out / "data").stat().st_mtime_ns == before


def test_the_page_bears_hostile_text_and_scores_that_are_all_equal(tmp_path: Path) -> None:
    text = "<script>alert(1)</script>"
    out = tmp_path / "out"
    run([write_jsonl(tmp_path / "in.jsonl", [text] * 5)], output=str(out), names=["<b>"])
    html = (out / "scores.html").read_text()
    assert "<script>alert" not in html
    assert "<b>.score" not in html
    run([write_jsonl(tmp_path / "empty.jsonl", [""])], output=str(tmp_path / "none"))
    assert "0 documents have a score" in (tmp_path / "none" / "scores.html").read_text()


def wrong(**settings: Any) -> str:
    with pytest.raises(TamisError) as error:
        run(settings.pop("inputs", ["-"]), b'{"text": "a"}\n', **settings)
    return str(error.value)


def test_what_is_asked_wrongly_is_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", ["a"])
    assert "is scored alone" in wrong(inputs=["-", path])
    assert "is scored alone" in wrong(output="x")
    assert "add -o DIR" in wrong(workers=4)
    assert "--jsonl is for printing" in wrong(inputs=[path], output="x", jsonl=True)
    assert "there is no scorer lenght_of_test" in wrong(scorers=["lenght_of_test"])
    assert "two scorers are called length_of_test" in wrong(scorers=["length_of_test"] * 2)
    assert "2 names (--as) for 1 scorers" in wrong(names=["a", "b"])
    assert "write it as {STAGE: {SETTING: VALUE}}" in wrong(scorers=["{a: ["])
    assert "in.jsnl" in wrong(inputs=[tmp_path / "in.jsnl"])
    missing = "{fasttext: {model: nothing.bin}}"
    assert "needs the file nothing.bin, which is not there" in wrong(scorers=[missing])
    (tmp_path / "empty.jsonl").write_text("")
    assert "the file is empty" in wrong(inputs=[tmp_path / "empty.jsonl"])
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(b"\xba\x16\x4f\x2f\x0c")
    assert "damaged.bin" in wrong(scorers=[str(damaged)])


def test_names_come_from_the_stage_or_the_file(tmp_path: Path) -> None:
    stages = read_scorers(["difficulty", "{length_of_test: {name: long}}", "length_of_test"], ["h"])
    assert [stage.name for stage in stages] == ["h", "long", "length_of_test"]
    assert score_columns(stages)[-2:] == ["long.score", "length_of_test.score"]
    with pytest.raises(RecipeError, match="there is no model"):
        read_scorers([str(tmp_path / "edu.bin")])


def test_labels_are_printed_and_left_out_of_the_page(tmp_path: Path) -> None:
    class Parity(tamis.Measure):
        """A label alone: is the length even?"""

        kind = "parity_of_test"

        def provides(self) -> tuple[tamis.Quantity, ...]:
            return (tamis.Quantity("parity", "label", "0 or 1"),)

        def measure(self, documents: tamis.Documents) -> dict[str, Any]:
            return {"parity": np.diff(documents.utf8()[1]) % 2}

    path = write_jsonl(tmp_path / "in.jsonl", ["abc", "ab"])
    assert run([path], scorers=["parity_of_test"]) == ["d0\t1", "d1\t0"]
    assert score_columns([Parity()]) == ["parity_of_test.parity"]
    run([path], scorers=["parity_of_test"], output=str(tmp_path / "out"))
    assert "2 documents scored." in (tmp_path / "out" / "scores.html").read_text()


def many_lines(count: int) -> Iterator[bytes]:
    text = "some words that are long enough to fill memory if they were all held " * 15
    for number in range(count):
        yield json.dumps({"id": f"d{number}", "text": text}).encode() + b"\n"


def test_memory_does_not_grow_with_the_stream() -> None:
    """100 MB go through while the process grows by less than a quarter of that."""
    command = [sys.executable, "-c", (
        "import io, sys, resource, tests.scorers.test_score_command as here\n"
        "from tamis.scorers.command import ScoreCommand\n"
        "class Lines(io.RawIOBase):\n"
        "    def __init__(self, count): self.lines = here.many_lines(count)\n"
        "    def readline(self, size=-1): return next(self.lines, b'')\n"
        "out = open('/dev/null', 'wb')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ScoreCommand(['-'], ['length_of_test']).run(Lines(15_000), out)\n"
        "before = peak()\n"
        "ScoreCommand(['-'], ['length_of_test']).run(Lines(100_000), out)\n"
        "print(peak() - before)\n"
    )]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 25e6
