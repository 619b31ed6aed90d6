"""A training from its configuration to a folder with results; run again, it goes on.

The folder holds ``tokens/`` (which may be deleted), ``checkpoints/``, ``metrics.parquet`` (a row a
step), ``evaluations.parquet`` (bits per byte of held-out text), ``model/`` (which transformers
loads), ``manifest.json`` and ``report.html``.
"""

from __future__ import annotations

import gc
import platform
import resource
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tamis.pipeline.errors import TamisError
from tamis.pipeline.storage import RunFolder, digest
from tamis.trainers.checkpoint import load_checkpoint, save_checkpoint
from tamis.trainers.config import TrainConfig
from tamis.trainers.data import Mixture
from tamis.trainers.distributed import (
    World,
    open_world,
    optimizer_state,
    restore,
    share,
    whole_model,
)
from tamis.trainers.evaluation.bits_per_byte import bits_per_byte, by_source
from tamis.trainers.evaluation.items import Document
from tamis.trainers.evaluation.scorer import DecoderScorer
from tamis.trainers.export import find_model, load_model, save_model
from tamis.trainers.hooks import Hook
from tamis.trainers.journal import EVALUATIONS, METRICS, Journal
from tamis.trainers.loop import Objective, Settings, Trainer
from tamis.trainers.memory import keep_memory
from tamis.trainers.methods import make_methods
from tamis.trainers.model import Decoder, preset
from tamis.trainers.optimizer import Optimizer
from tamis.trainers.page import render
from tamis.trainers.sources import (
    held_out_documents,
    make_mixture,
    make_sources,
    make_tokenizer,
)
from tamis.trainers.spikes import SpikeWatch
from tamis.trainers.view import View

