"""Where methods act on training: one class a method, one function a place, and none has to know the
loop.

Every function below changes nothing unless it is overridden. The loop asks the hooks of a run in
their order; of the answers that only one can give (an objective, proportions, a learning rate) the
first that is not None counts. What a hook remembers between steps goes into checkpoints by
``state`` and ``load``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

    from tamis.trainers.batch import Batch
    from tamis.trainers.model import Decoder
    from tamis.trainers.tokenizer import Tokenizer

Encoded = tuple[NDArray[np.int32], NDArray[np.float32] | None]
"""The tokens of a document with bos and eos, and how much each counts as a target (None: 1)."""


@dataclass(frozen=True)
class Forward:
    """What the model made of some rows, N = B x T positions."""

    hidden: Tensor
    """(N, d), behind the last norm."""
    head: Tensor
    """(V, d)"""
    labels: Tensor
    """(N,), -100 where there is no target."""
    weights: Tensor
    """(N,) float32; those of the tokens, of ``target_weights`` and of ``sample_weights``."""
    batch: Batch
    step: int


class Hook(BaseModel):
    """A method that acts on training; its fields are its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    # Documents become tokens (H1).

    def special_tokens(self) -> Sequence[str]:
        """Tokens that the vocabulary has to have besides those of the tokenizer."""
        return ()

    def encode(
        self, documents: pa.RecordBatch, tokenizer: Tokenizer, stage: int
    ) -> Sequence[Encoded | None] | None:
        """The documents as tokens; None for one that this stage leaves out, and None instead of the
        list if this method encodes as always.
        """
        return None

    # How much each target counts (H2).

    def target_weights(self, batch: Batch, step: int) -> NDArray[np.float32] | None:
        """(B, T), multiplied with those of the token files."""
        return None

    # The loss (H3).

    def objective(self, forward: Forward) -> tuple[Tensor, Tensor] | None:
        """(sum over the targets of weight x loss, which is differentiated; the loss of each target
        without its weight, (N,), detached), instead of cross-entropy. The loop divides by the
        number of targets of all ranks.
        """
        return None

    # How much each row counts (H4).

    def sample_weights(self, losses: Tensor, progress: float) -> Tensor | None:
        """From the mean loss of each row of the whole batch, of all ranks (n,), weights (n,) that
        sum to 1; None for 1/n. ``progress`` is the share of the budget that is used.
        """
        return None

    weighs_samples: ClassVar[bool] = False
    """Whether ``sample_weights`` is wanted: it costs one more pass forward."""

    # Which of the candidates are trained on (H5).

    candidates: float = 1.0
    """How many rows are drawn for a batch, in batches; more than 1 or ``selects`` costs a pass
    forward over all of them.
    """
    selects: ClassVar[bool] = False

    def select(self, losses: NDArray[np.float64], step: int) -> NDArray[np.bool_]:
        """Which candidates to train on, from their mean losses (n,), of all ranks."""
        return np.ones(len(losses), np.bool_)

    # The mixture (H6).

    def proportions(self, progress: float, sources: Mapping[str, int]) -> Sequence[float] | None:
        """The share of the rows of each source in the next batch; ``sources`` has the tokens of
        each.
        """
        return None

    held_out_bytes: ClassVar[int] = 0
    """The most text of each source that ``told`` needs."""

    def asks(self, progress: float) -> bool:
        """Whether the losses on held-out text are wanted before the next batch."""
        return False

    def told(self, progress: float, losses: Mapping[str, float]) -> None:
        """What was asked for: the loss on each source, in nats per token."""

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        """The mean loss of each source that the batch of this step had rows of."""

    # What changes with the step (H7).

    def learning_rate(self, progress: float) -> float | None:
        """The multiplier of the peak learning rate once this share of the budget is used."""
        return None

    def context(self, progress: float, context: int) -> int:
        """The length of rows, a divisor of ``context``; the tokens of a batch stay."""
        return context

    # Stages (H8).

    def stages(self) -> Sequence[float]:
        """Where, as shares of the budget, a new stage begins for which documents are encoded anew;
        optimiser and schedule go on.
        """
        return ()

    # What is measured besides (H9).

    def evaluate(self, model: Decoder, step: int) -> Mapping[str, float]:
        """Numbers by name, for the evaluations of the run."""
        return {}

    # What is remembered.

    def state(self) -> dict[str, Any]:
        """JSON, for checkpoints."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """What ``state`` gave."""
