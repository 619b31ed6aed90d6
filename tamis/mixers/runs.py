"""Tables of runs: the proportions that were trained on, and the losses that they ended with.

    wide      run, a column for each source, a column for each loss
    long      run, domain, share, loss: a row for each run and domain
    two files proportions and losses apart, joined by ``index`` (or ``run``), as RegMix and Olmix
              write them

CSV or Parquet. Columns may have a prefix (``train_the_pile_``), which is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError, nearest

_KEYS = ("index", "run", "name")
_CLOSE = 0.02
"""Published proportions are rounded, some to three digits."""


@dataclass(frozen=True)
class Runs:
    """n runs."""

    proportions: Float64
    """(n, m), rows of sum 1."""
    losses: Float64
    """(n, evaluations)"""

    def __len__(self) -> int:
        return len(self.proportions)

    def take(self, rows: Sequence[int] | np.ndarray) -> Runs:
        """Some of them."""
        return Runs(self.proportions[rows], self.losses[rows])


def read_runs(problem: Problem, path: Path, losses: Path | None = None) -> Runs:
    """The runs of a file, or of one with proportions and one with ``losses``.

    Raises:
        TamisError: if a source or an evaluation of the problem has no column, proportions do not
            sum to 1, or a loss is missing.
    """
    table = _read(path)
    if losses is not None:
        table = _joined(table, path, _read(losses), losses)
    elif {"run", "domain", "share", "loss"} <= set(table.columns):
        table = _widened(table)
    shares = _columns(table, problem.names, "source", path)
    found = _columns(table, problem.evaluations, "loss of", losses or path)
    sums = shares.sum(1)
    for row in np.flatnonzero(np.abs(sums - 1) > _CLOSE)[:1]:
        raise TamisError(
            f"{path}, run {row + 1}: the proportions sum to {sums[row]:.4g}, not to 1; is a source "
            "missing in the problem?"
        )
    for row in np.flatnonzero(~np.isfinite(found).all(1))[:1]:
        raise TamisError(f"{losses or path}, run {row + 1}: a loss is missing or no number")
    return Runs(shares / sums[:, None], found)


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema_length=None)
    except FileNotFoundError:
        raise TamisError(f"there are no runs in {path}: no such file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TamisError(f"{path} cannot be read as a table of runs: {error}") from None


def _joined(one: pl.DataFrame, path: Path, other: pl.DataFrame, losses: Path) -> pl.DataFrame:
    key = next((name for name in _KEYS if name in one.columns and name in other.columns), None)
    if key is None:
        raise TamisError(f"{path} and {losses} have no column {' or '.join(_KEYS)} in common")
    joined = one.join(other, on=key, how="inner")
    if len(joined) < len(one) or len(joined) < len(other):
        raise TamisError(
            f"{len(one)} runs in {path} and {len(other)} in {losses}, but only {len(joined)} with "
            f"the same {key}"
        )
    return joined


def _widened(table: pl.DataFrame) -> pl.DataFrame:
    """One row a run: ``share:DOMAIN`` and ``loss:DOMAIN``."""
    wide = table.pivot("domain", index="run", values=["share", "loss"])
    return wide.rename(
        {
            name: name.replace("share_", "share:", 1).replace("loss_", "loss:", 1)
            for name in wide.columns
            if name != "run"
        }
    )


def _columns(table: pl.DataFrame, names: Sequence[str], what: str, path: Path) -> Float64:
    """(n, len(names)): the column of each name, or the only one that ends in it."""
    prefix = "share:" if what == "source" else "loss:"
    chosen: list[str] = []
    for name in names:
        exact = [one for one in (prefix + name, name) if one in table.columns]
        # The same name may stand for a share and for a loss: the prefix, or what is around it.
        around = [one for one in table.columns if _is_called(one, name, what)]
        candidates = exact[:1] or around
        if len(candidates) != 1:
            found = f"several: {', '.join(candidates)}" if candidates else "none"
            hint = "" if candidates else nearest(name, table.columns)
            raise TamisError(f"{path}: {what} {name} needs one column, there is {found}{hint}")
        chosen += candidates
    numbers = table.select(pl.col(one).cast(pl.Float64, strict=False) for one in chosen)
    return numbers.to_numpy()


def _is_called(column: str, name: str, what: str) -> bool:
    """``train_the_pile_arxiv`` is the source arxiv, ``metric/the_pile_arxiv_val_loss`` its loss."""
    ending = ("_" + name,) if what == "source" else (f"_{name}_val_loss", f"_{name}_loss")
    return column.endswith(ending)