PEAK_FLOPS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bfloat16, as the vendor states it; MFU is a share of it."""

_FREE: Any = {"output": True, "checkpoints": True, "data": {"tokens"}}
"""What may differ when a training goes on."""

_VERSION = 1
"""Of what is in a checkpoint."""


def train(config: TrainConfig, view: View | None = None, fresh: bool = False) -> Path:
    """Train, or go on where an earlier call was stopped; gives the folder.

    The same configuration gives the same losses to the last bit on a CPU with as many threads,
    whether it was stopped in between or not.

    Raises:
        RecipeError: if the configuration cannot be met.
        TamisError: if the data, the machine or the numbers do not allow it.
    """
    keep_memory()
    folder = RunFolder(config.output)
    with view or View(quiet=True) as view, open_world(config.device) as world:
        if not world.first:
            world.barrier()
            return Training(config, folder, world, View(quiet=True)).run()
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        with folder.locked(view.say):
            prepare_folder(config, folder, fresh)
            # The other processes read what this one writes.
            make_data(config, folder, view)
            world.barrier()
            return Training(config, folder, world, view).run()


def fingerprint(config: TrainConfig) -> dict[str, Any]:
    """What has to be the same for a training to go on."""
    return config.model_dump(mode="json", exclude=_FREE)


def prepare_folder(config: TrainConfig, folder: RunFolder, fresh: bool) -> None:
    """Refuse a folder in which something else was trained; TamisError says what differs."""
    known = None if fresh else folder.read_json("manifest.json")
    if fresh:
        for name in (*folder.names("checkpoints"), METRICS, EVALUATIONS, "report.html"):
            folder.remove(name)
    if isinstance(known, dict) and known.get("config") != fingerprint(config):
        differing = ", ".join(_differences(known.get("config", {}), fingerprint(config)))
        raise TamisError(
            f"{folder.path} holds a training that differs in {differing or 'everything'}; choose "
            "another output (-o DIR), or train anew there with --fresh"
        )
    folder.remove_unfinished(("checkpoints",))
    folder.write_json("manifest.json", {"config": fingerprint(config)}, indent=1)


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = list(dict.fromkeys((*one, *other)))
        return [
            found
            for key in keys
            for found in _differences(one.get(key), other.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if one == other else [path]


def make_data(config: TrainConfig, folder: RunFolder, view: View) -> None:
    """Write the tokenizer and the token files of all stages, as far as they are not there."""
    hooks, where = make_methods(config.methods), Path(folder.path)
    tokenizer = make_tokenizer(config.data, hooks, where)
    for stage in range(len(stage_starts(hooks))):
        make_sources(config.data, tokenizer, hooks, stage, where, view.say)


def stage_starts(hooks: tuple[Hook, ...]) -> list[float]:
    """Where each stage begins, as shares of the budget."""
    return sorted({0.0, *(one for hook in hooks for one in hook.stages())})


class Training:
    """A training under way, in one process."""

    def __init__(self, config: TrainConfig, folder: RunFolder, world: World, view: View) -> None:
        self.config, self.folder, self.world, self.view = config, folder, world, view
        self.where = Path(folder.path)
        self.key = digest(_VERSION, fingerprint(config))
        self.hooks = make_methods(config.methods)
        self.starts = stage_starts(self.hooks)
        self.tokenizer = make_tokenizer(config.data, self.hooks, self.where)
        self.held_out = held_out_documents(config.data) if world.first else {}
        self.model = self._make_model()
        self.parameters = self.model.parameter_counts()
        self.stage = 0
        self.trainer = self._make_trainer()
        self.watch, self.journal = SpikeWatch(), Journal(folder)
        self.saved = time.monotonic()

    def run(self) -> Path:
        """Train to the end of the budget."""
        config, trainer = self.config, self.trainer
        self._resume()
        self.view.begin(
            config.tokens,
            f"{self.parameters['total']:,} parameters on {config.tokens:,} tokens of "
            f"{', '.join(trainer.mixture.names)} ({self.world.device})",
        )
        while trainer.tokens < config.tokens:
            self._change_stage()
            before = trainer.progress
            self._tell_losses()
            self._record(trainer.step())
            times = config.evaluation.times
            done = trainer.tokens >= config.tokens
            if done or int(trainer.progress * times) > int(before * times):
                self._evaluate()
            if done or self._is_time_to_save():
                self._save()
            if trainer.steps == 1:
                # What is there now stays: the collector need not look at it again.
                gc.collect()
                gc.freeze()
        model = whole_model(self.model)
        if self.world.first:
            self._finish(model)
        self.world.barrier()
        return self.where

    def _make_model(self) -> Decoder:
        config = self.config
        shape = config.model.model_dump(exclude={"preset"})
        sizes = {"vocab_size": self.tokenizer.vocab_size, "context": config.data.context}
        model = Decoder(preset(config.model.preset, **sizes, **shape), config.seed)
        if config.start_from is not None:
            model.load_state_dict(_weights(config.start_from, model))
        return model.to(self.world.device)

    def _make_trainer(self) -> Trainer:
        config, world = self.config, self.world
        default = "bfloat16" if world.device.type == "cuda" else "float32"
        settings = Settings(
            tokens=config.tokens, batch=config.batch, micro_batch=config.micro_batch,
            schedule=config.schedule, precision=config.precision or default,
            z_loss=config.z_loss, document_mask=config.data.document_mask,
        )  # fmt: skip
        if config.batch < world.size:
            raise TamisError(f"batch: {config.batch} rows for {world.size} processes; raise it")
        if config.compile:
            self.model.hidden = torch.compile(self.model.hidden, dynamic=False)  # type: ignore[method-assign]
        objective: nn.Module = Objective(self.model, settings, self.hooks)
        if world.size > 1:
            objective = share(objective, config.parallel, world)
        optimizer = Optimizer(self.model, config.optimizer, config.batch * config.data.context)
        return Trainer(
            self.model, optimizer, self._mixture(), settings, self.hooks, world, objective
        )

    def _mixture(self) -> Mixture:
        config = self.config
        sources = make_sources(config.data, self.tokenizer, self.hooks, self.stage, self.where)
        return make_mixture(config.data, sources, config.seed)

    def _change_stage(self) -> None:
        """Other rows where a new stage begins; optimiser and schedule go on."""
        stage = bisect_right(self.starts, self.trainer.progress) - 1
        if stage != self.stage:
            self.stage = stage
            self.trainer.mixture = self._mixture()
            self.journal.notes.append(f"step {self.trainer.steps}: stage {stage} begins")

    def _record(self, metrics: dict[str, Any]) -> None:
        """Look at what a step gave, and keep it."""
        seconds, targets = metrics["seconds"], metrics.pop("targets")
        flops = targets * self.model.flops_per_token(metrics["context"])
        peak = peak_flops(self.world.device)
        metrics["tokens_per_second"] = targets / seconds
        metrics["mfu"] = flops / seconds / (peak * self.world.size) if peak else None
        metrics["memory_bytes"] = peak_memory(self.world.device)
        rows = f"rows {metrics['data_hash']} of {', '.join(_sources_in(metrics))}"
        if said := self.watch.look(metrics["step"], metrics, rows):
            self.journal.notes.append(said)
            self.view.say(f"note: {said}")
        self.journal.metrics.append(metrics)
        self.view.step(metrics)

    def _evaluate(self) -> None:
        """Measure held-out text, and what methods measure; the other processes wait."""
        step, config = self.trainer.steps, self.config
        model = whole_model(self.model)
        if self.world.first and self.held_out:
            scorer = DecoderScorer(model, self.tokenizer)
            context = config.evaluation.context
            outcomes = bits_per_byte(scorer, self.tokenizer, self.held_out, context)
            totals = by_source(outcomes)
            for name, one in totals.items():
                numbers = {"bits_per_byte": one.bits_per_byte, "bytes": one.bytes}
                self.journal.measured(step, name, numbers)
            self.view.evaluated(step, {name: one.bits_per_byte for name, one in totals.items()})
        for hook in self.hooks:
            for name, value in hook.evaluate(model, step).items():
                self.journal.measured(step, name, {"value": value})
        self.world.barrier()

    def _tell_losses(self) -> None:
        """Measure the beginning of the held-out text for the methods that ask for it; the first
        process does, and tells the others.
        """
        progress = self.trainer.progress
        asking = [hook for hook in self.hooks if hook.asks(progress)]
        if not asking:
            return
        names = self.trainer.mixture.names
        model = whole_model(self.model)
        losses = np.zeros(len(names))
        if self.world.first:
            if missing := [name for name in names if name not in self.held_out]:
                raise TamisError(
                    f"a method asks for the loss on held-out text of {', '.join(missing)}: give "
                    "data.held_out a share, or files for each source"
                )
            most = max(hook.held_out_bytes for hook in asking)
            texts = {name: list(first_bytes(self.held_out[name], most)) for name in names}
            outcomes = bits_per_byte(DecoderScorer(model, self.tokenizer), self.tokenizer, texts)
            totals = by_source(outcomes)
            losses = np.array([totals[name].nats_per_token for name in names])
        told = dict(zip(names, self.world.total(losses).tolist(), strict=True))
        for hook in asking:
            hook.told(progress, told)

    def _digests(self) -> dict[str, str]:
        """Of the tokens of each source."""
        return {name: one["digest"] for name, one in self.trainer.mixture.facts().items()}

    def _is_time_to_save(self) -> bool:
        """The same in all processes: the first one's clock counts."""
        due = time.monotonic() - self.saved >= 60 * self.config.checkpoints.minutes
        return bool(self.world.total(np.array([float(due and self.world.first)]))[0])

    def _save(self) -> None:
        """The rows so far, then the checkpoint that they belong to."""
        state = {
            **self.trainer.state(),
            "stage": self.stage,
            "sources": self._digests(),
            "watch": self.watch.state(),
            "notes": self.journal.notes,
        }
        model = whole_model(self.model)
        optimizer = optimizer_state(self.model, self.trainer.optimizer)
        if self.world.first:
            self.journal.write()
            save_checkpoint(
                self.folder, self.key, model, optimizer, self.tokenizer, state,
                self.config.checkpoints.keep,
            )  # fmt: skip
            self._write_page()
        self.saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from the last sound checkpoint, if there is one."""
        found = load_checkpoint(self.folder, self.key, self.view.say)
        if found is None:
            return
        weights, optimizer, state = found
        restore(self.model, self.trainer.optimizer, weights, optimizer)
        if state["stage"] != self.stage:
            self.stage = state["stage"]
            self.trainer.mixture = self._mixture()
        if changed := [one for one, it in self._digests().items() if it != state["sources"][one]]:
            raise TamisError(
                f"the documents of {', '.join(changed)} have changed since this training was "
                "stopped; choose another output (-o DIR), or train anew with --fresh"
            )
        self.trainer.load(state)
        self.watch.load(state["watch"])
        self.journal.load(state["steps"], state["notes"])
        self.view.say(f"going on from step {state['steps']}")

    def _finish(self, model: Decoder) -> None:
        """The model where others find it, what was trained on, and the page."""
        save_model(model, self.tokenizer, self.where / "model", torch.float32)
        self._write_page()

    def _write_page(self) -> None:
        self.folder.write_json("manifest.json", self._manifest(), indent=1)
        with self.folder.write("report.html") as file:
            file.write(render(self.where).encode())

    def _manifest(self) -> dict[str, Any]:
        trainer, device = self.trainer, self.world.device
        last: dict[str, float] = {
            one["source"]: one["bits_per_byte"]
            for one in self.journal.evaluations
            if one.get("bits_per_byte") is not None
        }
        return {
            "config": fingerprint(self.config),
            "tamis": version("tamis"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "processes": self.world.size,
            "tokenizer": {
                "fingerprint": self.tokenizer.fingerprint,
                "vocab_size": self.tokenizer.vocab_size,
            },
            "model": {**self.model.config.model_dump(), **self.parameters},
            "optimizer": trainer.optimizer.config.model_dump(mode="json"),
            "sources": trainer.mixture.facts(),
            "steps": trainer.steps,
            "tokens": trainer.tokens,
            "finished": trainer.tokens >= self.config.tokens,
            "bits_per_byte": last,
            "notes": self.journal.notes,
        }


def first_bytes(documents: Sequence[Document], most: int) -> Iterator[Document]:
    """The first documents, until they have so many bytes; at least one."""
    size = 0
    for one in documents:
        yield one
        size += len(one.text.encode())
        if size >= most:
            return


def _sources_in(metrics: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix("loss_") for name in metrics if name.startswith("loss_")]


def _weights(path: Path, model: Decoder) -> dict[str, Tensor]:
    """Those of a model or of a training's model; TamisError if they are of another shape."""
    folder = find_model(path)
    weights = load_model(folder).state_dict()
    mine = {name: one.shape for name, one in model.state_dict().items()}
    if {name: one.shape for name, one in weights.items()} != mine:
        raise TamisError(
            f"start_from: the model in {folder} has another shape than model: says, or another "
            "vocabulary than the tokenizer"
        )
    return weights


def peak_flops(device: torch.device) -> float | None:
    """Of the products of one GPU, per second; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU what was allocated, else what the process had resident, at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
