"""How much of each source: methods of mixing beside uniform proportions on real text, and the
critical ratio of a continued training, predicted and measured.

Methods see the text held out of training; the perplexities that are reported are of other text.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash

from benchmarks.arms import BATCH, CONTEXT, MODEL, VOCABULARY, Float64, document_nats, write_texts
from benchmarks.harness import clock, table
from tamis.pipeline.errors import TamisError

SOURCES = ("email", "literature", "manual pages", "law", "religion", "encyclopedia")
BYTES = (4_000_000, 1_500_000, 600_000, 2_500_000, 1_000_000, 400_000)
"""Of each source in what is learned from: natural proportions are far from uniform ones."""
TEST_BYTES = 60_000
PIECE = 2000
"""Characters of a document; longer ones are cut, the last piece of less than half is left out."""
TOKENS, SEEDS = 400_000, (0, 1, 2)
PROXY, GRAPH = 0.25, 0.05
"""The length of the runs for a mixing law, and of those for the graph of Skill-It."""
ROUNDS = 5
"""Of methods that change proportions: with more of them a probe of Aioli is a single step."""
BASELINE = "stratified"

GENERAL, DOMAIN = ("email", "literature", "religion"), "law"
RATIOS = (0.125, 0.25, 0.5, 0.75)
TOLERANCE = 0.01
"""By how much of itself the loss on the general source may rise."""
AROUND = (-0.1, 0.0, 0.1)
"""Where the law is put to the test, from the ratio that it predicts."""

_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for so many seeds."""


