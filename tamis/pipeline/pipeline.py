"""The Python form of a recipe: the same names, the same checks.

tamis.Pipeline(tamis.read("crawl/*.jsonl.zst"), [GopherQuality(min_words=50)],
tamis.write("curated/")).run(workers=8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tamis.pipeline.errors import RecipeError
from tamis.pipeline.plan import Plan, make_plan
from tamis.pipeline.progress import Progress
from tamis.pipeline.readers import Input
from tamis.pipeline.recipe import Recipe, Source, check_stages, counts_words, load_recipe
from tamis.pipeline.run import run_recipe
from tamis.pipeline.stages import Stage
from tamis.pipeline.writers import Output


def read(path: str | Path | Sequence[str], **settings: Any) -> Input:
    """An input; ``settings`` are the keys of ``input:`` in a recipe (source, format, text, id,
    columns...).
    """
    where = list(path) if isinstance(path, list | tuple) else str(path)
    return Input(path=where, **settings)


def write(path: str | Path, **settings: Any) -> Output:
    """An output; ``settings`` are the keys of ``output:`` in a recipe (format, shard_size,
    compression_level).
    """
    return Output(path=str(path), **settings)


@dataclass(frozen=True)
class Run:
    """A finished run: where it is, and its manifest."""

    path: str
    manifest: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """Documents in, kept, dropped, failed and changed; bytes of text in and kept."""
        counts: dict[str, int] = self.manifest["counts"]
        return counts


class Pipeline:
    """Stages between an input and an output. Raises RecipeError when they do not fit together."""

    def __init__(
        self,
        input: Input | Sequence[Input],
        stages: Sequence[Stage],
        output: Output,
        **settings: Any,
    ) -> None:
        words = settings.get("words", "whitespace")
        several = (input,) if isinstance(input, Input) else tuple(input)
        try:
            self.recipe = Recipe(
                input=several,
                stages=tuple(_with_words(one, words) for one in stages),
                output=output,
                **settings,
            )
        except ValidationError as error:
            raise RecipeError(
                "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
            ) from None
        self.source = Source("pipeline")
        if problems := check_stages(self.recipe, self.source):
            raise RecipeError("\n".join(problems))
        self.yaml = yaml.safe_dump(self.recipe.to_plain(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_recipe(
        cls, path: str | Path, overrides: Sequence[str] = (), output: str | None = None
    ) -> Pipeline:
        """The pipeline of a recipe file; see ``recipe.load_recipe``."""
        pipeline = cls.__new__(cls)
        pipeline.recipe, pipeline.source = load_recipe(path, overrides, output)
        pipeline.yaml = Path(path).read_text(encoding="utf-8")
        return pipeline

    def plan(self) -> Plan:
        """What ``run`` would do; looks at the input, changes nothing."""
        return make_plan(self.recipe, self.source)

    def run(
        self,
        workers: int = 0,
        scheduler: str | None = None,
        fresh: bool = False,
        progress: Progress | None = None,
    ) -> Run:
        """Run or resume. ``workers=0`` stays in this process, ``scheduler`` is the address of a
        Dask cluster.

        Raises TamisError when the run cannot go on.
        """
        manifest = run_recipe(
            self.recipe,
            self.source,
            workers=workers,
            scheduler=scheduler,
            fresh=fresh,
            progress=progress,
            recipe_yaml=self.yaml,
        )
        return Run(manifest["run"], manifest)


def _with_words(stage: Stage, words: str) -> Stage:
    """The pipeline's word profile for a stage that counts words and was not given its own."""
    if not counts_words(type(stage)) or "words" in stage.model_fields_set:
        return stage
    return stage.model_copy(update={"words": words})
