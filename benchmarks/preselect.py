"""PreSelect from end to end: ladders of compact models trained here, their losses on a seed set,
the classifier, and what it picks from documents that nobody has seen.

The benchmark is held-out text of three domains (the target), in bits per byte. The models of one
ladder have the same size and see more and more of the target; those of the other see the same text
and are larger and larger.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from benchmarks.harness import clock, table

TARGET = ("biographies", "encyclopedia", "news")
OTHERS = (
    "email", "law", "licences/legal", "literature", "manual pages", "medicine", "religion",
    "speeches",
)  # fmt: skip
PIECE = 2000
"""Characters of a document; longer ones are cut into so long ones, and what is less than half as
long is left out.
"""
PARTS = {"learn": 0.6, "benchmark": 0.05, "seed": 0.2, "pool": 0.15}
BYTES = {"learn": 4_000_000, "benchmark": 60_000, "seed": 200_000, "pool": 300_000}
"""Of each domain, at most."""
VOCABULARY, CONTEXT, BATCH = 2048, 128, 16
TOKENS = 400_000
SHARES = (0.02, 0.08, 0.16, 0.28, 0.44, 0.64)
"""Of the target, in what the models of the first ladder learn."""
WIDTHS = (32, 48, 64, 96, 128, 192)
"""Of the models of the second ladder."""
WIDTH, LAYERS, HEAD = 96, 3, 16

Parts = dict[str, dict[str, list[str]]]


def split_domains(corpus: Path, scale: float) -> Parts:
    """Texts by part and domain, of English documents; copies are in the same part."""
    parts: Parts = {name: defaultdict(list) for name in PARTS}
    used: Counter[tuple[str, str]] = Counter()
    edges = np.cumsum(list(PARTS.values()))
    with corpus.open("rb") as lines:
        for record in map(orjson.loads, lines):
            domain, text = record["domain"], record.get("text")
            if not text or record["lang"] != "en" or domain not in (*TARGET, *OTHERS):
                continue
            for begin in range(0, len(text), PIECE):
                piece = text[begin : begin + PIECE]
                if len(piece) < PIECE / 2:
                    continue
                draw = xxhash.xxh3_64_intdigest(piece.encode()) / 2**64
                part = list(PARTS)[min(int(np.searchsorted(edges, draw)), len(PARTS) - 1)]
                if used[part, domain] < BYTES[part] * scale:
                    used[part, domain] += len(piece.encode())
                    parts[part][domain].append(piece)
    return parts


def write(path: Path, texts: Mapping[str, Sequence[str]]) -> Path:
    """Texts by domain as JSONL; the column source is the domain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for domain, of_domain in texts.items():
            for number, text in enumerate(of_domain):
                record = {"id": f"{domain}/{number}", "text": text, "source": domain}
                file.write(json.dumps(record) + "\n")
    return path


