"""The report of a run: what it says, and that nothing in a manifest can make it do anything."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.pipeline.report import figures, render, write_report
from tamis.pipeline.report.changes import LINES_SHOWN, diff
from tamis.pipeline.report.histogram import BOTTOM, LEFT, RIGHT, TOP, draw

VOID = {"meta", "br", "hr", "img", "input", "link"}
MANIFEST: dict[str, Any] = {
    "tamis": "0.1.0",
    "status": "finished",
    "run": "runs/my crawl",
    "recipe": {"measures": "keep"},
    "recipe_yaml": "stages:\n  - gopher_quality: {min_words: 50}\n",
    "words": "whitespace",
    "started": "2026-11-21T17:00:00Z",
    "finished": "2026-11-21T17:01:23Z",
    "versions": {"python": "3.11.9", "pyarrow": "26.0.0"},
    "workers": 2,
    "inputs": [
        {
            "path": "crawl/a.jsonl.gz",
            "source": "web",
            "bytes": 812345,
            "fingerprint": "xxh3:9f3c",
            "format": "jsonl.gz",
        }
    ],
    "notes": ["a.jsonl.gz is a single gzip stream: one task"],
    "counts": {
        "in": 12345,
        "kept": 9000,
        "dropped": 3340,
        "failed": 5,
        "changed": 77,
        "bytes_in": 231_000_000,
        "bytes_kept": 140_000_000,
    },
    "sources": {
        "web": {"in": 12000, "kept": 8900, "bytes_in": 200e6, "bytes_kept": 105e6},
        "books": {"in": 345, "kept": 100, "bytes_in": 31e6, "bytes_kept": 35e6},
    },
    "stages": [
        {
            "name": "quality",
            "kind": "gopher_quality",
            "in": 12345,
            "kept": 9010,
            "dropped": 3330,
            "failed": 5,
            "bytes_in": 231_000_000,
            "bytes_kept": 141_000_000,
            "cpu_seconds": 21.5,
            "rules": [
                {
                    "rule": "min_words",
                    "comparison": "<",
                    "measure": "words",
                    "threshold": 50.0,
                    "dropped": 3300,
                    "samples": [
                        {
                            "id": "doc 7",
                            "source": "web",
                            "value": 23,
                            "text": "Click here & log in",
                            "skipped": 7,
                            "marks": [[6, 10], [13, 16]],
                        }
                    ],
                },
                {
                    "rule": "max_words",
                    "comparison": ">",
                    "measure": "words",
                    "threshold": 100000.0,
                    "dropped": 30,
                    "samples": [],
                },
            ],
            "measures": [
                {
                    "name": "words",
                    "unit": "count",
                    "meaning": "words in the document",
                    "low": 0.0,
                    "high": None,
                    "histogram": {
                        "edges": [0, 1, 10, 100, 1000, 10000, 100000, 1000000],
                        "kept": [0, 0, 1000, 6000, 2000, 10, 0],
                        "dropped": [100, 1200, 2000, 0, 0, 0, 30],
                        "missing": 4,
                    },
                }
            ],
        },
        {
            "name": "line_repairs",
            "kind": "line_repairs",
            "in": 9010,
            "kept": 9010,
            "dropped": 0,
            "changed": 77,
            "bytes_in": 141_000_000,
            "bytes_kept": 140_900_000,
            "cpu_seconds": 4.0,
            "changes": [{"id": "doc 9", "before": "one  two\nthree", "after": "one two\nthree"}],
        },
        {
            "name": "minhash",
            "kind": "minhash",
            "detail_means": "copy of",
            "in": 9010,
            "kept": 9000,
            "dropped": 10,
            "bytes_in": 140_900_000,
            "bytes_kept": 140_000_000,
            "cpu_seconds": 9.5,
            "facts": {"documents": 9010, "clusters": 8, "duplicates": 10},
            "rules": [
                {
                    "rule": "duplicates",
                    "comparison": ">",
                    "measure": "duplicate",
                    "threshold": 0.0,
                    "dropped": 10,
                    "samples": [
                        {"id": "doc 11", "value": 1, "text": "x", "detail": "d3"},
                        {
                            "id": "doc 12",
                            "value": 1,
                            "text": "one two",
                            "detail": "doc 1",
                            "pair": {
                                "similarity": 0.75,
                                "kept": {
                                    "id": "doc 1",
                                    "url": "https://a.example/",
                                    "text": "one two three",
                                    "characters": 813,
                                },
                                "this": {
                                    "id": "doc 12",
                                    "url": None,
                                    "text": "one two four",
                                    "characters": 812,
                                },
                                "skipped": 800,
                                "identical": False,
                            },
                        },
                    ],
                }
            ],
            "measures": [],
        },
    ],
    "kept_samples": [{"id": "doc 1", "source": "books", "text": "Call me Ishmael."}],
    "errors": {
        "count": 3,
        "samples": [
            {"file": "crawl/a.jsonl.gz", "position": "line 412", "reason": "no", "excerpt": "{"}
        ],
    },
    "phases": [
        {"name": "1", "stages": ["quality"], "tasks": 4, "wall_seconds": 60, "cpu_seconds": 30}
    ],
    "timing": {
        "wall_seconds": 83,
        "cpu_seconds": 50,
        "read": 6,
        "write": 4,
        "stages": 35,
        "engine": 2,
        "compile_seconds": 12.5,
    },
    "peak_memory_bytes": 612_000_000,
    "outputs": [{"path": "data/0.parquet", "documents": 9000, "bytes": 50e6, "xxh3": "c0ffee"}],
}


class Page(HTMLParser):
    """Elements with their attributes, the visible text, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        target = {"script": self.scripts, "style": self.styles}.get(inside, self.pieces)
        target.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:50]}")


