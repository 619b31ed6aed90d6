"""The recipe: YAML <-> typed configuration <-> Python objects, checked before anything runs.

    input: {path: "crawl/*.jsonl.zst", source: web}
    words: whitespace
    stages:
      - gopher_repetition
      - gopher_quality: {min_words: 50}
    output: {path: curated/}

Every error names the file, the line, the key and the nearest valid name; all errors of a recipe are
told at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args, runtime_checkable

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.pipeline.errors import RecipeError, nearest
from tamis.pipeline.readers import Input
from tamis.pipeline.readers.sizes import Size
from tamis.pipeline.stages import Filter, Measure, Stage
from tamis.pipeline.writers import Output
from tamis.registry import is_stage, stage_class, stage_kinds

Key: TypeAlias = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Recipe(BaseModel):
    """Everything that decides the bytes of the output."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    input: tuple[Input, ...]
    stages: tuple[Stage, ...] = ()
    output: Output
    words: Literal["whitespace", "unicode", "spacy"] = "whitespace"
    """The word profile of every stage that counts words and does not name its own."""
    measures: Literal["none", "keep", "all"] = "keep"
    """``keep``: every document's measures are written beside it; ``all``: also those of stages
    after the one that dropped it.
    """
    max_errors: int | None = None
    """The run fails when more documents than this failed (bad input or a stage's exception); None:
    no limit on bad input.
    """
    slice_size: Size | None = None
    """Input bytes per task; a file that can be split is split at about this size."""

    def to_plain(self) -> dict[str, Any]:
        """Plain values that ``parse`` turns into an equal recipe."""
        plain: dict[str, Any] = {
            "input": [one.model_dump(mode="json", exclude_defaults=True) for one in self.input],
            "words": self.words,
            "measures": self.measures,
            "max_errors": self.max_errors,
            "slice_size": self.slice_size,
            "stages": [{stage.kind: stage_config(stage)} for stage in self.stages],
            "output": self.output.model_dump(mode="json"),
        }
        return plain


def stage_config(stage: Stage) -> dict[str, Any]:
    """Every field of a stage as plain values (defaults included: they decide results as much as
    what was written).
    """
    config = stage.model_dump(mode="json")
    if stage.name == stage.kind:
        config.pop("name")
    return config


def counts_words(cls: type[Stage]) -> bool:
    """Whether a stage takes a word profile (its own field called ``words`` may be another)."""
    field = cls.model_fields.get("words")
    return field is not None and field.annotation == Recipe.model_fields["words"].annotation


