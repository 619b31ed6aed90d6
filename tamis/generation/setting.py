"""A generator as the setting of a stage: read from a recipe, and written as plain values."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from tamis.generation.generator import Generator
from tamis.pipeline.errors import nearest

_KINDS = {
    "openai": "tamis.generation.openai:OpenAI",
    "transformers": "tamis.generation.transformers:Transformers",
    "vllm": "tamis.generation.vllm:Vllm",
}


def read_generator(value: Any) -> Generator:
    """The generator of a setting: ``{name: model}`` or ``{name: {settings}}``.

    Raises:
        ValueError: for anything else, in one sentence.
    """
    if isinstance(value, Generator):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("it is {openai: {url: URL, model: NAME}} or {transformers: FOLDER}")
    ((kind, settings),) = value.items()
    if kind not in _KINDS:
        raise ValueError(f"there is no generator {kind}{nearest(str(kind), _KINDS)}")
    module, _, name = _KINDS[kind].partition(":")
    cls: type[Generator] = getattr(import_module(module), name)
    if not isinstance(settings, dict):
        settings = {} if settings is None else {cls.main: settings}
    try:
        return cls(**{str(name): one for name, one in settings.items()})
    except ValidationError as error:
        raise ValueError(_explained(error, cls)) from None


def _explained(error: ValidationError, cls: type[Generator]) -> str:
    """In one sentence, without the value: it may be a key or a password in the wrong place."""
    one = error.errors(include_url=False)[0]
    name = ".".join(map(str, one["loc"]))
    if one["type"] == "extra_forbidden":
        return f"{cls.kind} has no setting {name}{nearest(name, cls.model_fields)}"
    if one["type"] == "missing":
        return f"{cls.kind} needs its {name}: {{{cls.kind}: {{{name}: ...}}}}"
    reason = one["msg"].removeprefix("Value error, ")
    return f"{cls.kind}.{name}: {reason[:1].lower() + reason[1:]}"


Generation = Annotated[
    Generator, BeforeValidator(read_generator), PlainSerializer(lambda one: one.settings())
]
"""The type of a stage's setting."""
