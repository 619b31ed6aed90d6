"""The stage ``refine``: on a table, in a run, and what ledger, ``explain`` and ``check`` say."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import tamis
from tamis.cli import app
from tamis.filters.refine.executor import Limits, run
from tamis.filters.refine.program import normalize, remove_lines
from tamis.filters.refine.stage import ProX
from tamis.filters.refine.writers import Cost, Function, ProgramWriter, read_writer
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.explain import explain, format_way

BODY = [f"Sentence {number} says that the river is low in August." for number in range(8)]
PAGE = "\n".join(["Home | About", *BODY, "See http://river.org/?a=1,2 for (more)."])
SHORT = "\n".join(["Menu", "Only these few words are here"])
ROWS: list[dict[str, Any]] = [
    {"id": "clean", "text": PAGE, "chunk": "keep_all()", "document": "keep_doc()"},
    {
        "id": "edited",
        "text": PAGE,
        "chunk": f"{remove_lines(0, 0)}\n{normalize(' for (more)')}\nremove_lines(",
        "document": "keep_doc()",
    },
    {"id": "dropped", "text": PAGE, "chunk": remove_lines(0, 0), "document": "drop_doc()"},
    {"id": "emptied", "text": PAGE, "chunk": "remove_lines(all=True)", "document": None},
    {"id": "short", "text": SHORT, "chunk": remove_lines(0, 0), "document": ""},
    {"id": "wrong", "text": PAGE, "chunk": "remove_lines(0, 0)\nnormalize()\nso", "document": ""},
    {"id": "void", "text": "", "chunk": None, "document": None},
    {"id": "line", "text": "one huge line " * 20_000, "chunk": normalize("huge "), "document": ""},
]  # fmt: skip
COLUMNS = {"column": "chunk", "document": "document"}


def table(rows: list[dict[str, Any]] = ROWS) -> pa.Table:
    return pa.Table.from_pylist(rows)


def texts(found: pa.Table) -> dict[str, str]:
    return dict(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))


def test_on_a_table() -> None:
    found = texts(ProX(writer=COLUMNS)(table()))
    assert found == {
        "clean": PAGE,
        "edited": "\n".join([*BODY, "See http://river.org/?a=1,2."]),
        "wrong": PAGE,
        "void": "",
        "line": "one line " * 20_000,
    }


def test_the_refiner_that_comes_along_writes_when_nobody_is_named() -> None:
    stage = tamis.ProX()
    assert stage.writer.settings() == {"model": None}
    menu = ["Home", "About us", "Contact", "Log in", "Terms of use", "Privacy policy"]
    body = " ".join(BODY)
    rows = [{"id": "a", "text": "\n".join([*menu, *[body] * 4, "(c) 2020 All rights reserved"])}]
    after = texts(stage(table(rows)))["a"].split("\n")
    assert after.count(body) == 4 and len(after) < 8


def test_levels_do_their_part() -> None:
    by_document = texts(ProX(writer=COLUMNS, level="document")(table()))
    assert by_document == {one["id"]: one["text"] for one in ROWS if one["id"] != "dropped"}
    by_chunk = texts(ProX(writer=COLUMNS, level="chunk")(table()))
    assert by_chunk["dropped"] == "\n".join(PAGE.split("\n")[1:])
    assert "dropped" in texts(ProX(writer=COLUMNS, drop_doc=False)(table()))
    # A chunk program may drop, too.
    rows = [{"id": "a", "text": PAGE, "p": "drop_doc()"}]
    assert ProX(writer={"column": "p"})(table(rows)).num_rows == 0


def test_the_rules_decide_as_the_executor_does() -> None:
    for compat in (None, "prox"):
        stage = ProX(writer={"column": "chunk"}, compat=compat)
        found = texts(stage(table()))
        for row in ROWS:
            outcome = run(row["text"], row["chunk"] or "", compat)
            assert found.get(row["id"]) == outcome.text, row["id"]
    limits = Limits(max_errors=2, max_removed_fraction=0.2, min_words_left=None)
    stage = ProX(writer={"column": "chunk"}, **limits._asdict())
    found = texts(stage(table()))
    for row in ROWS:
        assert found.get(row["id"]) == run(row["text"], row["chunk"] or "", None, limits).text


def test_what_is_measured() -> None:
    batch = table().combine_chunks().to_batches()[0]
    text = pa.array(batch["text"].to_pylist(), pa.large_string())
    documents = Documents(batch.set_column(1, "text", text))
    measures = ProX(writer=COLUMNS).measure(documents)
    edited = {name: values[1] for name, values in measures.items()}
    detail = edited.pop("detail")
    words = len(PAGE.split())
    assert edited == {
        "drop_doc": 0,
        "removed_fraction": (3 + 2) / words,
        "words_left": words - 5,
        "lines_removed": 1,
        "replacements": 1,
        "errors": 0,
        "unknown_lines": 0,
        "cut_calls": 1,
    }
    assert detail.split("\n") == [
        "keep_doc()",
        "remove_lines(line_start=0, line_end=0)",
        'normalize(source_str=" for (more)", target_str="")',
        "remove_lines(",
        "# - [000]Home | About",
        "# 1 times ' for (more)' -> ''",
    ]
    assert measures["drop_doc"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert (measures["errors"][5], measures["unknown_lines"][5]) == (2, 1)
    # Nothing to explain where nothing happened.
    assert measures["detail"][[0, 5, 6]].tolist() == [None] * 3
    assert math.isnan(measures["words_left"][0]) and math.isnan(measures["words_left"][5])


def test_what_is_wrong_with_document_programs_is_counted() -> None:
    rows = [{"id": "a", "text": PAGE, "d": "I would keep it.\ndrop_doc", "p": "hm\nremove_lines()"}]
    batch = table(rows).combine_chunks().to_batches()[0]
    text = pa.array([PAGE], pa.large_string())
    stage = ProX(writer={"column": "p", "document": "d"})
    measures = stage.measure(Documents(batch.set_column(1, "text", text)))
    assert [measures[name][0] for name in ("unknown_lines", "cut_calls", "errors")] == [2, 1, 1]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    return path


def test_in_a_run(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished = tamis.Pipeline(tamis.read(corpus), [ProX(writer=COLUMNS)], tamis.write(out)).run()
    assert (finished.counts["kept"], finished.counts["dropped"]) == (5, 3)
    ledger = pl.read_parquet(out / "ledger" / "*.parquet").filter(pl.col("stage") == "refine")
    said = {row["id"]: row for row in ledger.to_dicts()}
    assert {name: (one["action"], one["rule"]) for name, one in said.items()} == {
        "edited": ("changed", "text"),
        "line": ("changed", "text"),
        "dropped": ("dropped", "drop_doc"),
        "emptied": ("dropped", "max_removed_fraction"),
        "short": ("dropped", "min_words_left"),
    }
    assert said["dropped"]["detail"] == "drop_doc()"
    assert "# - [000]Home | About" in said["edited"]["detail"]
    (way,) = explain(out, "edited")
    shown = format_way(way)
    assert "refine               changed" in shown
    assert "    program:\n    keep_doc()\n    remove_lines(" in shown
    assert "    # - [000]Home | About\n" in shown
    (way,) = explain(out, "dropped")
    assert "drop_doc: drop_doc = 1 >= 1 (program: drop_doc())" in format_way(way)
    report = (out / "report.html").read_text()
    assert '<div class="removed" role="row">' in report
    assert '<span dir="auto" role="cell">Home | About</span>' in report


def test_retune_keeps_what_a_rule_dropped(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tamis.Pipeline(tamis.read(corpus), [ProX(writer=COLUMNS)], tamis.write(out)).run()
    found = tamis.retune(out, ["refine.min_words_left=3", "refine.drop_doc=false"])
    assert found.kept_after == found.kept_before + 2


class Costly(ProgramWriter):
    kind: ClassVar[str] = "costly"
    asked: ClassVar[list[int]] = []

    def document_programs(self, documents: Documents) -> list[str]:
        return ["drop_doc()" if at % 2 else "" for at in range(len(documents))]

    def chunk_programs(self, documents: Documents) -> list[str]:
        self.asked.append(int(documents.alive.sum()))
        return [""] * len(documents)

    def identity(self) -> str:
        return "costly"

    def document_cost(self, documents: Documents) -> Cost:
        return Cost(len(documents), 100 * len(documents), 16 * len(documents))

    def chunk_cost(self, documents: Documents) -> Cost:
        return Cost(2 * len(documents), 1000 * len(documents), 512 * len(documents))


def test_chunk_programs_are_asked_for_what_the_document_programs_keep() -> None:
    Costly.asked.clear()
    assert ProX(writer=Costly())(table()).num_rows == 4
    assert Costly.asked == [4]


def test_check_says_what_will_be_asked(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis.pipeline.estimate import estimates

    stage = ProX(writer=Costly())
    plan = tamis.Pipeline(tamis.read(corpus), [stage], tamis.write("out")).plan()
    assert estimates(plan) == [
        "refine: about 24 prompts, 8,800 tokens in prompts, 4,220 tokens generated at most "
        "(documents: 8, 8 looked at; if none is dropped before)"
    ]
    text = json.dumps({**ROWS[0], "text": "words " * 500})
    corpus.write_text(f"{text}\n" * 4000)
    pipeline = tamis.Pipeline(
        tamis.read(corpus),
        [ProX(writer=Costly(), level="chunk")],
        tamis.write("out"),
        slice_size=10**6,
    )
    (line,) = estimates(pipeline.plan())
    assert re.search(r"\(documents: about (4,0|3,9)\d\d, 64 looked at;", line)
    assert "tokens generated at most" in line
    plan = tamis.Pipeline(tamis.read(corpus), [ProX(writer=COLUMNS)], tamis.write("out")).plan()
    assert estimates(plan) == []


def test_check_on_the_command_line(corpus: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"input: {corpus}\nstages:\n  - refine: {{writer: {{column: nowhere}}}}\noutput: out\n"
    )
    done = CliRunner().invoke(app, ["check", str(recipe)])
    assert isinstance(done.exception, RecipeError)
    assert "needs the column nowhere" in str(done.exception)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"writer": {"colum": "chunk"}}, "did you mean column"),
        ({"writer": {"column": "a", "model": "b"}}, "are two writers"),
        ({"writer": {"column": "a", "max": 1}}, "has no setting max"),
        ({"writer": {"column": None}}, "name a column"),
        ({"writer": "prox"}, "it is {model: FILE}"),
        ({"writer": COLUMNS, "level": "line"}, "'both', 'document' or 'chunk'"),
        ({"writer": COLUMNS, "compat": "datatrove"}, "'prox'"),
        ({"writer": COLUMNS, "min_words_left": -1}, "greater than or equal to 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ProX(**settings)


def test_a_level_needs_its_column() -> None:
    with pytest.raises(RecipeError, match="needs the column of the document programs"):
        ProX(writer={"column": "chunk"}, level="document")
    with pytest.raises(RecipeError, match=r"writer: \{column: NAME\}"):
        ProX(writer={"column": None, "document": "d"}, level="chunk")


def test_wrong_columns() -> None:
    rows = [{"id": "a", "text": PAGE, "p": 3}]
    with pytest.raises(TamisError, match="holds int64; programs are strings"):
        ProX(writer={"column": "p"})(table(rows))
    with pytest.raises(TamisError, match="needs the column q"):
        ProX(writer={"column": "q"})(table(rows))


def test_functions_write_programs() -> None:
    def first_line_goes(texts: list[str]) -> list[str]:
        return [remove_lines(0, 0)] * len(texts)

    stage = ProX(writer=first_line_goes)
    assert texts(stage(table()))["clean"] == "\n".join(PAGE.split("\n")[1:])
    assert "first_line_goes" in stage.writer.identity()
    assert read_writer(stage.writer) is stage.writer
    with pytest.raises(TamisError, match="gave 1 programs for 8 texts"):
        ProX(writer=lambda texts: ["keep_all()"])(table())
    with pytest.raises(ValueError, match="give them a name"):
        Function.of(partial(first_line_goes))
    with pytest.raises(TamisError, match="run the Pipeline again in Python"):
        ProX(writer={"function": "lost"})(table())