@dataclass
class Source:
    """Where a recipe came from, to say where a mistake is."""

    name: str
    lines: dict[Key, int] = field(default_factory=dict)
    overrides: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """``recipe.yaml:12`` or the ``--set`` that gave this key."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.overrides:
                return self.overrides[key[:length]]
            if key[:length] in self.lines:
                return f"{self.name}:{self.lines[key[:length]]}"
        return self.name


class _Loader(yaml.SafeLoader):
    """Safe YAML in which only true and false are booleans (``no`` is a language) and 1e-3 is a
    number.
    """


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TRUE_FALSE = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _TRUE_FALSE, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), output: str | None = None
) -> tuple[Recipe, Source]:
    """Read and check a recipe file; ``overrides`` are ``stage.key=value``, ``output`` replaces
    ``output.path``.

    Raises RecipeError with one line per mistake.
    """
    return parse_recipe(_read(Path(path), "recipe"), str(path), overrides, output)


def load_settings(path: str | Path, cls: type[Model], overrides: Sequence[str] = ()) -> Model:
    """The settings of one model from a YAML file that is no recipe; ``overrides`` are
    ``key.key=value``.

    Raises RecipeError with one line per mistake.
    """
    source, problems = Source(str(path)), list[str]()
    plain = _compose(_read(Path(path), "file"), source)
    if not isinstance(plain, dict):
        keys = ", ".join(cls.model_fields)
        raise RecipeError(f"{path}: settings are a mapping with the keys {keys}")
    for override in overrides:
        names, equals, value = override.partition("=")
        if not equals or not names.strip():
            raise RecipeError(f"--set {override}: write it as key=value, or key.key=value")
        _set(plain, (), names.strip().split("."), value, source, override)
    settings = _validated(cls, plain, source, problems, ())
    if settings is None:
        raise RecipeError("\n".join(problems))
    return settings


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such {what}{nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a UTF-8 text file ({error})") from None


def parse_recipe(
    text: str, name: str = "recipe", overrides: Sequence[str] = (), output: str | None = None
) -> tuple[Recipe, Source]:
    """A recipe from YAML text; see ``load_recipe``."""
    source = Source(name)
    plain = _compose(text, source)
    if not isinstance(plain, dict):
        raise RecipeError(
            f"{name}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}"
        )
    for override in overrides:
        apply_override(plain, override, source)
    if output is not None:
        given = plain.get("output")
        plain["output"] = {**given, "path": output} if isinstance(given, dict) else {"path": output}
        source.overrides[("output", "path")] = "-o"
    return build_recipe(plain, source), source


def _compose(text: str, source: Source) -> Any:
    """Plain values, with the line of every key noted in the source."""
    try:
        node = yaml.compose(text, _Loader)
        if node is None:
            return None
        problems: list[str] = []
        _note_lines(node, (), source, problems)
        if problems:
            raise RecipeError("\n".join(problems))
        return _Loader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = error.problem or error.context
        raise RecipeError(f"{source.name}:{line}: not valid YAML: {what}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{source.name}: not valid YAML: {error}") from None


def _note_lines(node: yaml.Node, key: Key, source: Source, problems: list[str]) -> None:
    source.lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                # {{}}: the inner braces are the key.
                problems.append(
                    f"{source.name}:{name.start_mark.line + 1}: a key is a name, not a list or a "
                    "mapping; are there brackets or braces too many?"
                )
                continue
            inner = (*key, str(name.value))
            source.lines[inner] = name.start_mark.line + 1
            if name.value in seen:
                problems.append(f"{source.place(inner)}: the key {name.value} stands here twice")
            seen.add(name.value)
            _note_lines(value, inner, source, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*key, index), source, problems)


def apply_override(plain: dict[str, Any], override: str, source: Source) -> None:
    """``gopher_quality.min_words=100`` or ``words=unicode`` on plain values, before they are
    checked.
    """
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise RecipeError(
            f"--set {override}: write it as stage.key=value, "
            "for example gopher_quality.min_words=100"
        )
    first, *rest = path.strip().split(".")
    target: Any = plain
    key: Key = ()
    names = {_stage_name(entry): index for index, entry in enumerate(_listed(plain.get("stages")))}
    if first in names:
        index = names[first]
        target, key = _open_stage(plain["stages"], index), ("stages", index)
        key = (*key, next(iter(plain["stages"][index])))
    elif first in Recipe.model_fields and first != "stages":
        rest = [first, *rest]
    else:
        valid = [*names, *(one for one in Recipe.model_fields if one != "stages")]
        raise RecipeError(
            f"--set {override}: there is no {first} in the recipe{nearest(first, valid)}"
        )
    if not rest:
        raise RecipeError(f"--set {override}: name the key too, for example {first}.key=value")
    _set(target, key, rest, value, source, override)


def _set(
    target: Any,
    key: Key,
    names: Sequence[str],
    value: str,
    source: Source,
    override: str,
) -> None:
    """Give what ``names`` lead to from ``target``, which is at ``key``, a value in YAML."""
    for name in names[:-1]:
        key = (*key, name)
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override}: {'.'.join(map(str, key))} is not a mapping")
    last: str | int = int(names[-1]) if names[-1].isdigit() else names[-1]
    source.overrides[(*key, names[-1])] = f"--set {override}"
    try:
        target[last] = yaml.load(value, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
        target[last] = value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _stage_name(entry: Any) -> str:
    if isinstance(entry, dict) and len(entry) == 1:
        kind, config = next(iter(entry.items()))
        entry = config.get("name", config.get("as", kind)) if isinstance(config, dict) else kind
    # A stage of yours, module:name, is called by its name.
    return str(entry).rpartition(":")[2]


def _open_stage(stages: list[Any], index: int) -> dict[str, Any]:
    """The configuration mapping of a stage entry, made when the entry was only a name."""
    entry = stages[index]
    kind = next(iter(entry)) if isinstance(entry, dict) else str(entry)
    config = entry[kind] if isinstance(entry, dict) else None
    stages[index] = {kind: dict(config or {})}
    opened: dict[str, Any] = stages[index][kind]
    return opened


def build_recipe(plain: dict[str, Any], source: Source) -> Recipe:
    """Typed configuration from plain values; RecipeError with all mistakes."""
    problems: list[str] = []
    values = dict(plain)
    words = values.get("words", Recipe.model_fields["words"].default)
    stages = _build_stages(values.pop("stages", []), words, source, problems)
    inputs = values.pop("input", None)
    several = inputs if isinstance(inputs, list) else [inputs]
    if inputs is None:
        problems.append(f"{source.name}: there is no input; add input: {{path: ...}}")
        several = []
    built = [
        _validated(Input, {"path": one} if isinstance(one, str) else one, source, problems,
                   ("input", index) if isinstance(inputs, list) else ("input",))
        for index, one in enumerate(several)
    ]  # fmt: skip
    output = values.pop("output", None)
    if output is None:
        problems.append(
            f"{source.name}: there is no output folder; add output: {{path: ...}} or give -o DIR"
        )
    else:
        output = _validated(
            Output,
            {"path": output} if isinstance(output, str) else output,
            source,
            problems,
            ("output",),
        )
    _check_unknown_keys(values, source, problems)
    known = {name: value for name, value in values.items() if name in Recipe.model_fields}
    recipe = None
    placeholder = Output(path="-")
    try:
        recipe = Recipe(
            input=tuple(filter(None, built)),
            stages=tuple(filter(None, stages)),
            output=output or placeholder,
            **known,
        )
    except ValidationError as error:
        problems += _explain(error, Recipe, source, ())
    if recipe is not None and not problems:
        problems = check_stages(recipe, source)
    if problems or recipe is None:
        raise RecipeError("\n".join(problems))
    return recipe


def _check_unknown_keys(values: dict[str, Any], source: Source, problems: list[str]) -> None:
    valid = Recipe.model_fields
    problems.extend(
        f"{source.place((name,))}: {name} is not a key of a recipe{nearest(name, valid)}"
        for name in values
        if name not in valid
    )


def _build_stages(
    entries: Any, words: Any, source: Source, problems: list[str]
) -> list[Stage | None]:
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        problems.append(
            f"{source.place(('stages',))}: stages is a list, one stage a line with a dash in front"
        )
        return []
    return [
        _build_stage(entry, index, words, source, problems) for index, entry in enumerate(entries)
    ]


def _build_stage(
    entry: Any, index: int, words: Any, source: Source, problems: list[str]
) -> Stage | None:
    key: Key = ("stages", index)
    if isinstance(entry, dict) and len(entry) == 1:
        kind, config = next(iter(entry.items()))
    elif isinstance(entry, str):
        kind, config = entry, None
    else:
        problems.append(
            f"{source.place(key)}: a stage is a name, or one name with its settings: "
            "- gopher_quality: {min_words: 50}"
        )
        return None
    if not is_stage(str(kind)):
        problems.append(
            f"{source.place(key)}: there is no stage {kind}{nearest(str(kind), stage_kinds())}"
        )
        return None
    try:
        cls = stage_class(str(kind))
    except RecipeError as error:
        problems.append(f"{source.place(key)}: {error}")
        return None
    config = {} if config is None else config
    if isinstance(config, dict) and counts_words(cls):
        config = {"words": words, **config}
    return _validated(cls, config, source, problems, (*key, kind))


def _validated(
    cls: type[Model], config: Any, source: Source, problems: list[str], key: Key
) -> Model | None:
    if not isinstance(config, dict):
        problems.append(
            f"{source.place(key)}: {_dotted(key)} takes a mapping of settings, not {config!r}"
        )
        return None
    try:
        return cls(**{str(name): value for name, value in config.items()})
    except ValidationError as error:
        problems += _explain(error, cls, source, key)
    except RecipeError as error:
        problems.append(f"{source.place(key)}: {error}")
    return None


def _explain(error: ValidationError, model: type[BaseModel], source: Source, key: Key) -> list[str]:
    problems = []
    for one in error.errors(include_url=False):
        where = (*key, *(part for part in one["loc"] if part != "[key]"))
        name = str(one["loc"][-1]) if one["loc"] else ""
        if one["type"] == "extra_forbidden":
            fields = _nested(model, one["loc"][:-1]).model_fields
            names = [field.alias or key for key, field in fields.items()]
            message = f"{_dotted(where)}: there is no such setting{nearest(name, names)}"
        elif one["type"] == "missing":
            message = f"{_dotted(where)} is missing"
        else:
            reason = one["msg"].removeprefix("Value error, ")
            message = f"{_dotted(where)} = {one['input']!r}: {reason[0].lower() + reason[1:]}"
        problems.append(f"{source.place(where)}: {message}")
    return list(dict.fromkeys(problems))


def _nested(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    """The settings within settings that a path of their names leads to, as far as it does."""
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        # Settings that may be left out are a union with None.
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return model


def _dotted(key: Key) -> str:
    """The key as a user writes it: without ``stages`` and the stage's position."""
    parts = key[2:] if key[:1] == ("stages",) else key
    return ".".join(str(part) for part in parts)