def assert_harmless(html: str) -> Page:
    """No script, style, handler, address or hidden character but the page's own."""
    html.encode("utf-8")
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert [tag for tag, _ in page.elements].count("style") == 1
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for name, own in (("script", page.scripts), ("style", page.styles)):
        digest = hashlib.sha256("".join(own).encode()).digest()
        assert f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    targets = {a["id"] for _, a in page.elements if "id" in a}
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "form", "base", "img", "link", "input"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"style", "src", "srcset", "action", "data"}
            if name == "href":
                assert value is not None
                assert value[1:] in targets and value[0] == "#"
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html
    )
    return page


def leaves(value: Any, replace: Callable[[Any], Any]) -> Any:
    """The value with every string (and key that comes from data) replaced."""
    if isinstance(value, dict):
        return {k: leaves(v, replace) for k, v in value.items()}
    if isinstance(value, list):
        return [leaves(v, replace) for v in value]
    return replace(value) if isinstance(value, str) else value


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a manifest there is something that could be absent or of another type."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*at, key)
        if isinstance(inner, (dict, list)):
            yield from paths(inner, (*at, key))


def test_it_says_what_happened() -> None:
    page = assert_harmless(render(MANIFEST))
    for expected in (
        "9,000 of 12,345 documents kept (72.9%): 231 MB of text became 140 MB.",
        "mainly by quality (words < 50: 98.8%), quality (words > 100,000: 0.9%) and minhash",
        "Word profile whitespace",
        "words = 23",
        "Click here & log in",
        "3,300 of 12,345 dropped",
        "4 documents have no value.",
        "copy of d3",
        "3 records could not be read or handled",
        "line 412",
        "and 2 more records.",
        "1 min 23 s",
        "612 MB",
        "12.5 s",
        "2026-11-21 17:01:23 UTC",
        "xxh3:9f3c",
        "c0ffee",
        "min_words: 50",
        "a.jsonl.gz is a single gzip stream: one task",
        "Call me Ishmael.",
    ):
        assert expected in page.text


def test_text_that_a_stage_kept_is_what_the_next_one_got() -> None:
    manifest = copy.deepcopy(MANIFEST)
    for stage in manifest["stages"]:
        del stage["bytes_kept"]
    manifest["stages"][1]["bytes_in"] = 141_000_000
    text = Page(render(manifest)).text
    assert re.search(
        r"quality 9,010 141 MB .* line_repairs 9,010 141 MB .* minhash 9,000 140 MB", text
    )


