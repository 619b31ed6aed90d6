"""Decontamination: evaluation items that stand in training text.

    evaluations   the items of benchmarks, read from files
    kernels       words, n-grams, what they cover, what is cut out
    index         the n-grams of the evaluation sets, looked up in documents
    decontaminate the stage
    scores        which items a corpus contains, and reports by benchmark

A word counts without case and without punctuation; an n-gram is n such words in a row.
"""

from tamis.filters.decontamination.decontaminate import Decontaminate
from tamis.filters.decontamination.scores import (
    benchmark_report,
    common_ngrams,
    documents_by_benchmark,
    find_matches,
    score_evaluations,
)

__all__ = [
    "Decontaminate",
    "benchmark_report",
    "common_ngrams",
    "documents_by_benchmark",
    "find_matches",
    "score_evaluations",
]
