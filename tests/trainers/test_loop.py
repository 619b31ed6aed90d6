"""One step, however it is divided: over micro-batches, over processes, over weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import Field

from tamis.trainers.batch import NO_TARGET
from tamis.trainers.data import Mixture
from tamis.trainers.hooks import Hook
from tamis.trainers.loop import Objective, Settings, Trainer
from tamis.trainers.model import Decoder, ModelConfig
from tamis.trainers.optimizer import Optimizer, OptimizerConfig
from tamis.trainers.packing import Rows
from tamis.trainers.schedule import Schedule
from tamis.trainers.tokenizer import byte_tokenizer
from tamis.trainers.tokens import open_tokens, write_tokens

CONTEXT = 32


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    """Two sources of random words; documents of one are short, so that masks differ."""
    folder = tmp_path_factory.mktemp("tokens")
    random = np.random.default_rng(3)
    vocabulary = ["".join(random.choice(list("abcdefgh"), 4)) for _ in range(30)]
    for name, length in (("long", 60), ("short", 3)):
        texts = [" ".join(random.choice(vocabulary, length)) for _ in range(80)]
        write_tokens(name, [pa.RecordBatch.from_pydict({"text": texts})], byte_tokenizer(), folder)
    return folder


def make_mixture(tokens: Path, packing: str = "best_fit") -> Mixture:
    rows = {name: Rows(open_tokens(tokens / name), CONTEXT, packing) for name in ("long", "short")}
    return Mixture(rows, [0.5, 0.5], seed=7)


def make_trainer(folder: Path, hooks: tuple[Hook, ...] = (), **changes) -> Trainer:
    model = Decoder(
        ModelConfig(
            vocab_size=258,
            hidden_size=32,
            layers=2,
            heads=2,
            kv_heads=1,
            head_dim=16,
            intermediate_size=64,
            context=CONTEXT,
        )
    )
    settings = Settings(
        **{"tokens": 20_000, "batch": 8, "micro_batch": None, "schedule": Schedule()} | changes
    )
    optimizer = Optimizer(model, OptimizerConfig(lr=3e-3))
    return Trainer(model, optimizer, make_mixture(folder), settings, hooks)


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in trainer.model.parameters()])


def losses_of(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.step()["loss"] for _ in range(steps)]


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_micro_batches_change_nothing(tokens, micro_batch) -> None:
    """Also with unequal numbers of targets: the sum is over all of them."""
    whole, parts = make_trainer(tokens), make_trainer(tokens, micro_batch=micro_batch)
    targets = (whole.mixture.take(whole.mixture.draw(8)).labels != NO_TARGET).sum(1)
    assert len(set(targets.tolist())) > 1
    whole = make_trainer(tokens)
    np.testing.assert_allclose(losses_of(parts, 3), losses_of(whole, 3), atol=1e-6)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), atol=1e-6, rtol=0)


def test_one_step_is_the_gradient_of_the_mean_over_targets(tokens) -> None:
    """Against autograd on logits, written out."""
    trainer = make_trainer(tokens, z_loss=1e-3)
    batch = make_mixture(tokens).take(make_mixture(tokens).draw(8))
    labels = torch.from_numpy(batch.labels)
    logits = trainer.model(torch.from_numpy(batch.tokens))
    counted = labels != NO_TARGET
    lse = logits.logsumexp(-1)[counted]
    nll = lse - logits[counted].gather(1, labels[counted][:, None])[:, 0]
    (nll + 1e-3 * lse**2).mean().backward()
    expected = torch.cat([one.grad.flatten() for one in trainer.model.parameters()])
    trainer.model.zero_grad()
    norm = []
    trainer.optimizer.step = lambda *_: norm.append(  # type: ignore[method-assign]
        torch.cat([one.grad.flatten() for one in trainer.model.parameters()])
    )
    metrics = trainer.step()
    torch.testing.assert_close(norm[0], expected, atol=1e-7, rtol=1e-4)
    assert metrics["loss"] == pytest.approx(nll.mean().item(), abs=1e-6)
    assert trainer.tokens == int(counted.sum())


def test_one_batch_is_learned_by_heart(tokens) -> None:
    trainer = make_trainer(tokens, tokens=10**9, schedule=Schedule(kind="constant", warmup=0))
    ids = trainer.mixture.draw(2)
    # What follows from nothing cannot be known twice: two documents would begin alike.
    trainer.mixture.draw = lambda *_: (ids[0][:1], ids[1][:1])  # type: ignore[method-assign]
    assert losses_of(trainer, 150)[-1] < 0.01


def test_the_targets_of_an_epoch_are_those_of_the_source(tokens) -> None:
    trainer = make_trainer(tokens)
    rows = trainer.mixture.rows[0]
    trainer.mixture = Mixture({"long": rows}, None, seed=1)
    trained = 0
    while trained < len(rows):
        trained += 8
        if trained > len(rows):
            break
        trainer.step()
    rest = trainer.mixture.sampler.next(len(rows) - trainer.steps * 8, [1.0])
    left = (trainer.mixture.take(rest).labels != NO_TARGET).sum()
    assert trainer.tokens + left == rows.source.facts["target_tokens"]


class Uniform(Hook):
    """The weights that every row has anyway."""

    weighs_samples: ClassVar[bool] = True

    def sample_weights(self, losses, step):
        return torch.full_like(losses, 1 / len(losses))


def test_equal_sample_weights_are_none_to_the_last_bit(tokens) -> None:
    """Rows of concatenated text of one source have equally many targets but at documents' ends, so
    they are compared where no document ends: one long one.
    """
    texts = pa.RecordBatch.from_pydict({"text": ["abcdefg " * 600]})
    write_tokens("one", [texts], byte_tokenizer(), tokens)
    trainers = [make_trainer(tokens), make_trainer(tokens, (Uniform(),))]
    for trainer in trainers:
        rows = Rows(open_tokens(tokens / "one"), CONTEXT)
        trainer.mixture = Mixture({"one": rows}, None, seed=1)
    plain, weighted = trainers
    assert losses_of(plain, 4) == losses_of(weighted, 4)
    assert torch.equal(weights_of(plain), weights_of(weighted))


class Hardest(Hook):
    """The harder half of twice as many rows."""

    selects: ClassVar[bool] = True
    candidates: float = 2.0
    seen: list = Field(default_factory=list)

    def select(self, losses, step):
        self.seen.append(losses)
        return losses >= np.median(losses)


def test_candidates_are_chosen_before_anything_is_learned(tokens) -> None:
    hook = Hardest(seen=[])
    trainer = make_trainer(tokens, (hook,))
    metrics = trainer.step()
    [losses] = hook.seen
    assert losses.shape == (16,)
    again = make_trainer(tokens)
    batch = again.mixture.take(again.mixture.draw(16))
    objective = Objective(again.model, again.settings, ())
    _, nll = objective(batch, (batch.labels != NO_TARGET).astype(np.float32), 0)
    counted = batch.labels != NO_TARGET
    expected = np.where(counted, nll, 0).sum(1) / counted.sum(1)
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    keep = losses >= np.median(losses)
    assert trainer.tokens == counted[keep].sum()
    assert metrics["loss"] == pytest.approx(np.where(counted, nll, 0)[keep].sum() / trainer.tokens)


class Shorter(Hook):
    """Half the context in the first half."""

    def context(self, progress, context):
        return context // 2 if progress < 0.5 else context


def test_shorter_rows_have_the_same_targets(tokens) -> None:
    trainer, plain = make_trainer(tokens, (Shorter(),), micro_batch=4), make_trainer(tokens)
    assert trainer.step()["context"] == CONTEXT // 2
    plain.step()
    assert trainer.tokens == plain.tokens


class Given(Hook):
    """Only the first source, and a tenth of the learning rate."""

    def proportions(self, progress, sources):
        return [1.0] + [0.0] * (len(sources) - 1)

    def learning_rate(self, progress):
        return 0.1


def test_mixture_and_rate_can_be_given(tokens) -> None:
    trainer = make_trainer(tokens, (Given(),))
    metrics = trainer.step()
    assert metrics["lr"] == pytest.approx(3e-4)
    assert metrics["epoch_short"] == 0 and metrics["epoch_long"] > 0
    assert "loss_short" not in metrics
    assert metrics["loss"] == pytest.approx(metrics["loss_long"])


def test_the_state_is_all_there_is(tokens) -> None:
    whole, first, second = (make_trainer(tokens) for _ in range(3))
    expected = losses_of(whole, 6)
    begun = losses_of(first, 3)
    state = json.loads(json.dumps(first.state()))
    second.load(state)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert begun + losses_of(second, 3) == expected
    assert torch.equal(weights_of(whole), weights_of(second))


TWO_RANKS = """
import json, sys
from pathlib import Path
import torch
from tests.trainers.test_loop import Hardest, Uniform, make_trainer, weights_of
from tamis.trainers.distributed import open_world, share
from tamis.trainers.loop import Objective
torch.set_num_threads(1)
hooks = {"none": (), "uniform": (Uniform(),), "hardest": (Hardest(seen=[]),)}[sys.argv[2]]
with open_world("cpu") as world:
    trainer = make_trainer(Path(sys.argv[1]), hooks, micro_batch=3)
    trainer.world = world
    trainer.objective = share(Objective(trainer.model, trainer.settings, hooks), "ddp", world)
    found = [trainer.step() for _ in range(3)]
    if world.first:
        rows = [(one["loss"], one["grad_norm"], one["data_hash"]) for one in found]
        print(json.dumps([rows, weights_of(trainer).tolist()]))
"""


@pytest.mark.parametrize("method", ["none", "uniform", "hardest"])
def test_two_processes_are_one(tokens, method) -> None:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        env = {
            **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", TWO_RANKS, str(tokens), method],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        )
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results[0][1][-2000:]
    rows, weights = json.loads(results[0][0].splitlines()[-1])
    hooks = {"none": (), "uniform": (Uniform(),), "hardest": (Hardest(seen=[]),)}[method]
    alone = make_trainer(tokens, hooks)
    for loss, norm, data in rows:
        metrics = alone.step()
        assert metrics["data_hash"] == data
        assert loss == pytest.approx(metrics["loss"], abs=1e-6)
        assert norm == pytest.approx(metrics["grad_norm"], abs=1e-5)
    # Adam divides by the size of a gradient: where that is nearly 0, rounding becomes visible.
    np.testing.assert_allclose(weights, weights_of(alone).numpy(), atol=1e-5)
