"""datatrove's decisions when its tokenizer is ``str.split``, to be compared with ours.

Run as a script over more text: ``python -m tests.filters.text.peer FILE.jsonl [DOCUMENTS]``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from tamis.filters.fineweb_quality import FineWebQuality
from tamis.filters.gopher_quality import GopherQuality
from tamis.filters.gopher_repetition import GopherRepetition
from tamis.pipeline.stages import Filter
from tests.filters.text.reference import batch

PEERS = {
    "gopher_repetition": "GopherRepetitionFilter",
    "gopher_quality": "GopherQualityFilter",
    "fineweb_quality": "FineWebQualityFilter",
}
# Our rules by datatrove's reasons.
RULES = {
    "gopher_repetition": {
        "empty": "min_characters",
        "dup_para_frac": "max_duplicate_paragraphs",
        "dup_para_char_frac": "max_duplicate_paragraph_characters",
        "dup_line_frac": "max_duplicate_lines",
        "dup_line_char_frac": "max_duplicate_line_characters",
        **{f"top_{n}_gram": f"max_top_ngram.{n}" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"max_duplicated_ngrams.{n}" for n in range(5, 11)},
    },
    "gopher_quality": {
        "gopher_short_doc": "min_words",
        "gopher_long_doc": "max_words",
        "gopher_below_avg_threshold": "min_mean_word_length",
        "gopher_above_avg_threshold": "max_mean_word_length",
        "gopher_too_many_hashes": "max_hash_ratio",
        "gopher_too_many_ellipsis": "max_ellipsis_ratio",
        "gopher_too_many_bullets": "max_bullet_lines",
        "gopher_too_many_end_ellipsis": "max_ellipsis_lines",
        "gopher_below_alpha_threshold": "min_alphabetic_words",
        "gopher_enough_stop_words": "min_stop_words",
    },
    "fineweb_quality": {
        "empty": "min_lines",
        "line_punct_ratio": "min_terminal_lines",
        "short_line_ratio": "max_short_lines",
        "char_dup_ratio": "max_duplicate_line_characters",
        "list_ratio": "max_newline_ratio",
    },
}


def our_rules(stage: Filter, texts: Sequence[str]) -> list[str | None]:
    """The rule that drops each text, None for those that are kept."""
    verdicts = stage.decide(stage.measure(batch(texts)))
    return [verdicts.rules[rule].field if rule >= 0 else None for rule in verdicts.rule]


def their_rules(kind: str, texts: Sequence[str]) -> list[str | None]:
    """The same from datatrove, its reasons under the names of our rules."""
    peer = pytest.importorskip(f"datatrove.pipeline.filters.{kind}_filter")
    document = pytest.importorskip("datatrove.data").Document
    stage = getattr(peer, PEERS[kind])()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer, "split_into_words", lambda text, _: text.split())
        verdicts = [stage.filter(document(text=text, id="")) for text in texts]
    return [None if verdict is True else RULES[kind][verdict[1]] for verdict in verdicts]


def main() -> None:
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else None
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    texts = [text for line in lines if (text := orjson.loads(line).get("text"))][:limit]
    for stage in (GopherRepetition(), GopherQuality(), FineWebQuality()):
        our_rules(stage, texts[:1])
        start = time.process_time()
        ours = our_rules(stage, texts)
        middle = time.process_time()
        theirs = their_rules(stage.kind, texts)
        end = time.process_time()
        differ = sum(a != b for a, b in zip(ours, theirs, strict=True))
        print(f"{stage.kind}: {differ} of {len(texts)} decisions differ")
        print(f"  CPU seconds {middle - start:.2f}, datatrove with str.split {end - middle:.2f}")
        print("  " + ", ".join(f"{rule or 'kept'} {n}" for rule, n in Counter(ours).most_common()))


if __name__ == "__main__":
    main()
