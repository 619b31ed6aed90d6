"""``tamis fit preselect``: a fastText classifier of the documents on which the losses of existing
models predict how good the models are (PreSelect; Shum et al. 2025, arXiv:2503.00808).

    data: [crawl_sample.jsonl.zst]             # not what will be trained on
    models:
      - {model: models/10M, benchmark: 0.312}
      - {model: models/30M, benchmark: results-30M}     # a folder or file of results
      - {losses: losses/7B.jsonl, benchmark: 0.587}     # computed elsewhere
    output: models/preselect.bin

Every document gets a predictive strength (``predictive_strength``). Those of strength 1 are the
positives, and as many of the lowest strengths the negatives; a fastText classifier learns to tell
them apart and scores the corpus.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tamis.scorers.predictive_strength import predictive_strength, reliability
from tamis.scorers.rated_models import Examples, FitFromLosses, Judged


class FitPreSelect(FitFromLosses):
    """Trains the classifier, and says how far the order of the documents can be trusted."""

    kind: ClassVar[str] = "preselect"

    def judge(self, judged: Judged) -> tuple[Examples, dict[str, Any], list[str]]:
        documents, losses, benchmarks, names = judged
        strength = predictive_strength(losses, benchmarks)
        found = reliability(losses, benchmarks, documents.sizes, names)
        chosen = choose_examples(strength, documents.order)
        highest = float(strength[chosen.negatives].max(initial=0))
        told = [found.format()]
        if highest > 0.5:
            told.append(
                f"negatives have strengths up to {highest:.2f}: most documents order the models "
                "rightly, and the classifier learns small differences"
            )
        if len(chosen.negatives) < len(chosen.positives):
            told.append(
                f"there are {len(chosen.positives):,} documents with S = 1 and only "
                f"{len(chosen.negatives):,} others: the classifier sees more of the first"
            )
        return chosen, {"reliability": found.facts(), "highest_negative": highest}, told


def choose_examples(strength: NDArray[np.float64], order: NDArray[Any]) -> Examples:
    """The documents of strength 1, and as many of the lowest strengths (fewer if there are not as
    many others); of equal strengths those that come first in ``order``. A document without a
    strength (NaN) is neither.
    """
    positives = np.flatnonzero(strength == 1)
    others = np.flatnonzero(strength < 1)
    lowest = others[np.lexsort((order[others], strength[others]))][: len(positives)]
    return Examples(positives, np.sort(lowest))
