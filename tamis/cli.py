"""The command line: one function a command, no logic of its own. Exit status: 0 ok, 1 failed, 2 a
wrong recipe or call.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import warnings
from typing import Annotated, Any

import typer

from tamis.pipeline.errors import TamisError

_FORMAT = warnings.formatwarning

app = typer.Typer(
    help="Curate language-model training data, and see why every document was kept or dropped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe in YAML.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")]
OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", help="Run folder, instead of the recipe's.")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting; repeatable."),
]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Workers on this machine; 0 works in this process.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, e.g. tcp://host:8786.")
]


@app.command()
def run(
    recipe: RecipePath,
    output: OutputOption = None,
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    fresh: Annotated[bool, typer.Option(help="Forget what an earlier run finished.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress, only the result.")] = False,
) -> None:
    """Run a recipe, or resume it where it was stopped."""
    from tamis.pipeline.pipeline import Pipeline
    from tamis.pipeline.progress import Progress
    from tamis.pipeline.summary import format_summary

    pipeline = Pipeline.from_recipe(recipe, set_, output)
    # One worker needs no cluster: the work is done here.
    count = 0 if workers == 1 else workers
    finished = pipeline.run(count, scheduler, fresh, Progress(quiet=quiet))
    typer.echo(format_summary(finished.manifest))


@app.command()
def check(recipe: RecipePath, output: OutputOption = None, set_: SetOption = []) -> None:  # noqa: B006
    """Check a recipe and print its plan: input, columns, phases, tasks, models, and how much would
    be asked of language models.
    """
    from tamis.pipeline.estimate import estimates
    from tamis.pipeline.pipeline import Pipeline
    from tamis.pipeline.plan import describe

    plan = Pipeline.from_recipe(recipe, set_, output).plan()
    typer.echo(describe(plan))
    for line in estimates(plan):
        typer.echo(f"cost     {line}")


@app.command()
def explain(
    run: RunPath, id: Annotated[str, typer.Argument(metavar="ID", help="A document's id.")]
) -> None:
    """The way of one document: each stage, its measures, the rule that dropped it."""
    from tamis.pipeline.explain import explain as ways_of
    from tamis.pipeline.explain import format_way

    ways = ways_of(run, id)
    if len(ways) > 1:
        typer.echo(f"{len(ways)} documents have this id\n")
    typer.echo("\n\n".join(format_way(way) for way in ways))


@app.command()
def retune(
    run: RunPath,
    set_: SetOption,
    write: Annotated[
        bool, typer.Option("--write", help="Run again with the new settings.")
    ] = False,
    workers: WorkersOption = 1,
) -> None:
    """What other thresholds would change, from the kept measures, without reading the text."""
    from tamis.pipeline.progress import Progress
    from tamis.pipeline.retune import format_retuned, write_retuned
    from tamis.pipeline.retune import retune as decide_again
    from tamis.pipeline.summary import format_summary

    typer.echo(format_retuned(decide_again(run, set_)))
    if write:
        manifest = write_retuned(run, set_, 0 if workers == 1 else workers, Progress())
        typer.echo("\n" + format_summary(manifest))


@app.command()
def report(run: RunPath) -> None:
    """Make the HTML report of a run again and say where it is."""
    from tamis.pipeline.explain import read_manifest
    from tamis.pipeline.run import write_report

    folder, manifest = read_manifest(run)
    write_report(folder, manifest)
    typer.echo(f"{run}/report.html")


@app.command()
def stages(name: Annotated[str | None, typer.Argument(metavar="[STAGE]")] = None) -> None:
    """The stages there are; with a name, its settings, what it measures, and its rules."""
    from tamis.pipeline.catalogue import describe_stage, list_stages

    typer.echo(list_stages() if name is None else describe_stage(name))


@app.command()
def score(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs; - is stdin.")
    ],
    with_: Annotated[
        list[str],
        typer.Option("--with", metavar="SCORER", help="A model or measuring stage; repeatable."),
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder for Parquet with the scores.")
    ] = None,
    names: Annotated[
        list[str], typer.Option("--as", metavar="NAME", help="The scorer's name; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    workers: WorkersOption = 1,
    top: Annotated[int, typer.Option(min=0, help="Highest and lowest of the page.")] = 10,
    threshold: Annotated[
        float | None, typer.Option(help="Show the documents around this score too.")
    ] = None,
    jsonl: Annotated[bool, typer.Option(help="Print records, not id and scores.")] = False,
    text: Annotated[str, typer.Option(help="The key or column of the text.")] = "text",
    id_: Annotated[str, typer.Option("--id", help="The key or column of the id.")] = "id",
    quiet: Annotated[bool, typer.Option(help="No progress, only the result.")] = False,
) -> None:
    """Add scores to files, or print them; JSONL from stdin goes through as it comes."""
    from tamis.scorers.command import ScoreCommand

    asked = ScoreCommand(inputs, with_, names, output, workers, top, threshold, jsonl, text, id_)
    asked.run(sys.stdin.buffer, sys.stdout.buffer, quiet)


@app.command()
def fit(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="What to train: toxicity.")],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Its settings in YAML.")],
) -> None:
    """Train a classifier or scorer, and say how good it is on data held out."""
    from tamis.fit import fit as fit_method

    typer.echo(fit_method(method, config))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The folder of a model.")],
    tasks: Annotated[
        list[str], typer.Option(metavar="FILE", help="Items in JSONL; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    held_out: Annotated[
        list[str], typer.Option(metavar="[NAME=]PATH", help="Documents; repeatable.")
    ] = [],  # noqa: B006
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens seen at once, by default the model's.")
    ] = None,
    cloze: Annotated[int, typer.Option(min=0, help="Cloze items a held-out source.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items of a task.")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder for every item and the means.")
    ] = None,
) -> None:
    """Measure a model: bits per byte of documents, and the items of tasks."""
    from tamis.trainers.evaluation import Evaluation
    from tamis.trainers.evaluation import evaluate as evaluate_model

    asked = Evaluation(
        tasks=tuple(tasks), held_out=tuple(held_out), context=context, cloze=cloze, limit=limit
    )
    results = evaluate_model(model, asked, output, lambda line: typer.echo(line, err=True))
    typer.echo(results.format())


@app.command()
def mix(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Sources and a method in YAML.")],
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable."),
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """How much of each source to train on: from sizes, a table of runs, or runs that it starts."""
    from tamis.mixers.mix import MixConfig
    from tamis.mixers.mix import mix as find_proportions
    from tamis.pipeline.recipe import load_settings

    settings = load_settings(config, MixConfig, set_)
    runner = None
    if settings.train is not None:
        from tamis.trainers.proxies import Proxies

        runner = Proxies
    typer.echo(find_proportions(settings, runner).format())


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A training in YAML.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder, instead of the file's.")
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable."),
    ] = [],  # noqa: B006 - typer copies it
    fresh: Annotated[bool, typer.Option(help="Forget earlier checkpoints.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress, only the result.")] = False,
) -> None:
    """Train a small model on curated shards, or go on where it was stopped."""
    from tamis.pipeline.recipe import load_settings
    from tamis.trainers.config import TrainConfig
    from tamis.trainers.run import train as train_model
    from tamis.trainers.view import View

    given = [*set_, f"output={output}"] if output else set_
    folder = train_model(load_settings(config, TrainConfig, given), View(quiet=quiet), fresh)
    typer.echo(f"the model is in {folder}/model, how it was trained in {folder}/report.html")


@app.command()
def generate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The folder of a model, or of a training.")
    ],
    prompt: Annotated[str, typer.Option(help="How the text begins.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens that follow.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the likeliest token, 1 draws as the model says.")
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw from so many likeliest tokens only.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Let a model go on with a text."""
    from tamis.trainers.export import load_with_tokenizer
    from tamis.trainers.generate import generate as go_on

    loaded, tokenizer = load_with_tokenizer(model)
    typer.echo(prompt + go_on(loaded, tokenizer, prompt, tokens, temperature, top_k, seed))