def test_sources_before_and_after() -> None:
    page = Page(render(MANIFEST))
    assert re.search(r"web \s*86.6% \s*75.0% \s*12,000 \s*8,900 \s*74.2%", page.text)
    assert re.search(r"books \s*13.4% \s*25.0% \s*345 \s*100 \s*29.0%", page.text)


def test_commands_name_a_document_and_a_looser_threshold_of_this_run() -> None:
    text = Page(render(MANIFEST)).text
    assert "tamis explain 'runs/my crawl' 'doc 7'" in text
    assert "quality.min_words is 50 now" in text
    assert "tamis retune 'runs/my crawl' --set quality.min_words=10" in text
    assert "needs a run with" not in text
    without = Page(render({**MANIFEST, "recipe": {}})).text
    assert "needs a run with “measures: keep” in its recipe" in without


def test_commands_survive_a_shell() -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["run"] = "it's; rm -rf $HOME `x`"
    samples = manifest["stages"][0]["rules"][0]["samples"]
    samples[:] = [{"id": "\u202ehidden"}, {"id": "x" * 500}, {"id": "--write 'a' $(b)"}]
    html = render(manifest)
    command = next(line for line in re.findall(r"<code>(tamis explain .*?)</code>", html))
    command = re.sub("&#39;", "'", re.sub("&#34;", '"', command))
    assert shlex.split(command) == [
        "tamis", "explain", manifest["run"], "--", "--write 'a' $(b)",
    ]  # fmt: skip


def test_an_empty_run() -> None:
    for manifest in ({}, {"status": "finished", "counts": {"in": 0, "kept": 0, "dropped": 0}}):
        page = assert_harmless(render(manifest))
        assert "No documents went in." in page.text
    assert "has not finished" not in page.text


@pytest.mark.parametrize("other", ["absent", None, 7, "text", [], {}, [None], float("nan")])
def test_any_key_may_be_absent_or_of_another_type(other: Any) -> None:
    for path in paths(MANIFEST):
        manifest = copy.deepcopy(MANIFEST)
        parent = manifest
        for key in path[:-1]:
            parent = parent[key]
        if other == "absent":
            del parent[path[-1]]
        else:
            parent[path[-1]] = other
        assert render(manifest).startswith("<!doctype html>"), path


def test_alarms() -> None:
    assert "5 records failed" in Page(render(MANIFEST)).text
    counts = {**MANIFEST["counts"], "kept": 8000}
    text = Page(render({**MANIFEST, "counts": counts})).text
    assert "do not add up: 12,345 came in, but 8,000 kept, 3,340 dropped and 5 failed" in text
    assert "status: running" in Page(render({**MANIFEST, "status": "running"})).text
    assert "add up" not in Page(render(MANIFEST)).text
    counts = {**MANIFEST["counts"], "created": 1000, "kept": 10000}
    assert "add up" not in Page(render({**MANIFEST, "counts": counts})).text


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"' style='x' </title></style></pre>"
    "{{ 7*7 }}<!-- ]]> http://example.org/x "
    "\u202etxt.exe\u2066\x00\x1b[31m\x7f\u0085\ud800\ufeff\u2028"
)


def hostile_manifest(text: str) -> dict[str, Any]:
    manifest = leaves(MANIFEST, lambda old: text if old not in ("<", ">") else old)
    manifest["sources"] = {text + str(i): s for i, s in enumerate(MANIFEST["sources"].values())}
    manifest["versions"] = {text: text}
    for stage in manifest["stages"]:
        stage["facts"] = {text: text, "list": [text], "nested": {text: text}}
    return manifest


def test_hostile_strings_do_nothing_and_are_visible() -> None:
    page = assert_harmless(render(hostile_manifest(HOSTILE)))
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    for code in ("U+202E", "U+2066", "U+0000", "U+001B", "U+0085", "U+D800", "U+FEFF", "U+2028"):
        assert code in page.text


@settings(deadline=None, max_examples=30)
@given(st.text(alphabet=st.characters(), max_size=40))
def test_any_text_is_harmless(text: str) -> None:
    assert_harmless(render(hostile_manifest(text)))