def check_stages(recipe: Recipe, source: Source) -> list[str]:
    """Mistakes that a single setting does not show: repeated names, rules that can never match,
    missing models.
    """
    problems = []
    seen: dict[str, int] = {}
    for index, stage in enumerate(recipe.stages):
        key: Key = ("stages", index, stage.kind)
        if stage.name in seen:
            problems.append(
                f"{source.place(key)}: the stage {stage.name} stands here a second time; "
                f"give one of them a name: - {stage.kind}: {{name: {stage.name}_2}}"
            )
        seen[stage.name] = index
        problems += _rules_that_never_match(stage, key, source)
        try:
            models = stage.models()
        except RecipeError as error:
            problems.append(f"{source.place(key)}: {error}")
            continue
        for model in models:
            if not model.exists():
                problems.append(
                    f"{source.place(key)}: {stage.name} needs the file {model}, "
                    f"which is not there{nearest_file(model)}"
                )
    return problems


def _rules_that_never_match(stage: Stage, key: Key, source: Source) -> list[str]:
    if not isinstance(stage, Filter):
        return []
    problems = []
    quantities = {quantity.name: quantity for quantity in stage.provides()}
    for rule in stage.rules():
        threshold, quantity = rule.threshold(stage), quantities[rule.measure]
        if threshold is not None and not rule.can_fail(quantity, threshold):
            where = source.place((*key, *rule.field.split(".")))
            problems.append(
                f"{where}: {stage.name}.{rule.field} = {threshold:g} can never drop a document: "
                f"{rule.measure} lies between {quantity.low:g} and {quantity.high:g}; "
                "choose a value inside, or null to switch the rule off"
            )
    return problems


def check_columns(recipe: Recipe, columns: Iterable[str], source: Source) -> list[str]:
    """Columns that a stage needs and that neither the input nor an earlier stage provides."""
    problems = []
    available = list(columns)
    for index, stage in enumerate(recipe.stages):
        where = source.place(("stages", index, stage.kind))
        problems += [
            f"{where}: {stage.name} needs the column {name}, which neither the input nor an "
            f"earlier stage provides{nearest(name, available)}"
            for name in missing_columns(stage, available)
        ]
        if isinstance(stage, Measure):
            available += [f"{stage.name}.{quantity.name}" for quantity in stage.provides()]
    return problems


@runtime_checkable
class FindsColumns(Protocol):
    """A stage that needs one of several columns, whichever is there."""

    def missing(self, available: Sequence[str]) -> list[str]:
        """What it needs and is not there."""


def missing_columns(stage: Stage, available: Sequence[str]) -> list[str]:
    """Columns that a stage needs and that are not there."""
    if isinstance(stage, FindsColumns):
        return stage.missing(available)
    return [name for name in stage.requires() if name not in available]


def nearest_file(path: Path) -> str:
    """A file of a similar name in the same folder."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    close = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
