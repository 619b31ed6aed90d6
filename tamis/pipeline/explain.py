"""The whole way of one document through a run: every stage, what it measured, and what it
decided.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from tamis.pipeline.documents import ROW
from tamis.pipeline.errors import TamisError
from tamis.pipeline.evidence import pairs
from tamis.pipeline.report.changes import word_changes
from tamis.pipeline.report.figures import plain
from tamis.pipeline.storage import RunFolder
from tamis.registry import is_stage, stage_class

DIFFERENCES = 3
"""That ``explain`` shows of a duplicate and the document that was kept instead."""
LONGEST_REASON = 1000


@dataclass(frozen=True)
class Measured:
    """One measure of a document: its value (None when not measured) and the rules that look at
    it.
    """

    name: str
    value: float | str | None
    rules: tuple[str, ...]
    failed: bool


@dataclass(frozen=True)
class Step:
    """What one stage did with the document; ``decision`` is kept, dropped, changed, failed or not
    reached.
    """

    stage: str
    decision: str
    reason: str = ""
    measures: tuple[Measured, ...] = ()
    comparison: str = ""
    """How a duplicate differs from the document that was kept instead, or a detail of several lines
    (say, the program that changed the document).
    """


@dataclass(frozen=True)
class Way:
    """A document's way: several documents may share an id, they differ in ``row``."""

    id: str
    row: int
    kept: bool
    steps: tuple[Step, ...] = field(default_factory=tuple)
    file: str = ""
    """The file that it was read from."""


def read_manifest(run: str | Path) -> tuple[RunFolder, dict[str, Any]]:
    """The manifest of a finished run; TamisError when the folder has none."""
    folder = RunFolder(run)
    manifest = folder.read_json("manifest.json")
    if manifest is None:
        reason = (
            "the run has not finished"
            if folder.exists("state")
            else "it is not the folder of a run"
        )
        raise TamisError(f"{run} has no manifest.json: {reason}")
    return folder, manifest


def scan(folder: RunFolder, name: str) -> list[pl.LazyFrame]:
    """The tables of a folder of the run: one lazy frame for each set of files with the same
    columns.
    """
    groups: dict[str, list[str]] = {}
    prefix = "" if folder.is_local else folder.root.partition("://")[0] + "://"
    for file in folder.names(name):
        if file.endswith(".parquet"):
            groups.setdefault(file.rpartition("/")[0], []).append(prefix + folder.full(file))
    return [pl.scan_parquet(files) for _, files in sorted(groups.items())]


def explain(run: str | Path, id: str) -> list[Way]:
    """The ways of all documents with this id. Raises TamisError when the run has no such
    document.
    """
    folder, manifest = read_manifest(run)
    wanted = pl.col("id") == id
    decisions = [
        one for frame in scan(folder, "ledger") for one in frame.filter(wanted).collect().to_dicts()
    ]
    measures: dict[int, dict[str, Any]] = {}
    for frame in scan(folder, "measures"):
        for row in frame.filter(wanted).collect().to_dicts():
            measures.setdefault(row[ROW], {}).update(row)
    rows = sorted({*measures, *(one[ROW] for one in decisions)})
    if not rows and not _is_kept(folder, id):
        raise TamisError(f"{run} has no document with the id {id}{_similar(folder, id)}")
    ways = [
        _way(
            id,
            row,
            manifest["stages"],
            [one for one in decisions if one[ROW] == row],
            measures.get(row, {}),
        )
        for row in rows or [-1]
    ]
    return [
        replace(_compared(way, folder, manifest), file=_file_of(way.row, manifest)) for way in ways
    ]


def _compared(way: Way, folder: RunFolder, manifest: dict[str, Any]) -> Way:
    """With the comparison, if a stage dropped the document for another one and the run still has
    the texts.
    """
    steps = list(way.steps)
    for number, step in enumerate(steps):
        if step.decision != "dropped":
            continue
        phase = next(
            (i for i, one in enumerate(manifest["phases"]) if one["stages"][:1] == [step.stage]), 0
        )
        config = next(one for one in manifest["stages"] if one["name"] == step.stage)
        if phase == 0 or not is_stage(config["kind"]):
            continue
        try:
            stage = stage_class(config["kind"])(**config["config"])
            pair = pairs(folder, stage, phase, [way.row]).get(way.row)
        except (TamisError, OSError, ValueError):
            # Of state/ a part may be gone, or of another version; the ledger still says it all.
            continue
        if pair is not None:
            steps[number] = replace(step, comparison=_comparison(pair))
    return replace(way, steps=tuple(steps))


def _file_of(row: int, manifest: dict[str, Any]) -> str:
    """The file with the slice that a row number begins with; slices are in the order of the
    files.
    """
    number = row >> 32
    for file in manifest["inputs"] if row >= 0 else ():
        if number < file.get("slices", 0):
            return str(file["path"])
        number -= file.get("slices", 0)
    return ""


def _comparison(pair: dict[str, Any]) -> str:
    if "kept" not in pair:
        return "the kept document is one of an earlier run, or its text is no longer in state/"
    kept, this = pair["kept"], pair["this"]
    if pair["identical"]:
        return f"the two texts are equal ({kept['characters']:,} characters)"
    sizes = f"{kept['characters']:,} characters were kept, {this['characters']:,} dropped"
    changes = word_changes(kept["text"], this["text"], DIFFERENCES + 1)
    if not changes:
        return f"{sizes}; they differ in white space, or further on than is compared here"
    lines = [f"{sizes}; [-only in the kept-] {{+only in this+}}:", *changes[:DIFFERENCES]]
    more = ["... and more differences"] if len(changes) > DIFFERENCES else []
    return "\n".join([*lines, *more])