def test_long_strings_and_long_lists_are_bounded() -> None:
    usual = len(render(MANIFEST))
    long_strings = render(hostile_manifest("<\u202e" * 500_000))
    assert len(long_strings) < usual + 1_500_000
    manifest = copy.deepcopy(MANIFEST)
    stage = manifest["stages"][0]
    stage["rules"][0]["samples"] *= 1000
    stage["rules"] *= 100
    stage["measures"] *= 100
    manifest["stages"] *= 40
    manifest["stages"][3]["rules"] = manifest["stages"][0]["rules"]
    manifest["inputs"] *= 10_000
    manifest["outputs"] *= 10_000
    manifest["kept_samples"] *= 10_000
    manifest["notes"] *= 10_000
    manifest["sources"] = {f"s{i}": {"in": 1, "bytes_in": i} for i in range(10_000)}
    html = render(manifest)
    assert "and 9,950 more files." in html
    assert "9977 other sources" in html
    assert "and 80 more stages." in html
    assert len(html) < 15_000_000


def test_the_same_manifest_gives_the_same_file(tmp_path: Path) -> None:
    again = json.loads(json.dumps(MANIFEST))
    first = write_report(MANIFEST, tmp_path / "report.html")
    second = write_report(again, tmp_path / "second.html")
    assert first.read_bytes() == second.read_bytes() == render(MANIFEST).encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "second.html"]


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (figures.count, 1234567, "1,234,567"),
        (figures.count, None, "–"),
        (figures.compact, 0.25, "0.25"),
        (figures.compact, 1500, "1.5k"),
        (figures.compact, 100000, "100k"),
        (figures.value, 23.0, "23"),
        (figures.value, 0.123456, "0.1235"),
        (figures.value, 12345.678, "12,345.7"),
        (figures.value, float("inf"), "∞"),
        (figures.value, float("nan"), "–"),
        (figures.size, 812, "812 B"),
        (figures.size, 1500, "1.50 kB"),
        (figures.size, 999_999, "1.00 MB"),
        (figures.size, 231_000_000, "231 MB"),
        (figures.size, 2_048e9, "2.05 TB"),
        (figures.duration, 0.04, "40 ms"),
        (figures.duration, 5.9, "5.9 s"),
        (figures.duration, 59.97, "1 min"),
        (figures.duration, 83, "1 min 23 s"),
        (figures.duration, 11520, "3 h 12 min"),
        (figures.duration, 187200, "2 d 4 h"),
        (figures.moment, "2026-11-21T17:00:06Z", "2026-11-21 17:00:06 UTC"),
        (figures.moment, "yesterday", "yesterday"),
    ],
)
def test_figures(write: Callable[[Any], str], value: Any, expected: str) -> None:
    assert write(value) == expected


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 10, "0%"),
        (1, 100_000, "<0.1%"),
        (1, 3, "33.3%"),
        (99_999, 100_000, ">99.9%"),
        (7, 7, "100%"),
        (1, 0, "–"),
        (None, 5, "–"),
    ],
)
def test_percent_is_nothing_or_all_only_if_it_is(part: Any, whole: Any, expected: str) -> None:
    assert figures.percent(part, whole) == expected


def test_text_keeps_what_has_a_shape() -> None:
    persian, emoji, arabic_sign = "می\u200cخواهم", "👩\u200d🚀", "\u0600"
    for text in (persian, emoji, arabic_sign, "a\u00a0b", "日本\u3000語", "one\r\ntwo"):
        assert "hidden-character" not in figures.shown(text, 100)
    assert "U+200C" in figures.shown(persian, 100, exact=True)
    assert "U+00A0" in figures.shown("a\u00a0b", 100, exact=True)
    assert "U+000D" in figures.shown("one\r\ntwo", 100, exact=True)
    assert "… 2 more characters" in figures.shown("abcde", 3)


def linear(kept: list[int], dropped: list[int]) -> dict[str, Any]:
    edges = [i / len(kept) for i in range(len(kept) + 1)]
    return {"edges": edges, "kept": kept, "dropped": dropped}


