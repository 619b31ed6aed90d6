"""The stages there are, as text: what ``tamis stages`` prints."""

from __future__ import annotations

import inspect

from tamis.pipeline.errors import RecipeError
from tamis.pipeline.recipe import nearest
from tamis.pipeline.stages import Filter, Measure
from tamis.registry import stage_class, stage_kinds


def list_stages() -> str:
    """A line per stage: its name and what it does."""
    lines = []
    for kind in stage_kinds():
        paragraph = (inspect.getdoc(stage_class(kind)) or "").partition("\n\n")[0]
        lines.append(f"{kind:<20} {' '.join(paragraph.split()).partition('. ')[0].rstrip('.')}")
    return "\n".join(lines)


def describe_stage(kind: str) -> str:
    """A stage's documentation, settings with defaults, measures and rules. Raises RecipeError for
    an unknown name.
    """
    if kind not in stage_kinds():
        raise RecipeError(f"there is no stage {kind}{nearest(kind, stage_kinds())}")
    cls = stage_class(kind)
    lines = [inspect.getdoc(cls) or kind, "", "settings"]
    for name, field in cls.model_fields.items():
        default = (
            "required" if field.is_required() else field.get_default(call_default_factory=True)
        )
        lines.append(
            f"  {name:<32} {default!r}" if default != "required" else f"  {name:<32} required"
        )
    if any(field.is_required() for field in cls.model_fields.values()):
        return "\n".join(lines)
    stage = cls()
    if isinstance(stage, Measure):
        lines += ["", "measures"] + [f"  {one.name:<32} {one.meaning}" for one in stage.provides()]
    if isinstance(stage, Filter):
        lines += ["", "rules (a document is dropped if)"]
        for rule in stage.rules():
            threshold = rule.threshold(stage)
            shown = (
                "off" if threshold is None else f"{rule.measure} {rule.comparison} {threshold:.6g}"
            )
            lines.append(f"  {rule.field:<32} {shown}")
    return "\n".join(lines)