@app.command()
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a training, checkpoint or model.")
    ],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A new folder.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Write a model for transformers, vLLM and lm-eval."""
    from tamis.trainers.export import export as write_model

    typer.echo(str(write_model(run, folder, dtype)))


@app.command()
def warmup() -> None:
    """Compile all kernels now, so that the first run does not wait for them."""
    from tamis.pipeline.warmup import compile_all

    for name, seconds in compile_all():
        typer.echo(f"{name:<20} {seconds:6.1f} s")


@app.command()
def demo(
    output: Annotated[str, typer.Option("-o", "--output", help="Run folder.")] = "demo-run",
    workers: WorkersOption = 1,
) -> None:
    """Curate the small real corpus that comes with tamis, and say what happened to it."""
    from tamis.demo import run_demo

    typer.echo(run_demo(output, 0 if workers == 1 else workers))


def _sentence(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
    """What users should know, without the line of the source that it comes from."""
    if category is UserWarning:
        return f"note: {message}\n"
    return _FORMAT(message, category, *where, **more)


def main() -> None:
    """The ``tamis`` command: errors and warnings are one sentence, never a traceback."""
    warnings.formatwarning = _sentence
    try:
        app()
    except TamisError as error:
        print(f"tamis: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("tamis: interrupted; run the same command again to go on from here", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - a fault of ours still ends in one sentence
        with tempfile.NamedTemporaryFile("w", prefix="tamis-", suffix=".log", delete=False) as log:
            traceback.print_exc(file=log)
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"tamis: unexpected {text}; the details are in {log.name}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