def test_histogram_on_a_linear_axis() -> None:
    drawing = draw(linear([16, 4, 0, 0, 1], [0, 0, 4, 0, 0]), [(">", 0.5)])
    assert drawing is not None
    (line,) = drawing.thresholds
    middle = (LEFT + RIGHT) / 2
    assert (line.x, line.dropped_x, line.dropped_width) == (middle, middle, RIGHT - middle)
    heights = [bar.kept_height + bar.dropped_height for bar in drawing.bars]
    full = BOTTOM - TOP
    assert heights == pytest.approx([full, full / 2, full / 2, full / 4])
    assert [bar.dropped_height > 0 for bar in drawing.bars] == [False, False, True, False]
    assert drawing.bars[0].title == "0 to 0.2: 16 kept, 0 dropped"
    assert [tick.label for tick in drawing.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_histogram_on_a_logarithmic_axis() -> None:
    histogram = MANIFEST["stages"][0]["measures"][0]["histogram"]
    drawing = draw(histogram, [("<", 50.0), (">", 100000.0)], integers=True)
    assert drawing is not None
    # Seven bins, [0, 1) and six decades, equally wide.
    step = (RIGHT - LEFT) / 7
    assert [bar.x for bar in drawing.bars] == pytest.approx([LEFT + i * step for i in range(7)])
    low, high = drawing.thresholds
    assert low.x == pytest.approx(LEFT + step * (2 + 0.69897), abs=0.01)
    assert (low.dropped_x, low.dropped_width) == pytest.approx((LEFT, low.x - LEFT))
    # Counts above 100,000 begin at 100,001.
    assert high.x == pytest.approx(LEFT + 6 * step, abs=0.01)
    assert high.dropped_x + high.dropped_width == RIGHT
    assert [tick.label for tick in drawing.x_ticks] == ["0", "1", "100", "10k", "1M"]


def test_histogram_on_both_sides_of_zero() -> None:
    edges = [-1000, -100, -10, -1, 0, 1, 10, 100, 1000]
    histogram = {"edges": edges, "kept": [1, 1, 1, 1, 2, 1, 1, 1], "dropped": [0] * 8}
    drawing = draw(histogram, [("<", -10.0)])
    assert drawing is not None
    step = (RIGHT - LEFT) / 8
    assert [bar.x for bar in drawing.bars] == pytest.approx([LEFT + i * step for i in range(8)])
    assert drawing.thresholds[0].x == pytest.approx(LEFT + 2 * step)
    assert [tick.label for tick in drawing.x_ticks] == [
        *("-1k", "-100", "-10", "-1", "0", "1", "10", "100", "1k")
    ]


def test_a_count_of_zero_is_on_the_kept_side_of_more_than_zero() -> None:
    histogram = {"edges": [0, 1, 2], "kept": [9, 0], "dropped": [0, 4]}
    drawing = draw(histogram, [(">", 0.0)], integers=True)
    assert drawing is not None
    kept, dropped = drawing.bars
    assert kept.x + kept.width <= drawing.thresholds[0].x == dropped.x
    assert [tick.label for tick in drawing.x_ticks] == ["0", "1", "2"]


def test_bins_of_counts_go_from_integer_to_integer() -> None:
    edges = [0, 1, 4 / 3, 16 / 9, 64 / 27, 256 / 81]
    histogram = {"edges": edges, "kept": [0, 7, 0, 5, 3], "dropped": [2, 0, 0, 0, 0]}
    drawing = draw(histogram, [], integers=True)
    assert drawing is not None
    assert [bar.title for bar in drawing.bars] == [
        "0: 0 kept, 2 dropped",
        "1: 7 kept, 0 dropped",
        "2: 5 kept, 0 dropped",
        "3: 3 kept, 0 dropped",
    ]


def test_thresholds_outside_the_bins_stay_on_the_drawing() -> None:
    drawing = draw(linear([5, 5, 5], [0, 0, 0]), [("<", -3.0), (">", 40.0), (">", float("inf"))])
    assert drawing is not None
    assert [line.x for line in drawing.thresholds] == [LEFT, RIGHT]
    assert [line.dropped_width for line in drawing.thresholds] == [0, 0]


@pytest.mark.parametrize(
    "histogram",
    [
        {},
        linear([0, 0], [0, 0]),
        {"edges": [0, 1], "kept": [1, 2], "dropped": [0, 0]},
        {"edges": [0, 2, 1], "kept": [1, 2], "dropped": [0, 0]},
        {"edges": [0, "x", 1], "kept": [1, 2], "dropped": [0, 0]},
    ],
)
def test_no_drawing_without_documents_or_proper_bins(histogram: dict[str, Any]) -> None:
    assert draw(histogram, [("<", 0.5)]) is None


def test_an_open_last_bin_is_drawn_like_its_neighbour() -> None:
    drawing = draw({"edges": [0, 1, 2, None], "kept": [1, 1, 1], "dropped": [0, 0, 0]}, [])
    assert drawing is not None
    assert len({round(bar.width, 6) for bar in drawing.bars}) == 1


def test_diff_marks_the_words_that_changed() -> None:
    lines = diff("same\none  two three\nend", "same\none two three\nend").lines
    assert [(line.sign, str(line.html)) for line in lines] == [
        (" ", "same"),
        ("-", "one<del>  </del>two three"),
        ("+", "one<ins> </ins>two three"),
        (" ", "end"),
    ]


def test_diff_pairs_each_line_with_what_became_of_it() -> None:
    before = "Menu\nThe cat sat on the mat. \n\nIt was a warm day, said Ann\nShare"
    after = "The cat sat on the mat.\nIt was a cold day, said Ann\nBob"
    assert [(line.sign, str(line.html)) for line in diff(before, after).lines] == [
        ("-", "Menu"),
        ("-", "The cat sat on the mat.<del> </del>"),
        ("-", ""),
        ("-", "It was a <del>warm</del> day, said Ann"),
        ("-", "Share"),
        ("+", "The cat sat on the mat."),
        ("+", "It was a <ins>cold</ins> day, said Ann"),
        ("+", "Bob"),
    ]


def test_diff_finds_a_change_deep_in_a_long_line() -> None:
    words = [f"w{i}" for i in range(5_000)]
    before = " ".join(words)
    after = " ".join([*words[:4_000], "new", *words[4_001:]])
    removed, added = diff(before, after).lines
    assert "w3999 <del>w4000</del> w4001" in removed.html
    assert "w3999 <ins>new</ins> w4001" in added.html
    assert "w2000" not in removed.html


def test_diff_leaves_out_what_did_not_change() -> None:
    before = "\n".join(f"line {i}" for i in range(100))
    after = before.replace("line 50\n", "")
    result = diff(before, after)
    signs = "".join(line.sign for line in result.lines)
    assert signs == "…  -  …"
    assert [str(line.html) for line in result.lines if line.sign == "…"] == [
        "48 unchanged lines",
        "47 unchanged lines",
    ]
    assert not result.cut


def test_diff_of_long_texts_is_bounded() -> None:
    result = diff("a b " * 500_000, "a c " * 500_000)
    assert sum(len(line.html) for line in result.lines) < 100_000
    many = diff("a\n" * 10_000, "b\n" * 10_000)
    assert len(many.lines) == LINES_SHOWN
    assert many.cut


def test_a_duplicate_stands_beside_the_document_that_was_kept() -> None:
    html = render(MANIFEST)
    (article,) = re.findall(r'<article class="comparison">.*?</article>', html, re.DOTALL)
    assert "one two <ins>three</ins>" in article and "one two <del>four</del>" in article
    assert article.index("doc 1<") < article.index("doc 12<")
    assert "similarity 0.75" in article and "The first 800 characters are equal." in article
    assert "https://a.example/" in article and "copy of" not in article
    assert "copy of d3" in html


def test_passages_that_a_stage_found_are_marked() -> None:
    assert "… Click <mark>here</mark> &amp; <mark>log</mark> in</div>" in render(MANIFEST)


@pytest.mark.parametrize("marks", [[[6, 3]], [[-5, 99]], [[1]], ["ab"], [[0, 5], [2, 8]], None])
def test_wrong_marks_lose_no_text(marks: Any) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["stages"][0]["rules"][0]["samples"][0]["marks"] = marks
    text = re.sub(r"</?mark>", "", render(manifest))
    assert "… Click here &amp; log in</div>" in text