def train_ladder(folder: Path, parts: Parts, tokens: int, by: str) -> list[dict[str, Any]]:
    """The models of a ladder, ``by`` the share of the target or by size: folder, benchmark, and
    what it took.
    """
    from tamis.trainers.config import TrainConfig
    from tamis.trainers.evaluation.evaluate import Evaluation, evaluate
    from tamis.trainers.export import load_model
    from tamis.trainers.run import train
    from tamis.trainers.tokenizer import train_tokenizer
    from tamis.trainers.view import View

    tokenizer = folder / "tokenizer"
    learn = parts["learn"]
    if not tokenizer.exists():
        sample = (text for texts in learn.values() for text in texts[: 10 + len(texts) // 10])
        train_tokenizer(sample, VOCABULARY).save(tokenizer)
    kinds = {"target": TARGET, "others": OTHERS}
    for name, domains in kinds.items():
        write(folder / f"{name}.jsonl", {one: learn[one] for one in domains})
    held_out = write(folder / "held_out.jsonl", {one: parts["benchmark"][one] for one in TARGET})
    ladder = []
    for share, width in [(one, WIDTH) for one in SHARES] if by == "share" else [
        (0.3, one) for one in WIDTHS
    ]:  # fmt: skip
        proportions = {"target": share, "others": 1 - share}
        sources = {
            name: {"path": str(folder / f"{name}.jsonl"), "proportion": proportions[name]}
            for name in kinds
        }
        config = {
            "output": folder / f"{by}-{share}-{width}",
            "data": {
                "sources": sources, "tokenizer": str(tokenizer), "context": CONTEXT,
                "held_out": 0.0, "tokens": folder / "tokens",
            },
            "model": {"hidden_size": width, "layers": LAYERS, "heads": width // HEAD},
            "optimizer": {"kind": "muon"}, "tokens": tokens, "batch": BATCH,
            "evaluation": {"times": 1}, "checkpoints": {"minutes": 60},
        }  # fmt: skip
        with clock() as spent:
            made = train(TrainConfig.model_validate(config), View(quiet=True))
        results = evaluate(made, Evaluation(held_out=(str(held_out),)), folder / f"{made.name}-r")
        assert results.all_sources is not None
        ladder.append({
            "model": made, "benchmark": folder / f"{made.name}-r", "share": share,
            "parameters": load_model(made / "model").parameter_counts()["total"],
            "bits": results.all_sources.bits_per_byte, "cpu": spent.cpu,
        })  # fmt: skip
    return ladder


def fit_and_pick(folder: Path, parts: Parts, ladder: list[dict[str, Any]], name: str) -> str:
    """What ``tamis fit preselect`` says, and what its classifier picks from the pool."""
    from tamis.pipeline.errors import TamisError
    from tamis.scorers.preselect import FitPreSelect

    seed = write(folder / "seed.jsonl", parts["seed"])
    # Windows without overlap: a model of 128 tokens is asked about each token once.
    rated = [
        {"model": one["model"], "benchmark": one["benchmark"], "stride": CONTEXT,
         "name": f"{one['parameters']:,} parameters, {one['share']:.0%}"}
        for one in ladder
    ]  # fmt: skip
    config = {
        "data": str(seed), "models": rated, "output": folder / f"{name}.bin",
        "per_group": {"column": "source", "groups": 20, "documents": 10_000},
    }  # fmt: skip
    with clock() as fitting:
        try:
            said = FitPreSelect.model_validate(config).fit()
        except TamisError as error:
            return f"No classifier: {error}\n"
    cost = f"Losses and classifier: {fitting.cpu:.0f} CPU seconds for {_megabytes(seed)}.\n"
    said = said.replace(f"{folder}/", "")
    return "\n".join(["```text", said, "```\n", cost, pick(folder / f"{name}.bin", parts["pool"])])


def pick(model: Path, texts: Mapping[str, Sequence[str]]) -> str:
    """What the classifier thinks of the pool."""
    import tamis

    pool = [(domain, one) for domain, of_domain in texts.items() for one in of_domain]
    stage = tamis.FastText(model=model)
    stage({"text": ["the first text reads the model and compiles the kernels"]})
    with clock() as scoring:
        scored = stage(pa.table({"text": [text for _, text in pool]}))
    logit = scored.column("fasttext.logit").to_numpy()
    order = np.argsort(-np.nan_to_num(logit, nan=-np.inf), kind="stable")
    size = np.array([len(text.encode()) for _, text in pool])
    picked = order[: int(np.searchsorted(size[order].cumsum(), size.sum() * 0.1)) + 1]
    return "\n".join([
        _composition(pool, size, picked),
        f"Scoring the pool: {scoring.cpu:.3f} CPU seconds for {size.sum() / 1e6:.1f} MB.\n",
        _samples("top", [pool[one] for one in order[:5]]),
        _samples("bottom", [pool[one] for one in order[-5:]]),
    ])  # fmt: skip


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB of documents"


def _composition(pool: Sequence[tuple[str, str]], size: Any, picked: Any) -> str:
    before, after = Counter[str](), Counter[str]()
    for number, (domain, _) in enumerate(pool):
        before[domain] += int(size[number])
    for number in picked:
        after[pool[number][0]] += int(size[number])
    total, kept = before.total(), after.total()
    rows = [
        [f"**{one}**" if one in TARGET else one, f"{before[one] / total:.1%}",
         f"{after[one] / kept:.1%}"]
        for one in sorted(before, key=lambda one: -after[one] / before[one])
    ]  # fmt: skip
    of_target = [sum(one[domain] for domain in TARGET) for one in (before, after)]
    rows.append(["target together", f"{of_target[0] / total:.1%}", f"{of_target[1] / kept:.1%}"])
    return table(["domain (target in bold)", "of the pool's bytes", "of the best tenth"], rows)


def _samples(which: str, pool: Sequence[tuple[str, str]]) -> str:
    lines = [f"{domain}: {' '.join(text.split())[:110]!r}" for domain, text in pool]
    return (
        f"The {which} five:\n\n" + "\n".join(f"- {one.replace('|', '/')}" for one in lines) + "\n"
    )


def run(corpus: Path, folder: Path, scale: float = 1.0) -> str:
    """The section; ``scale`` shrinks data and training, to try it."""
    parts = split_domains(corpus, scale)
    tokens = max(20_000, int(TOKENS * scale))
    out = [
        "## PreSelect end to end\n",
        f"Six models a ladder, {tokens:,} tokens each, trained on "
        f"{sum(len(one) for one in parts['learn'].values()):,} pieces of {len(OTHERS)} domains and "
        f"the target ({', '.join(TARGET)}); the benchmark is other text of the target.\n",
    ]
    for by, title in (("share", "More and more of the target"), ("size", "Larger and larger")):
        ladder = train_ladder(folder / "ladder", parts, tokens, by)
        rows = [
            [f"{one['parameters']:,}", f"{one['share']:.0%}", f"{one['bits']:.4f}",
             f"{one['cpu']:.0f}"]
            for one in ladder
        ]  # fmt: skip
        out += [
            f"### {title}\n",
            table(["parameters", "target in training", "bits per byte", "CPU s"], rows),
            fit_and_pick(folder, parts, ladder, by),
        ]
    return "\n".join(out)
