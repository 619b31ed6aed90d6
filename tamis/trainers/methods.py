"""The methods by their name in a configuration. A new method is one new file and one line here.

    methods: [{reweight: {kind: linupper, temperature: 0.4}}]

A method is a ``Hook`` whose fields are its settings; a configuration can name any one as
``module:class``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tamis.pipeline.errors import RecipeError, nearest
from tamis.registry import import_named
from tamis.trainers.hooks import Hook

METHODS = {
    "conditional": "tamis.trainers.conditional:Conditional",
    "filter": "tamis.trainers.conditional:Filter",
    "metadata": "tamis.trainers.metadata:Metadata",
    "mix": "tamis.trainers.mixing:Mix",
    "reward_weighted": "tamis.trainers.conditional:RewardWeighted",
    "reweight": "tamis.trainers.reweight:Reweight",
    "unlikelihood": "tamis.trainers.conditional:Unlikelihood",
}


def make_methods(methods: Sequence[Mapping[str, Mapping[str, Any]]]) -> tuple[Hook, ...]:
    """The methods of a configuration, in its order.

    Raises:
        RecipeError: if there is no such method, or a setting is wrong.
    """
    found = []
    for one in methods:
        if len(one) != 1:
            raise RecipeError(
                "methods: each is a name with its settings: - reweight: {temperature: 0.4}"
            )
        [(name, settings)] = one.items()
        found.append(_make(name, settings))
    return tuple(found)


def _make(name: str, settings: Mapping[str, Any]) -> Hook:
    cls = _method(name)
    try:
        return cls(**settings)
    except ValidationError as error:
        problems = []
        for one in error.errors(include_url=False):
            where = ".".join(["methods", name, *map(str, one["loc"])])
            reason = one["msg"].removeprefix("Value error, ")
            if one["type"] == "extra_forbidden":
                near = nearest(str(one["loc"][-1]), cls.model_fields)
                problems.append(f"{where}: there is no such setting{near}")
            elif one["type"] == "missing":
                problems.append(f"{where} is missing")
            else:
                shown = f" = {one['input']!r}" if one["loc"] else ""
                problems.append(f"{where}{shown}: {reason[0].lower() + reason[1:]}")
        raise RecipeError("\n".join(problems)) from None


def _method(name: str) -> type[Hook]:
    target = name if ":" in name else METHODS.get(name)
    if target is None:
        raise RecipeError(f"there is no method {name}{nearest(name, METHODS)}")
    found = import_named(target, f"the method {name}")
    if not (isinstance(found, type) and issubclass(found, Hook)):
        raise RecipeError(f"{name} is no method: it has to be a class derived from Hook")
    return found
