"""What a run would ask of language models, from a sample of its input: part of ``tamis check``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.plan import Plan
from tamis.pipeline.readers import read_slice

SAMPLE = 64
"""Documents that are looked at."""


@runtime_checkable
class Estimates(Protocol):
    """A stage that can say what it costs before it runs."""

    def estimate(self, sample: Documents) -> Mapping[str, float]:
        """What it would spend on these documents, by the name of what is spent ("prompts"); empty
        if it spends nothing.

        Raises:
            TamisError: if that cannot be told.
        """


class Sample(NamedTuple):
    """Some documents, and how many there are in all (about, if there are several slices)."""

    documents: Documents
    total: int
    exact: bool


def estimates(plan: Plan) -> list[str]:
    """A line for each stage that asks a language model: how much, if no document is dropped before.

    Empty, and nothing is read, for a plan without such stages.
    """
    lines = []
    sample = None
    for stage in plan.recipe.stages:
        if not isinstance(stage, Estimates):
            continue
        try:
            sample = sample or take_sample(plan)
            if sample is None:
                return []
            spent = stage.estimate(sample.documents)
        except TamisError as error:
            lines.append(f"{stage.name}: cannot be told: {error}")
            continue
        if spent:
            share = sample.total / len(sample.documents)
            amounts = [f"{_rounded(amount * share)} {what}" for what, amount in spent.items()]
            about = "" if sample.exact else "about "
            lines.append(
                f"{stage.name}: about {', '.join(amounts)} (documents: {about}{sample.total:,}, "
                f"{len(sample.documents)} looked at; if none is dropped before)"
            )
    return lines


def take_sample(plan: Plan) -> Sample | None:
    """Documents from all over the first slice that has any; its bytes say how many there are in
    all. None if there are none.
    """
    for part in plan.slices:
        read = read_slice(part, plan.recipe.input, plan.schema)
        batches = [one for one in read if isinstance(one, pa.RecordBatch)]
        if not batches:
            continue
        table = pa.Table.from_batches(batches)
        rows = np.unique(np.linspace(0, table.num_rows - 1, SAMPLE).astype(np.int64))
        total = sum(one.bytes for one in plan.slices)
        documents = round(table.num_rows * total / max(part.bytes, 1))
        (chosen,) = table.take(pa.array(rows)).combine_chunks().to_batches()
        exact = len(plan.slices) == 1
        return Sample(Documents(chosen), table.num_rows if exact else documents, exact)
    return None


def _rounded(amount: float) -> str:
    """Three significant digits, in full."""
    digits = len(str(round(amount))) - 3
    return f"{round(amount, -max(digits, 0)):,.0f}"