@dataclass(frozen=True)
class Data:
    """Texts of some sources, and what training on them needs."""

    folder: Path
    learn: Mapping[str, Sequence[str]]
    test: Mapping[str, Sequence[str]]

    def path(self, name: str) -> Path:
        """The documents that are trained on."""
        return self.folder / f"{name}.jsonl"

    @property
    def tokenizer(self) -> Path:
        """That of all models."""
        return self.folder / "tokenizer"

    def write(self) -> Data:
        """Documents and tokenizer to disk."""
        from tamis.trainers.tokenizer import train_tokenizer

        self.folder.mkdir(parents=True)
        for name, texts in self.learn.items():
            write_texts(self.path(name), texts)
        sample = (text for texts in self.learn.values() for text in texts[: 10 + len(texts) // 10])
        train_tokenizer(sample, VOCABULARY).save(self.tokenizer)
        return self

    @cached_property
    def test_tokens(self) -> dict[str, int]:
        """Of the test text of each source."""
        return {name: self._count(texts) for name, texts in self.test.items()}

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Of what is trained on, by the test text's tokens a byte."""
        return {
            name: int(_bytes(texts) * self.test_tokens[name] / _bytes(self.test[name]))
            for name, texts in self.learn.items()
        }

    def _count(self, texts: Sequence[str]) -> int:
        from tamis.trainers.tokenizer import open_tokenizer

        encoded = open_tokenizer(str(self.tokenizer)).encode(list(texts))
        return sum(len(one) for one in encoded)

    def training(self, tokens: int, seed: int, proportions: Mapping[str, float]) -> dict[str, Any]:
        """The configuration of a training, without its output."""
        sources: dict[str, Any] = {name: {"path": str(self.path(name))} for name in self.learn}
        for name, share in proportions.items():
            sources[name]["proportion"] = max(share, 1e-12)
        return {
            "data": {
                "sources": sources, "tokenizer": str(self.tokenizer), "context": CONTEXT,
                "held_out": 0.04, "held_out_bytes": 60_000,
            },
            "model": MODEL, "optimizer": {"kind": "muon"}, "tokens": tokens, "batch": BATCH,
            "seed": seed, "evaluation": {"times": 1}, "checkpoints": {"minutes": 60},
            "device": "cpu",
        }  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A model's -ln p of the test text of each source, and the CPU seconds of its training."""

    nats: Mapping[str, float]
    cpu: float


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def read_texts(corpus: Path, sources: Mapping[str, int], scale: float) -> tuple[Any, Any]:
    """English pieces to learn from and to test with, by source; copies are on the same side."""
    learn: dict[str, list[str]] = defaultdict(list)
    test: dict[str, list[str]] = defaultdict(list)
    used: Counter[tuple[bool, str]] = Counter()
    with corpus.open("rb") as lines:
        for record in map(orjson.loads, lines):
            name, text = record["domain"], record.get("text")
            if not text or record["lang"] != "en" or name not in sources:
                continue
            for begin in range(0, len(text), PIECE):
                piece = text[begin : begin + PIECE]
                if len(piece) < PIECE / 2:
                    continue
                tested = xxhash.xxh3_64_intdigest(piece.encode()) / 2**64 < 0.05
                most = TEST_BYTES if tested else sources[name] * scale
                if used[tested, name] < most:
                    used[tested, name] += len(piece.encode())
                    # Sources are named in paths and settings.
                    (test if tested else learn)[name.replace(" ", "_")].append(piece)
    return dict(learn), dict(test)


def train_all(data: Data, jobs: Mapping[Any, tuple[dict[str, Any], Path]]) -> dict[Any, Trained]:
    """The configurations of trainings and where they go, as many at once as there are cores."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        futures = {
            key: pool.submit(_train, {**config, "output": output}, dict(data.test))
            for key, (config, output) in jobs.items()
        }
        return {key: future.result() for key, future in futures.items()}


def _train(config: dict[str, Any], test: Mapping[str, Sequence[str]]) -> Trained:
    import torch

    from tamis.trainers.config import TrainConfig
    from tamis.trainers.run import train
    from tamis.trainers.view import View

    torch.set_num_threads(1)
    with clock() as spent:
        folder = train(TrainConfig.model_validate(config), View(quiet=True))
    nats = {name: float(document_nats(folder, texts).sum()) for name, texts in test.items()}
    return Trained(nats, spent.cpu)


def _found_beforehand(data: Data, method: dict[str, Any], tokens: int, folder: Path) -> Any:
    """What ``tamis mix`` finds by trainings of its own."""
    import torch

    from tamis.mixers.mix import MixConfig, mix
    from tamis.trainers.proxies import Proxies

    torch.set_num_threads(1)
    uniform = dict.fromkeys(data.learn, 1 / len(data.learn))
    config = {
        "sources": list(data.learn), "method": method, "output": folder,
        "train": data.training(tokens, 0, uniform),
    }  # fmt: skip
    return mix(MixConfig.model_validate(config), Proxies)


@dataclass(frozen=True)
class Arm:
    """Proportions, or a method that changes them; what it trained besides, in whole trainings."""

    proportions: Mapping[str, float]
    methods: Sequence[Mapping[str, Any]] = ()
    extra: float = 0.0


def make_arms(data: Data, tokens: int, folder: Path) -> dict[str, Arm]:
    """All methods that are compared."""
    from tamis.mixers.mix import make_mixer
    from tamis.mixers.problem import Problem, Source

    known = tuple(Source(name=name, tokens=size) for name, size in data.tokens.items())
    problem = Problem(sources=known, budget=float(tokens))

    def by_size(method: Any) -> Arm:
        return Arm(make_mixer(method).start(problem).proportions())

    uniform = by_size("uniform").proportions
    count = len(known)

    def online(method: Any, extra: float = 0.0) -> Arm:
        return Arm(uniform, [{"mix": {"method": method}}], extra)

    runs = count + 5
    law = {"mixing_law": {"runs": runs, "form": "log_linear", "bootstraps": 0}}
    found = _found_beforehand(data, law, max(2000, int(tokens * PROXY)), folder / "law")
    graph = {"skill_it": {"rounds": ROUNDS, "graph_share": GRAPH}}
    skills = _found_beforehand(data, graph, tokens, folder / "graph").mixer
    given = {"skill_it": {"rounds": ROUNDS, "graph": skills.graph_by_name()}}
    probes = {"rounds": ROUNDS, "sweeps": 1, "probe_share": 0.3}
    return {
        BASELINE: Arm(uniform),
        "natural": by_size("natural"),
        "temperature 2": by_size({"temperature": {"temperature": 2}}),
        "UniMax, 1 epoch": by_size({"unimax": {"max_epochs": 1}}),
        "mixing law": Arm(found.proportions, extra=runs * PROXY),
        "Aioli, as published": online({"aioli": {**probes, "eta": 0.2, "ema": 0.1}}),
        "Aioli, cumulative": online({"aioli": {**probes, "eta": 1.0, "ema": None}}),
        "Skill-It": online(given, count * GRAPH),
        "ODM": online({"odm": {"steps": 100}}),
    }


def compare(data: Data, tokens: int, seeds: Sequence[int], folder: Path) -> str:
    """Every method on each seed: the change of the mean test perplexity against uniform."""
    arms = make_arms(data, tokens, folder)
    jobs = {
        (name, seed): (
            {**data.training(tokens, seed, arm.proportions), "methods": list(arm.methods)},
            folder / f"{name.replace(' ', '_')}-{seed}",
        )
        for name, arm in arms.items()
        for seed in seeds
    }
    trained = train_all(data, jobs)
    perplexity = {
        name: np.array([mean_perplexity(data, trained[name, seed]) for seed in seeds])
        for name in arms
    }
    cpu = {name: np.mean([trained[name, seed].cpu for seed in seeds]) for name in arms}
    rows = []
    for name, arm in arms.items():
        change = perplexity[name] - perplexity[BASELINE]
        rows.append([
            name, ", ".join(f"{share:.2f}" for share in arm.proportions.values())
            if not arm.methods else "changing",
            f"{perplexity[name].mean():.2f}",
            "" if name == BASELINE else with_interval(change),
            f"{arm.extra:.2f}", f"{cpu[name] / cpu[BASELINE]:.2f}",
        ])  # fmt: skip
    header = ["method", "proportions", "perplexity", "change (95 %)", "extra trainings", "CPU"]
    return table(header, rows)


def mean_perplexity(data: Data, one: Trained) -> float:
    """Per token, the mean of the sources."""
    each = [np.exp(nats / data.test_tokens[name]) for name, nats in one.nats.items()]
    return float(np.mean(each))


def with_interval(changes: Float64) -> str:
    """The mean, and Student's 95 % interval over seeds where there are at least two."""
    mean = float(changes.mean())
    if len(changes) not in _T95:
        return f"{mean:+.2f}"
    half = _T95[len(changes)] * float(changes.std(ddof=1)) / len(changes) ** 0.5
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def critical_ratio(corpus: Path, folder: Path, tokens: int, scale: float) -> str:
    """A model of general text goes on with a new domain: predicted and measured critical ratio."""
    sizes = dict.fromkeys((*GENERAL, DOMAIN), 1_500_000)
    learn, test = read_texts(corpus, sizes, scale)
    data = Data(
        folder / "data",
        {"general": [one for name in GENERAL for one in learn[name]], "domain": learn[DOMAIN]},
        {"general": [one for name in GENERAL for one in test[name]], "domain": test[DOMAIN]},
    ).write()
    start = folder / "base"
    base = train_all(data, {0: (data.training(tokens, 0, _ratio(1e-9)), start)})[0].nats["general"]
    runs = _continued(data, tokens // 2, start, RATIOS, folder)
    limit = base * (1 + TOLERANCE)
    lines = [
        f"{', '.join(GENERAL)}: {tokens:,} tokens; then {tokens // 2:,} more of which a part is "
        f"{DOMAIN}. The loss on the first may rise by {TOLERANCE:.0%}.\n",
    ]
    size = sum(len(text.encode()) for text in data.test["general"]) * np.log(2)
    rows = [["before", f"{base / size:.4f}", ""]]
    try:
        mixer = _predicted(runs, base)
        predicted, interval = mixer.ratio(), mixer.interval()
    except TamisError as error:
        return "\n".join([*lines, table(_HEADER, rows + _rows(runs, size)), f"{error}.\n"])
    more = sorted({round(float(np.clip(predicted + one, 0.02, 0.98)), 4) for one in AROUND})
    further = _continued(data, tokens // 2, start, more, folder)
    lines += [
        table(_HEADER, [*rows, *_rows(runs, size), *_rows(further, size)]),
        f"Predicted from the ratios {', '.join(map(str, RATIOS))}: {predicted:.3f} "
        f"({interval[0]:.3f} to {interval[1]:.3f}); measured at {', '.join(map(str, more))}: "
        f"{crossing(further, limit)}.\n",
    ]
    return "\n".join(lines)


_HEADER = [f"share of {DOMAIN}", "bits per byte, general", "nats, domain"]


def _rows(runs: Mapping[float, Trained], size: float) -> list[list[str]]:
    return [
        [f"{ratio:.3f}", f"{one.nats['general'] / size:.4f}", f"{one.nats['domain']:.0f}"]
        for ratio, one in runs.items()
    ]


def _ratio(share: float) -> dict[str, float]:
    return {"general": 1 - share, "domain": share}


def _continued(
    data: Data, tokens: int, start: Path, ratios: Sequence[float], folder: Path
) -> dict[float, Trained]:
    jobs = {
        ratio: (
            {**data.training(tokens, 1, _ratio(ratio)), "start_from": start},
            folder / f"ratio-{ratio}",
        )
        for ratio in ratios
    }
    return train_all(data, jobs)


def _predicted(runs: Mapping[float, Trained], base: float) -> Any:
    from tamis.mixers.cmr import CriticalRatio
    from tamis.mixers.problem import Problem, Source

    problem = Problem(sources=(Source(name="general"), Source(name="domain")))
    mixer = CriticalRatio(domain="domain", base=base, tolerance=TOLERANCE, relative=True)
    return mixer.start(problem).use(np.array(list(runs)), [one.nats for one in runs.values()])


def crossing(runs: Mapping[float, Trained], limit: float) -> str:
    """Where the general loss crosses the limit, in a straight line between two runs."""
    ratios = np.array(list(runs))
    over = np.array([one.nats["general"] for one in runs.values()]) - limit
    inside = np.flatnonzero((over[:-1] <= 0) & (over[1:] > 0))
    if not len(inside):
        return f"above {ratios[-1]:.3f}" if over[-1] <= 0 else f"below {ratios[0]:.3f}"
    at = int(inside[-1])
    part = over[at] / (over[at] - over[at + 1])
    return f"{ratios[at] + part * (ratios[at + 1] - ratios[at]):.3f}"


def run(
    corpus: Path, folder: Path, tokens: int = TOKENS, seeds: Sequence[int] = SEEDS,
    scale: float = 1.0,
) -> str:  # fmt: skip
    """The section; ``scale`` shrinks the texts, to try it."""
    lines = [
        "## How much of each source\n",
        f"Compact models on {tokens:,} tokens of English text, {len(seeds)} seeds. Perplexity is "
        "that of a token of test text, the mean of the sources; below 0 is better than stratified "
        "(uniform) proportions. Extra trainings: what was trained to find the proportions, in "
        "whole trainings. CPU: of the training itself, to that of stratified.\n",
    ]
    for count in (3, 6):
        sizes = dict(zip(SOURCES[:count], BYTES, strict=False))
        learn, test = read_texts(corpus, sizes, scale)
        data = Data(folder / f"data{count}", learn, test).write()
        lines += [
            f"### {count} sources: {', '.join(sizes)}\n",
            compare(data, tokens, seeds, folder / f"models{count}"),
        ]
    lines += ["### The critical ratio\n", critical_ratio(corpus, folder / "cmr", tokens, scale)]
    return "\n".join(lines)
