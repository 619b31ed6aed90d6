"""From a manifest to what the page shows: every list bounded, every absent key tolerated."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tamis.pipeline.report.changes import Diff, SideBySide, diff, side_by_side
from tamis.pipeline.report.figures import (
    as_number,
    compact,
    count,
    percent,
    plain,
    share,
    shown,
    size,
)
from tamis.pipeline.report.histogram import Histogram, draw

STAGES, RULES, MEASURES, SOURCES = 40, 40, 40, 24
SAMPLES, CHANGES, ERRORS, FILES, FACTS, NOTES = 5, 4, 20, 50, 30, 20
COMPOSITION = "composition"
"""The fact of a stage that is a table of its own: what became of the sources."""
REASONS = 5
SAMPLE_LIMIT, MARKS = 1500, 20
MARK = Markup("<mark>{}</mark>")

_WORDS = {
    "whitespace": "A word is what stands between white space, as in the Gopher paper and in dolma.",
    "unicode": "A word is a Unicode word segment, which makes sense in every language.",
    "spacy": "A word is a spaCy token, as in datatrove.",
}


@dataclass(frozen=True)
class Rule:
    """A rule of a stage: its condition, how many documents it dropped, and examples of these."""

    name: str
    condition: str
    measure: str
    threshold: float | None
    looser: str | None
    dropped: int
    width: str
    samples: list[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """A duplicate beside the document that was kept instead; ``note`` says what is not shown."""

    kept: Mapping[str, Any]
    dropped: Mapping[str, Any]
    similarity: float | None
    texts: SideBySide
    note: str


@dataclass(frozen=True)
class Measure:
    """A measured quantity: its histogram (None if there is none) and the rules on it."""

    name: str
    meaning: str
    histogram: Histogram | None
    rules: list[Rule]
    missing: int


@dataclass(frozen=True)
class Stage:
    """A stage with its bar in the funnel (SVG percentages of the widest stage) and its details."""

    anchor: str
    name: str
    kind: str
    counts: dict[str, int]
    bytes_in: float | None
    bytes_kept: float | None
    bars: list[tuple[str, str, str]]
    rules: list[Rule]
    decisive: list[Measure]
    other: list[Measure]
    facts: list[tuple[str, str]]
    composition: list[Source]
    """What a selection did to the sources, in ``composition_unit``."""
    composition_unit: str
    detail_means: str
    changes: list[tuple[dict[str, Any], Diff]]
    cpu_seconds: float | None
    cpu_share: float | None
    hidden_rules: int


@dataclass(frozen=True)
class Source:
    """A group of documents and its share of the text, before and after, in words and widths."""

    name: str
    documents: int
    kept: int
    bytes_in: float
    bytes_kept: float
    before: str
    after: str
    before_width: str
    after_width: str


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any, limit: int | None = None) -> list[Mapping[str, Any]]:
    """The mappings in a list, at most ``limit``."""
    found = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    return found[:limit]


def whole(value: Any) -> int:
    """The value as a count; 0 for anything that is not a finite number."""
    number = as_number(value)
    return int(number) if number is not None and math.isfinite(number) else 0


def page(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of the template."""
    counts = {key: whole(n) for key, n in mapping(manifest.get("counts")).items()}
    raw_stages = items(manifest.get("stages"))
    bytes_kept = mapping(manifest.get("counts")).get("bytes_kept")
    stages = _stages(raw_stages, _widest(raw_stages, counts.get("in", 0)), bytes_kept)
    reasons = _reasons(stages)
    timing = mapping(manifest.get("timing"))
    words = str(manifest.get("words") or "not recorded")
    errors = mapping(manifest.get("errors"))
    return {
        "manifest": manifest,
        "run": str(manifest.get("run") or "RUN"),
        "counts": {
            key: counts.get(key, 0) for key in ("in", "kept", "dropped", "failed", "changed")
        },
        "bytes_in": mapping(manifest.get("counts")).get("bytes_in"),
        "bytes_kept": bytes_kept,
        "verdict": verdict(manifest),
        "why": why(reasons, counts.get("dropped", 0)),
        "input_bar": _segments(
            [("before", counts.get("in", 0))], _widest(raw_stages, counts.get("in", 0))
        ),
        "alarms": alarms(manifest),
        "reasons": [(s, rule, _width(rule.dropped, reasons[0][1].dropped)) for s, rule in reasons],
        "words": words,
        "words_meaning": _WORDS.get(words, "What counts as a word is unknown for this run."),
        "stages": stages,
        "hidden_stages": max(0, len(raw_stages) - STAGES),
        "sources": _sources(mapping(manifest.get("sources"))),
        "kept_samples": items(manifest.get("kept_samples"), SAMPLES + 1),
        "errors": items(errors.get("samples"), ERRORS),
        "error_count": whole(errors.get("count")),
        "timing": timing,
        "time_parts": _time_parts(timing),
        "phases": [
            {**phase, "stages": ", ".join(map(str, _list(phase.get("stages"))))}
            for phase in items(manifest.get("phases"), FILES)
        ],
        "inputs": items(manifest.get("inputs"), FILES),
        "input_count": len(items(manifest.get("inputs"))),
        "outputs": items(manifest.get("outputs"), FILES),
        "output_count": len(items(manifest.get("outputs"))),
        "notes": [str(note) for note in _list(manifest.get("notes"))[:NOTES]],
        "versions": [(str(k), str(v)) for k, v in mapping(manifest.get("versions")).items()][
            :FILES
        ],
        "commands": commands(manifest, reasons),
    }