def _way(
    id: str,
    row: int,
    stages: list[dict[str, Any]],
    decisions: list[dict[str, Any]],
    measures: dict[str, Any],
) -> Way:
    """``stages`` are those of the manifest: names, rules and thresholds as they were."""
    ended = False
    steps = []
    for stage in stages:
        mine = [one for one in decisions if one["stage"] == stage["name"]]
        final = next((one for one in mine if one["action"] in ("dropped", "failed")), None)
        decision = final["action"] if final else "changed" if mine else "kept"
        known = _measures(stage, measures, final)
        if ended:
            measured = tuple(one for one in known if one.value is not None)
            steps.append(Step(stage["name"], "not reached", "", measured))
            continue
        said = final or (mine[0] if mine else None)
        steps.append(
            Step(stage["name"], decision, _reason(stage, said), known, _account(stage, said))
        )
        ended = final is not None
    unnamed = [one for one in decisions if not one["stage"]]
    if unnamed:
        steps.insert(0, Step("(process)", "failed", unnamed[0]["detail"] or ""))
    return Way(id, row, not ended and not unnamed, tuple(steps))


def _reason(stage: dict[str, Any], decision: dict[str, Any] | None) -> str:
    if decision is None:
        return ""
    detail = decision["detail"] or ""
    if decision["action"] == "failed":
        return detail
    if "\n" in detail:
        detail = ""
    told = f" ({stage['detail_means']} {detail})".replace("( ", "(") if detail else ""
    if decision["action"] == "changed":
        return f"{decision['value']:,.0f} bytes removed{told}"
    for rule in stage["rules"]:
        if rule["rule"] == decision["rule"]:
            value, threshold = f"{decision['value']:.6g}", f"{decision['threshold']:.6g}"
            comparison = f"{rule['measure']} = {value} {rule['comparison']} {threshold}"
            return f"{rule['rule']}: {comparison}{told}"
    return f"{decision['rule']}{told}"


def _account(stage: dict[str, Any], decision: dict[str, Any] | None) -> str:
    """A detail of several lines, to be shown line by line."""
    if decision is None or decision["action"] == "failed" or "\n" not in (decision["detail"] or ""):
        return ""
    lines = [stage["detail_means"], *decision["detail"].split("\n")]
    return "\n".join(plain(line, LONGEST_REASON) for line in lines if line)


def _measures(
    stage: dict[str, Any], measures: dict[str, Any], final: dict[str, Any] | None
) -> tuple[Measured, ...]:
    """The kept measures of a stage, each with the rules that look at it."""
    prefix = f"{stage['name']}."
    found = []
    for column in measures:
        if not column.startswith(prefix):
            continue
        name = column.removeprefix(prefix)
        mine = [rule for rule in stage["rules"] if rule["measure"] == name]
        shown = tuple(
            f"{rule['rule']}: drop if {rule['comparison']} {rule['threshold']:.6g}" for rule in mine
        )
        failed = final is not None and any(rule["rule"] == final["rule"] for rule in mine)
        found.append(Measured(name, measures[column], shown, failed))
    return tuple(found)


def _is_kept(folder: RunFolder, id: str) -> bool:
    """Whether a document is in the output (asked only when no measures were kept)."""
    files = [one for one in folder.names("data") if one.endswith(".parquet")]
    return any(
        not pl.scan_parquet(folder.full(one))
        .filter(pl.col("id") == id)
        .select("id")
        .collect()
        .is_empty()
        for one in files
    )


def _similar(folder: RunFolder, id: str) -> str:
    for name in ("measures", "ledger"):
        for frame in scan(folder, name):
            near = (
                frame.filter(pl.col("id").str.contains(id, literal=True))
                .select("id")
                .head(3)
                .collect()["id"]
                .to_list()
            )
            if near:
                return f"; there is {', '.join(near)}"
    return ""


def _visible(text: str) -> str:
    """Text from data on one line of a terminal, which it cannot steer."""
    return plain(" ".join(text.split()), LONGEST_REASON)


def _shown(value: float | str | None) -> str:
    """Whole numbers in full: some of them are places in a file."""
    if value is None:
        return "not measured"
    if isinstance(value, str):
        return _visible(value) or '""'
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def format_way(way: Way) -> str:
    """The way as text for a terminal."""
    where = f"   (from {_visible(way.file)})" if way.file else ""
    lines = [f"document {_visible(way.id)}: {'kept' if way.kept else 'not kept'}{where}"]
    for step in way.steps:
        reason = f"   {_visible(step.reason)}" if step.reason else ""
        lines.append(f"\n{step.stage:<20} {step.decision}{reason}")
        for one in step.measures:
            value = _shown(one.value)
            mark = ">" if one.failed else " "
            lines.append(f"  {mark} {one.name:<28} {value:>12}   {'; '.join(one.rules)}".rstrip())
        lines += [f"    {line}" for line in step.comparison.splitlines()]
    return "\n".join(lines)
