"""The stages there are, as text: what ``tamis stages`` prints.

``python -m tamis.pipeline.catalogue`` prints the page docs/stages.md.
"""

from __future__ import annotations

import inspect
from typing import Any

from tamis.pipeline.errors import RecipeError, nearest
from tamis.pipeline.stages import Filter, Measure, Stage
from tamis.registry import is_stage, stage_class, stage_kinds, stage_targets


def list_stages() -> str:
    """A line per stage: its name and what it does."""
    lines = []
    for kind in stage_kinds():
        try:
            about = inspect.getdoc(stage_class(kind)) or ""
        except RecipeError as error:
            # A package of the user's that does not work does not hide the others.
            about = str(error)
        paragraph = about.partition("\n\n")[0]
        lines.append(f"{kind:<20} {' '.join(paragraph.split()).partition('. ')[0].rstrip('.')}")
    return "\n".join(lines)


def describe_stage(kind: str) -> str:
    """A stage's documentation, settings with defaults, measures and rules. Raises RecipeError for
    an unknown name.
    """
    if not is_stage(kind):
        raise RecipeError(f"there is no stage {kind}{nearest(kind, stage_kinds())}")
    cls = stage_class(kind)
    lines = [inspect.getdoc(cls) or kind, "", "settings"]
    for key, field in cls.model_fields.items():
        name = field.alias or key
        default = (
            "required" if field.is_required() else field.get_default(call_default_factory=True)
        )
        lines.append(
            f"  {name:<36} {default!r}" if default != "required" else f"  {name:<36} required"
        )
    return "\n".join([*lines, *_measures_and_rules(cls)])


def _measures_and_rules(cls: type[Stage]) -> list[str]:
    """Of the stage as it is by default; settings that are required are left empty."""
    required: dict[str, Any] = {
        name: () for name, field in cls.model_fields.items() if field.is_required()
    }
    stage = cls.model_construct(None, **required) if required else cls()
    lines = []
    if isinstance(stage, Measure):
        lines += ["", "measures"] + [f"  {one.name:<36} {one.meaning}" for one in stage.provides()]
    if isinstance(stage, Filter):
        lines += ["", "rules (a document is dropped if)"]
        for rule in stage.rules():
            threshold = rule.threshold(stage)
            shown = (
                "off" if threshold is None else f"{rule.measure} {rule.comparison} {threshold:.6g}"
            )
            lines.append(f"  {rule.field:<36} {shown}")
    return lines


def page() -> str:
    """All registered stages as a page in Markdown."""
    parts = [
        "# The stages",
        "What `tamis stages NAME` prints, for all of them: settings with their defaults, measures, "
        "and the rules in the order in which they are tried. A rule is named after the setting of "
        "its threshold; null switches it off.",
    ]
    for kind in sorted(stage_targets()):
        parts += [f"## {kind}", f"```text\n{describe_stage(kind)}\n```"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