def verdict(manifest: Mapping[str, Any]) -> str:
    """What went in and what came out, in one sentence."""
    counts = mapping(manifest.get("counts"))
    total, kept = whole(counts.get("in")), whole(counts.get("kept"))
    if not total:
        return "No documents went in."
    documents = "document" if total == 1 else "documents"
    sentence = f"{count(kept)} of {count(total)} {documents} kept ({percent(kept, total)})"
    if as_number(counts.get("bytes_in")) and as_number(counts.get("bytes_kept")) is not None:
        sentence += f": {size(counts['bytes_in'])} of text became {size(counts['bytes_kept'])}"
    return sentence + "."


def why(reasons: Sequence[tuple[Stage, Rule]], dropped: int) -> str:
    """The rules that dropped most, in one sentence; empty if nothing was dropped by a rule."""
    named = [
        f"{plain(stage.name, 60)} ({rule.condition}: {percent(rule.dropped, dropped)})"
        for stage, rule in reasons[:3]
    ]
    if not named:
        return ""
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    return f"Documents were dropped mainly by {listed}."


def alarms(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    found = []
    status = str(manifest.get("status") or "not recorded")
    if status != "finished":
        found.append(
            f"The run has not finished (status: {plain(status, 40)}). The numbers are those so far."
        )
    counts = mapping(manifest.get("counts"))
    total, kept, dropped, failed = (
        whole(counts.get(key)) for key in ("in", "kept", "dropped", "failed")
    )
    came = total + whole(counts.get("created"))
    if came != kept + dropped + failed:
        found.append(
            f"The documents do not add up: {count(came)} came in, but {count(kept)} kept, "
            f"{count(dropped)} dropped and {count(failed)} failed make "
            f"{count(kept + dropped + failed)}."
        )
    if failed:
        records = "record" if failed == 1 else "records"
        found.append(f"{count(failed)} {records} failed: see Failed records.")
    return found


def commands(
    manifest: Mapping[str, Any], reasons: Sequence[tuple[Stage, Rule]]
) -> list[tuple[str, str]]:
    """(what it is for, command) with an id and a threshold of this run where it has any."""
    run = shlex.quote(_bounded(manifest.get("run") or "RUN", 1000))
    dropped = _first_id(sample for _, rule in reasons for sample in rule.samples)
    kept = _first_id(items(manifest.get("kept_samples")))
    found = []
    if dropped is not None:
        text = "Follow one dropped document through the stages"
        found.append((text, f"tamis explain {run} {_argument(dropped)}"))
    elif kept is not None:
        text = "Follow one document through the stages"
        found.append((text, f"tamis explain {run} {_argument(kept)}"))
    movable = next((pair for pair in reasons if pair[1].looser is not None), None)
    if movable is not None:
        stage, rule = movable
        name, after = _bounded(f"{stage.name}.{rule.name}"), rule.looser
        text = (
            f"See what another threshold would keep ({plain(name, 80)} is {rule.threshold:g} now)"
        )
        if mapping(manifest.get("recipe")).get("measures") not in ("keep", "all"):
            text += "; needs a run with “measures: keep” in its recipe"
        found.append((text, f"tamis retune {run} --set {shlex.quote(f'{name}={after}')}"))
    found.append(("Make this page again", f"tamis report {run}"))
    return found


def _first_id(samples: Iterable[Mapping[str, Any]]) -> str | None:
    """The first id that can be pasted into a shell: short, and without invisible characters."""
    ids = (str(sample["id"]) for sample in samples if sample.get("id"))
    return next((name for name in ids if plain(name, 200) == name and "\n" not in name), None)


def _looser(
    rule: Mapping[str, Any], threshold: float | None, measures: Iterable[Mapping[str, Any]]
) -> str | None:
    """A threshold that keeps more documents: a histogram edge beyond the present one, rounded."""
    if threshold is None or not math.isfinite(threshold):
        return None
    measure = next((m for m in measures if m.get("name") == rule.get("measure")), {})
    edges = [as_number(edge) for edge in _list(mapping(measure.get("histogram")).get("edges"))]
    finite = sorted(edge for edge in edges if edge is not None and math.isfinite(edge))
    below = str(rule.get("comparison", "")).startswith("<")
    beyond = [e for e in finite if (e < threshold if below else e > threshold)]
    # A fifth away is far enough to see a difference.
    far = [e for e in beyond if abs(e - threshold) >= 0.2 * abs(threshold)] or beyond
    if not far:
        return None
    after = far[-1] if below else far[0]
    rounded = f"{after:.0f}" if measure.get("unit") == "count" else f"{float(f'{after:.2g}'):g}"
    return None if float(rounded) == threshold else rounded


def _widest(raw: Sequence[Mapping[str, Any]], total: int) -> int:
    """The most documents that the run held at any point: the full width of the funnel."""
    return max([total, *(whole(stage.get(key)) for stage in raw for key in ("in", "kept"))])


def _stages(raw: Sequence[Mapping[str, Any]], widest: int, bytes_kept: Any) -> list[Stage]:
    """The stages; what one kept, where that is not on record, is what the next one got."""
    seconds = sum(as_number(stage.get("cpu_seconds")) or 0.0 for stage in raw)
    following = [*(stage.get("bytes_in") for stage in raw[1:]), bytes_kept]
    return [
        _stage(index, {"bytes_kept": after, **stage}, widest, seconds)
        for index, (stage, after) in enumerate(zip(raw[:STAGES], following, strict=False), 1)
    ]


def _stage(index: int, raw: Mapping[str, Any], widest: int, all_seconds: float) -> Stage:
    counts = {key: whole(raw.get(key)) for key in ("in", "kept", "dropped", "changed", "failed")}
    rules = _rules(items(raw.get("rules"), RULES), items(raw.get("measures"), MEASURES))
    measures = [_measure(measure, rules, raw) for measure in items(raw.get("measures"), MEASURES)]
    decisive = [m for m in measures if m.histogram and any(rule.dropped for rule in m.rules)]
    changes = [
        (change, diff(_text(change.get("before")), _text(change.get("after"))))
        for change in map(dict, items(raw.get("changes"), CHANGES))
    ]
    cpu = as_number(raw.get("cpu_seconds"))
    name = str(raw.get("name") or raw.get("kind") or f"stage {index}")
    kind = str(raw.get("kind") or "")
    return Stage(
        anchor=f"stage-{index}",
        name=name,
        kind="" if kind == name else kind,
        counts=counts,
        bytes_in=as_number(raw.get("bytes_in")),
        bytes_kept=as_number(raw.get("bytes_kept")),
        bars=_segments([(k, counts[k]) for k in ("kept", "dropped", "failed")], widest),
        rules=rules,
        decisive=decisive,
        other=[m for m in measures if m not in decisive and m.histogram],
        facts=[
            (str(k).replace("_", " "), fact(v))
            for k, v in mapping(raw.get("facts")).items()
            if k != COMPOSITION
        ][:FACTS],
        composition=_composition(raw),
        composition_unit=str(_composed(raw).get("unit") or ""),
        detail_means=str(raw.get("detail_means") or ""),
        changes=changes,
        cpu_seconds=cpu,
        cpu_share=share(cpu, all_seconds),
        hidden_rules=max(0, len(items(raw.get("rules"))) - RULES),
    )


def _composed(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(raw.get("facts")).get(COMPOSITION))


def _composition(raw: Mapping[str, Any]) -> list[Source]:
    """The sources before and after a stage that says so in its facts; none if there is one."""
    sources = {
        str(name) or "no source": {
            "in": mapping(one).get("documents"),
            "kept": mapping(one).get("kept_documents"),
            "bytes_in": mapping(one).get("amount"),
            "bytes_kept": mapping(one).get("kept_amount"),
        }
        for name, one in mapping(_composed(raw).get("sources")).items()
    }
    return _sources(sources) if len(sources) > 1 else []


def _rules(raw: Sequence[Mapping[str, Any]], measures: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """The rules of a stage, the one that dropped most first."""
    most = max((whole(rule.get("dropped")) for rule in raw), default=0)
    rules = [
        Rule(
            name=str(rule.get("rule") or ""),
            condition=_condition(rule),
            measure=str(rule.get("measure") or ""),
            threshold=as_number(rule.get("threshold")),
            looser=_looser(rule, as_number(rule.get("threshold")), measures),
            dropped=whole(rule.get("dropped")),
            width=_width(whole(rule.get("dropped")), most),
            samples=[_sample(sample) for sample in items(rule.get("samples"), SAMPLES)],
        )
        for rule in raw
    ]
    return sorted(rules, key=lambda rule: -rule.dropped)


def _sample(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A sample with its text as HTML, passages marked, and its comparison if it has one."""
    text = _text(raw.get("text"))
    return {**raw, "html": _marked(text, raw), "comparison": _comparison(raw)}


def _marked(text: str, raw: Mapping[str, Any]) -> Markup:
    """The text with the passages that a stage found marked."""
    pieces, end = [Markup("… ") if whole(raw.get("skipped")) else Markup("")], 0
    for mark in _list(raw.get("marks"))[:MARKS]:
        if not isinstance(mark, (list, tuple)) or len(mark) != 2:
            continue
        begin, until = (min(whole(one), SAMPLE_LIMIT) for one in mark)
        if end <= begin < until <= len(text):
            found = shown(text[begin:until], SAMPLE_LIMIT)
            pieces += [shown(text[end:begin], SAMPLE_LIMIT), MARK.format(found)]
            end = until
    return Markup("").join([*pieces, shown(text[end:], max(0, SAMPLE_LIMIT - end))])


def _comparison(raw: Mapping[str, Any]) -> Comparison | None:
    pair = mapping(raw.get("pair"))
    kept, dropped = mapping(pair.get("kept")), mapping(pair.get("this"))
    if not kept or not dropped:
        return None
    texts = side_by_side(_text(kept.get("text")), _text(dropped.get("text")))
    skipped = whole(pair.get("skipped"))
    if pair.get("identical"):
        note = f"The two texts are equal: {count(kept.get('characters'))} characters."
    elif not any(row.kind == "changed" for row in texts.rows):
        note = "The difference lies beyond the part of the texts that is on record."
    else:
        note = f"The first {count(skipped)} characters are equal." if skipped else ""
    return Comparison(kept, dropped, as_number(pair.get("similarity")), texts, note)


def _condition(rule: Mapping[str, Any]) -> str:
    threshold = as_number(rule.get("threshold"))
    if threshold is None:
        return f"{plain(str(rule.get('measure') or ''), 80)}: off"
    shown = f"{threshold:,.0f}" if threshold == round(threshold, 0) else f"{threshold:.6g}"
    shown = compact(threshold) if math.isinf(threshold) else shown
    return f"{plain(str(rule.get('measure') or ''), 80)} {rule.get('comparison') or ''} {shown}"


def _measure(raw: Mapping[str, Any], rules: Iterable[Rule], stage: Mapping[str, Any]) -> Measure:
    name = str(raw.get("name") or "")
    limits = []
    for rule in items(stage.get("rules"), RULES):
        threshold = as_number(rule.get("threshold"))
        if rule.get("measure") == name and threshold is not None:
            limits.append((str(rule.get("comparison") or "<"), threshold))
    histogram = mapping(raw.get("histogram"))
    return Measure(
        name=name,
        meaning=str(raw.get("meaning") or ""),
        histogram=draw(histogram, limits, integers=raw.get("unit") == "count"),
        rules=[rule for rule in rules if rule.measure == name],
        missing=whole(histogram.get("missing")),
    )


def _reasons(stages: Sequence[Stage]) -> list[tuple[Stage, Rule]]:
    """The rules that dropped most, over all stages."""
    found = [(stage, rule) for stage in stages for rule in stage.rules if rule.dropped]
    return sorted(found, key=lambda pair: -pair[1].dropped)[:REASONS]


def _sources(raw: Mapping[str, Any]) -> list[Source]:
    """The largest sources by text that went in; the others together, last."""
    keys = ("in", "kept", "bytes_in", "bytes_kept")
    rows = [(str(name), [whole(mapping(s).get(key)) for key in keys]) for name, s in raw.items()]
    rows.sort(key=lambda row: (-row[1][2], -row[1][0], row[0]))
    if len(rows) > SOURCES:
        rest = [
            sum(column) for column in zip(*(row[1] for row in rows[SOURCES - 1 :]), strict=True)
        ]
        rows = [*rows[: SOURCES - 1], (f"{len(rows) - SOURCES + 1} other sources", rest)]
    before = sum(row[1][2] for row in rows)
    after = sum(row[1][3] for row in rows)
    largest = max(
        (
            share(part, all_) or 0.0
            for _, n in rows
            for part, all_ in ((n[2], before), (n[3], after))
        ),
        default=0.0,
    )
    return [
        Source(
            name=name,
            documents=n[0],
            kept=n[1],
            bytes_in=n[2],
            bytes_kept=n[3],
            before=percent(n[2], before),
            after=percent(n[3], after),
            before_width=_width(share(n[2], before) or 0.0, largest),
            after_width=_width(share(n[3], after) or 0.0, largest),
        )
        for name, n in rows
    ]


def _time_parts(timing: Mapping[str, Any]) -> list[tuple[str, float, str, str]]:
    """(name, CPU seconds, x, width) of each activity, and of what is left, in one stacked bar."""
    parts = [
        (key, as_number(timing.get(key)) or 0.0) for key in ("read", "stages", "write", "engine")
    ]
    total = as_number(timing.get("cpu_seconds")) or 0.0
    rest = total - sum(seconds for _, seconds in parts)
    if rest > 0.005 * total:
        parts.append(("other", rest))
    bars = _segments(parts, sum(seconds for _, seconds in parts))
    widths = {name: (x, width) for name, x, width in bars}
    return [(name, seconds, *widths[name]) for name, seconds in parts if name in widths]


def _segments(parts: Iterable[tuple[str, float]], whole_: float) -> list[tuple[str, str, str]]:
    """(name, x, width) of the parts of a stacked bar, in SVG percentages, without empty parts."""
    at = 0.0
    bars = []
    for name, amount in parts:
        if amount > 0 and whole_ > 0:
            # Never too thin to be seen.
            width = _width(max(amount, 0.003 * whole_), whole_)
            bars.append((name, f"{min(100 * at / whole_, 99.7):.3f}%", width))
            at += amount
    return bars


def _width(part: float, whole_: float) -> str:
    return f"{100 * part / whole_:.3f}%" if whole_ else "0%"


def fact(value: Any) -> str:
    """A fact as a reader sees it: numbers rounded, all else but text as JSON."""
    if as_number(value) is not None:
        number = float(value)
        return count(number) if number == round(number) else f"{number:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _argument(value: str) -> str:
    """A string from data as an argument of a shell command, never read as an option."""
    quoted = shlex.quote(value)
    return f"-- {quoted}" if value.startswith("-") else quoted


def _bounded(value: Any, limit: int = 200) -> str:
    return str(value)[:limit]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
