"""The training loop: one step, from rows to new weights.

The order within a step is fixed, so that methods compose: rows are drawn, candidates are chosen
(H5), rows are weighted (H4), targets of all processes are counted, and only then losses are
differentiated, as a sum over targets divided by their number everywhere. The mean of the means of
processes would be another loss as soon as their masks differ.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tamis.gpu.linear_cross_entropy import linear_cross_entropy
from tamis.trainers.batch import NO_TARGET, Batch
from tamis.trainers.data import Ids, Mixture
from tamis.trainers.distributed import World
from tamis.trainers.hooks import Forward, Hook
from tamis.trainers.model import Decoder
from tamis.trainers.optimizer import Optimizer
from tamis.trainers.sampler import batch_hash
from tamis.trainers.schedule import Schedule


@dataclass(frozen=True)
class Settings:
    """What a step is told, besides model, optimiser and data."""

    tokens: int
    """The budget in targets."""
    batch: int
    """Rows of a step, of all processes."""
    micro_batch: int | None
    """Rows at once."""
    schedule: Schedule
    precision: str = "float32"
    z_loss: float = 0.0
    document_mask: bool = False


class Objective(nn.Module):
    """The model with its loss: what is differentiated, and shared by processes."""

    def __init__(self, model: Decoder, settings: Settings, hooks: Sequence[Hook]) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.hooks = hooks

    def forward(self, batch: Batch, weights: NDArray[np.float32], step: int) -> tuple[Tensor, Any]:
        """(sum of weight x loss over the targets; the loss of each, (B, T), detached)."""
        device = self.model.head_weight.device
        tokens, labels, weight = (_to(device, one) for one in (batch.tokens, batch.labels, weights))
        documents = _to(device, batch.documents) if self.settings.document_mask else None
        with self._precision(device):
            hidden = self.model.hidden(tokens, documents).flatten(0, 1)
        head, labels, weight = self.model.head_weight, labels.flatten(), weight.flatten()
        forward = Forward(hidden, head, labels, weight, batch, step)
        found = next(filter(None, (hook.objective(forward) for hook in self.hooks)), None)
        if found is None:
            found = linear_cross_entropy(hidden, head, labels, weight, z_loss=self.settings.z_loss)
        loss, losses = found
        return loss, losses.detach().view(batch.tokens.shape)

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


class Trainer:
    """Model, optimiser and data, step by step; what it has done so far is its state."""

    def __init__(
        self,
        model: Decoder,
        optimizer: Optimizer,
        mixture: Mixture,
        settings: Settings,
        hooks: Sequence[Hook] = (),
        world: World | None = None,
        shared: nn.Module | None = None,
    ) -> None:
        """``shared`` is the objective as processes share it (DDP or FSDP)."""
        self.model, self.optimizer, self.mixture = model, optimizer, mixture
        self.settings, self.hooks = settings, tuple(hooks)
        self.world = world or World(0, 1, torch.device("cpu"))
        self.objective = shared or Objective(model, settings, self.hooks)
        self.steps = 0
        self.tokens = 0
        """Targets trained on."""

    @property
    def progress(self) -> float:
        """The share of the budget that is used."""
        return self.tokens / self.settings.tokens

    def step(self) -> dict[str, Any]:
        """Train on one batch; what is worth knowing about it.

        ``loss`` is in nats, the mean over the targets of all processes.
        """
        began = time.perf_counter()
        sources, rows = ids = self._choose()
        batch = self.mixture.take(self._mine(ids))
        context = batch.tokens.shape[1]
        for hook in self.hooks:
            context = hook.context(self.progress, context)
        batch = batch.cut(context)
        weights = self._target_weights(batch)
        counts = np.array([weights.sum(dtype=np.float64), np.count_nonzero(weights)])
        total, targets = self.world.total(counts).tolist()
        weights = self._sample_weights(batch, weights, len(rows), total)
        losses = self._differentiate(batch, weights, max(total, 1.0))
        # In the middle of the step: neither the first nor the last is lost to a rate of 0.
        middle = min(self.tokens + targets / 2, self.settings.tokens)
        rate = self._rate(middle)
        decay = self.settings.schedule.weight_decay_value(middle, self.settings.tokens)
        norm = self.optimizer.step(rate, decay)
        self.optimizer.zero_grad()
        by_source = self._by_source(batch, weights, losses.double().cpu().numpy())
        for hook in self.hooks:
            hook.observe(self.steps, {name: one.mean for name, one in by_source.items()})
        self.steps += 1
        self.tokens += int(targets)
        return {
            "step": self.steps,
            "tokens": self.tokens,
            "loss": sum(one.total for one in by_source.values()) / max(targets, 1.0),
            "lr": rate * self.optimizer.lr,
            "grad_norm": norm,
            "seconds": time.perf_counter() - began,
            "targets": int(targets),
            "context": context,
            **{f"loss_{name}": one.mean for name, one in by_source.items()},
            **{f"tokens_{name}": one.targets for name, one in by_source.items()},
            **{f"epoch_{name}": one for name, one in self.mixture.epochs().items()},
            "data_hash": batch_hash(sources, rows),
        }

    def _choose(self) -> Ids:
        """The rows of this step, of all processes."""
        asked = (hook.proportions(self.progress, self.mixture.tokens) for hook in self.hooks)
        proportions = next((one for one in asked if one is not None), None)
        choosers = [hook for hook in self.hooks if hook.selects]
        times = max([1.0, *(hook.candidates for hook in choosers)])
        ids = self.mixture.draw(round(self.settings.batch * times), proportions)
        for hook in choosers:
            batch = self.mixture.take(self._mine(ids))
            losses = self._row_losses(batch, self._target_weights(batch))
            keep = hook.select(self.world.gather(losses, len(ids[1])), self.steps)
            # Every process needs a row: the first of those that were left out.
            missing = max(0, self.world.size - int(keep.sum()))
            keep[np.flatnonzero(~keep)[:missing]] = True
            ids = ids[0][keep], ids[1][keep]
        return ids

    def _mine(self, ids: Ids) -> Ids:
        """Those of this process."""
        mine = slice(self.world.rank, None, self.world.size)
        return ids[0][mine], ids[1][mine]

    def _target_weights(self, batch: Batch) -> NDArray[np.float32]:
        """(B, T): 0 where nothing is predicted."""
        weights = np.where(batch.labels == NO_TARGET, np.float32(0), batch.weights)
        for hook in self.hooks:
            more = hook.target_weights(batch, self.steps)
            if more is not None:
                weights = weights * more
        return weights

    def _sample_weights(
        self, batch: Batch, weights: NDArray[np.float32], rows: int, total: float
    ) -> NDArray[np.float32]:
        """The weights of the targets, times those of their rows.

        The loss of a row is the mean over its targets; ``rows`` is their number in all processes,
        before they were cut. With 1/n for each and equally many targets in each the factors are 1,
        exactly.
        """
        weighers = [hook for hook in self.hooks if hook.weighs_samples]
        if not weighers:
            return weights
        mine = len(range(self.world.rank, rows, self.world.size))
        local = self._row_losses(batch, weights).reshape(mine, -1)
        count = rows * local.shape[1]
        losses = torch.from_numpy(self.world.gather(local, rows).ravel())
        targets = np.maximum(weights.sum(1, dtype=np.float64), 1.0)
        for hook in weighers:
            samples = hook.sample_weights(losses, self.progress)
            if samples is None:
                continue
            shares = (samples.double() * count).numpy().reshape(rows, -1)
            factors = shares[self.world.rank :: self.world.size].ravel()
            weights = weights * (factors * ((total / count) / targets))[:, None].astype(np.float32)
        return weights

    @torch.no_grad()
    def _row_losses(self, batch: Batch, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B,): the mean loss over the targets of each row, without learning from it."""
        means = np.zeros(len(batch))
        for part in self._micro_batches(batch):
            _, losses = self.objective(batch.take(part), weights[part], self.steps)
            counted = weights[part] > 0
            sums = np.where(counted, losses.double().cpu().numpy(), 0.0).sum(1)
            means[part] = sums / np.maximum(counted.sum(1), 1)
        return means

    def _micro_batches(self, batch: Batch) -> list[slice]:
        """As many rows at once as the settings say; of shorter rows as many tokens."""
        full = self.mixture.context // batch.tokens.shape[1]
        size = (self.settings.micro_batch or len(batch)) * full
        return [slice(at, at + size) for at in range(0, len(batch), size)]

    def _differentiate(self, batch: Batch, weights: NDArray[np.float32], total: float) -> Tensor:
        """Gradients of the mean over all targets; gives the loss of each here, (B, T).

        Nothing waits for the device before the last of them is asked for.
        """
        found = []
        parts = self._micro_batches(batch)
        for part in parts:
            with self._alone(last=part is parts[-1]):
                loss, losses = self.objective(batch.take(part), weights[part], self.steps)
                # What processes share is the mean of their gradients, not the sum.
                (loss * (self.world.size / total)).backward()
            found.append(losses)
        return torch.cat(found)

    def _alone(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are shared once, with the last rows."""
        if isinstance(self.objective, DistributedDataParallel) and not last:
            return self.objective.no_sync()
        return nullcontext()

    def _rate(self, tokens: float) -> float:
        """The multiplier of the peak learning rate when so many targets are trained on."""
        asked = (hook.learning_rate(tokens / self.settings.tokens) for hook in self.hooks)
        given = next((one for one in asked if one is not None), None)
        return (
            self.settings.schedule.value(tokens, self.settings.tokens) if given is None else given
        )

    def _by_source(
        self, batch: Batch, weights: NDArray[np.float32], losses: NDArray[np.float64]
    ) -> dict[str, SourceLoss]:
        """What the targets of each source cost, in all processes; without sources that had none."""
        counted = weights > 0
        rows = np.stack([np.where(counted, losses, 0.0).sum(1), counted.sum(1)])
        sums = np.zeros((2, len(self.mixture.names)))
        for kind in range(2):
            np.add.at(sums[kind], batch.sources, rows[kind])
        totals, targets = self.world.total(sums)
        return {
            name: SourceLoss(float(totals[one]), int(targets[one]))
            for one, name in enumerate(self.mixture.names)
            if targets[one]
        }

    def state(self) -> dict[str, Any]:
        """All but the weights and the optimiser, as JSON. There is nothing random in a step."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "sampler": self.mixture.sampler.state(),
            "hooks": [hook.state() for hook in self.hooks],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """What ``state`` gave."""
        self.steps, self.tokens = state["steps"], state["tokens"]
        self.mixture.sampler.load(state["sampler"])
        for hook, one in zip(self.hooks, state["hooks"], strict=True):
            hook.load(one)


@dataclass(frozen=True)
class SourceLoss:
    """The targets of one source in a batch."""

    total: float
    """The sum of their losses, in nats."""
    targets: int

    @property
    def mean(self) -> float:
        """In nats."""
        return self.total / self.targets


def _to(device: torch.device, array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
