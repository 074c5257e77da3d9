"""docs/families.md: every image-text-to-text class of the installed transformers, and what is done with its models.

What is mapped and what is refused is taken from the registry, and which families have a tiny model from `BUILDERS`;
what must be run to be known is taken from trials.json (`__main__.py` writes both files).
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.families import registry
from latentlens_dag.testing.families import BUILDERS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "families.md"
TRIALS = Path(__file__).parent / "trials.json"
COMMAND = "python -m tests.families"
MAPPED, WITH_TORCHVISION = "mapped and proved", "mapped, needs torchvision"
READ, REFUSED, NOT_TRIED = "read without boxes", "refused", "not tried"
MEANINGS = {
    MAPPED: "each visual token that shows pixels has its box, proved by localization on a tiny random model",
    WITH_TORCHVISION: "the same, but proved with a stand-in for torchvision only, or where torchvision is installed",
    READ: "visual tokens are read at every layer, but have no place in the image, and so no verdicts",
    REFUSED: "the model is refused for this reason",
    NOT_TRIED: "unknown, since no tiny model of it could be made and shown an image",
}
_OUTCOMES = {"proved": MAPPED, "read": READ, "refused": REFUSED, "not tried": NOT_TRIED}


def classes() -> dict[str, str]:
    """`model_type` -> class, of every class that `load_vlm` may load."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return dict(sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()))


def other_classes() -> list[str]:
    """The `model_type` of the multimodal classes that `load_vlm` does not load."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

    return sorted(set(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES) - set(classes()))


def read_trials() -> dict[str, Any]:
    """What is stored: the version of transformers, and `families`: `model_type` -> the fields of a `Trial`."""
    stored: dict[str, Any] = json.loads(TRIALS.read_text(encoding="utf-8"))
    return stored


def render(stored: Mapping[str, Any]) -> str:
    """The document.

    Raises:
        ValueError: if a tiny model of a builder could not be read: such a row is not published.
    """
    trials = stored["families"]
    crashed = sorted(name for name, trial in trials.items() if trial["outcome"] == "crashed")
    if crashed:
        raise ValueError(f"Tiny models that cannot be read: {', '.join(crashed)}. {TRIALS} has the errors.")
    rows = [_row(name, class_name, trials.get(name, {})) for name, class_name in classes().items()]
    counts = Counter(row[2] for row in rows)
    return f"""\
# Families of vision-language models

Every image-text-to-text class of transformers {stored["transformers"]}, by the `model_type` of a model's config.json.
`{COMMAND}` writes this file: do not edit it.

| status | types | meaning |
|---|---|---|
{_lines((status, str(counts[status]), meaning) for status, meaning in MEANINGS.items())}

A family with a region map has a tiny random model in `latentlens_dag.testing`; other families were tried with a tiny
model made of the defaults of transformers. "Torchvision" says whether images cannot be prepared without it.
Where several images share a prompt, `llava_onevision` shows each in its global view only, padded to a square, without
tiles.
Some classes stand for more than one `model_type`. `load_vlm` does not load other multimodal classes:
{", ".join(f"`{name}`" for name in other_classes())}.

| `model_type` | class | status | boxes, or why not | torchvision |
|---|---|---|---|---|
{_lines(rows)}
"""


def registry_refusal(model_type: str) -> str | None:
    """The reason for which the registry refuses a family; None if it does not."""
    try:
        registry.is_mapped(model_type, "A model")
    except UserError as error:
        return str(error).partition("cannot be read: ")[2].partition(". ")[0]
    return None


def _lines(rows: Any) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(model_type: str, class_name: str, trial: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    status, reason = _status(model_type, trial)
    return f"`{model_type}`", class_name, status, reason, _torchvision(model_type, status)


def _status(model_type: str, trial: Mapping[str, Any]) -> tuple[str, str]:
    """The status of a family, and the reason or the map."""
    refusal = registry_refusal(model_type)
    if refusal is not None:
        return REFUSED, refusal
    if model_type in registry._MODULES and model_type in BUILDERS:
        needs = model_type in registry.NEED_TORCHVISION
        return WITH_TORCHVISION if needs else MAPPED, _map(registry._MODULES[model_type])
    if not trial or trial["outcome"] == "proved":
        return NOT_TRIED, f"`{COMMAND} {model_type}` tries it"
    why = registry.why_unmapped(model_type)
    if trial["outcome"] == "read":
        return READ, why or "no region map was written"
    boxes = f"it would have no boxes: {why}" if why else None
    return _OUTCOMES[trial["outcome"]], "; ".join(filter(None, (trial.get("reason"), trial.get("known"), boxes)))


def _map(module: str) -> str:
    """A link to the module of a region map, and what the first line of its docstring says of the boxes."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin)
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    title = " ".join(docstring.partition("\n\n")[0].split()).partition(": ")[2] or docstring.splitlines()[0]
    return f"[{file.stem}](../{file.relative_to(ROOT).as_posix()}): {title.rstrip('.')}"


def _torchvision(model_type: str, status: str) -> str:
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    if status == REFUSED:
        return ""
    if status == MAPPED:
        return "yes" if model_type in registry.NEED_TORCHVISION else "no"
    variants = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
    return "" if variants is None else "no" if "pil" in variants else "yes"
