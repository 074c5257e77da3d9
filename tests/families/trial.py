"""One family of transformers, tried: `python -m tests.families.trial MODEL_TYPE` prints what was found, as JSON.

It runs in a process of its own, because what it tries may crash, hang or take all memory (`__main__.py` limits both).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.families import registry
from latentlens_dag.testing import tiny_families, tiny_vlm
from tests.families.generic import CannotBeMadeError, GenericModel
from tests.families.table import registry_refusal

SIZES = [(150, 100), (90, 140), (96, 96)]
MOST_PARAMETERS = 400_000_000  # of a model that is made in memory; larger ones are made on the meta device only


@dataclass(frozen=True)
class Trial:
    """What was found of a family."""

    outcome: str
    """`proved`, `read`, `refused`, `not tried`; `crashed` if a model of its own builder cannot be read."""
    reason: str = ""
    """Why it is refused or was not tried, as the end of a sentence about the family."""
    made: str = ""
    """What was read: `builder`, or `defaults` for a model made of the defaults of transformers."""
    tokens: tuple[int, ...] = ()
    """Visual tokens of an image of each size of SIZES."""
    known: str = ""
    """What is known of a family that was not shown an image, as the end of a sentence about it."""
    detail: str = ""
    """The error, for who wants to make it a builder; not shown in the table."""


def try_family(model_type: str) -> Trial:
    """Try what can be tried of a family."""
    reason = registry_refusal(model_type)
    if reason is not None:
        return Trial("refused", reason)
    try:
        registry.check_packages(model_type, model_type)
    except UserError:
        return Trial("not tried", "its image processor needs torchvision", "builder")
    return _try_builder(model_type) if model_type in tiny_families() else _try_defaults(model_type)


def _try_builder(model_type: str) -> Trial:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _read(tiny_vlm(model_type, Path(folder)), "builder")
        except Exception as error:
            return Trial("crashed", "a tiny model of it cannot be read", "builder", detail=_detail(error))


def _read(folder: Path, made: str) -> Trial:
    """Load a model, read images of all sizes, and prove the map of a mapped family."""
    from latentlens_dag.models.loading import load_vlm
    from latentlens_dag.models.localization import localization
    from latentlens_dag.models.self_checks import logits_reproduced, noise_image

    vlm = load_vlm(folder, device="cpu")
    images = [noise_image(*size) for size in SIZES]
    tokens = tuple(_tokens(vlm, image) for image in images)
    if not logits_reproduced(vlm, images[0]).passed:
        return Trial("crashed" if made == "builder" else "not tried", "its logits are not reproduced", made, tokens)
    if vlm.token_map(150, 100) is None:
        return Trial("read", "", made, tokens)
    shares = [localization(vlm, image, per_view=None).figure for image in images]
    proved = shares == [1.0] * len(SIZES)
    return Trial("proved" if proved else "crashed", "" if proved else f"localization {shares}", made, tokens)


def _tokens(vlm: Any, image: Any) -> int:
    """The number of visual tokens of an image, each of which has an image feature of the language model's width."""
    try:
        return len(vlm.visual_states([image], [0, 1], connector=True).tokens)
    except UserError as error:
        if "neither passes image features" not in str(error):
            raise
        return len(vlm.visual_states([image], [0, 1]).tokens)


def _try_defaults(model_type: str) -> Trial:
    """Make a tiny model of the defaults of a family, and read it; where that fails, say what is known of its parts."""
    try:
        model = GenericModel(model_type)
        known = _without_image(model)
    except UserError as error:
        return Trial("refused", str(error))
    except Exception as error:
        reason = _in_words(error, "the defaults of its config make no model")
        return Trial("not tried", reason, detail=_detail(error))
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _shown_an_image(model, Path(folder))
    except Exception as error:
        reason = _in_words(error, "no tiny model that can be shown an image follows from the defaults of transformers")
        return Trial("not tried", reason, known=known, detail=_detail(error))


def _shown_an_image(model: GenericModel, folder: Path) -> Trial:
    """Write a variant of the model, and read it; once more with the number of image tokens that it says it has."""
    placeholders, errors = model.placeholders(), list[Exception]()
    if model.parameters() > MOST_PARAMETERS:
        raise CannotBeMadeError(f"its smallest model has {model.parameters() / 1e6:.0f} million parameters")
    for variant in model.variants():
        for placeholder in placeholders:
            for _ in range(2):
                try:
                    variant.write(folder, placeholder)
                    return _read(folder, "defaults")
                except Exception as error:
                    errors.append(error)
                    if not variant.learn(error):
                        break
    raise errors[0]


def _without_image(model: GenericModel) -> str:
    """What is known of a model that was not shown an image: which parts are found, and whether it reads texts.

    Raises:
        UserError: if the package refuses the model for what it lacks.
    """
    from latentlens_dag.models.loading import language_model_of
    from latentlens_dag.models.self_checks import check_language_model

    if (reason := model.refusal()) is not None:
        raise UserError(reason)
    whole = model.on_meta()
    _check_parts(whole, model.model_type)
    try:
        whole = model.in_memory() if model.parameters() <= MOST_PARAMETERS else whole
        checks = check_language_model(whole, language_model_of(model.model_type, whole, model.tokenizer())).checks
    except UserError as error:
        if "several streams" not in str(error):
            return "its language model is found"
        raise UserError("its blocks pass on several streams that each block mixes, not one residual stream") from error
    except Exception:
        return "its language model is found"
    failed = [check.name for check in checks if not check.passed]
    return f"its language model fails {', '.join(failed)}" if failed else "its language model reads texts"


def _check_parts(whole: Any, model_type: str) -> None:
    """Refuse a model whose decoder, blocks, final norm, head or visual tokens are not found."""
    from latentlens_dag.models.loading import language_model_of

    try:
        language_model_of(model_type, whole, None)
    except UserError as error:
        missing = re.search(r"\((\w+) has none of ([\w, ]+)\)", str(error))
        if missing is None:
            raise UserError(f"its language model is not found ({error.__cause__ or error})") from error
        part = "final norm" if "norm" in missing[2] else "stack of blocks"
        raise UserError(f"its {missing[1]} has no {part} of a name that is known") from error
    names_token = any(getattr(whole.config, name, None) is not None for name in ("image_token_id", "image_token_index"))
    if not names_token and not any(hasattr(module, "get_placeholder_mask") for module in whole.modules()):
        raise UserError("it does not say which tokens of its sequence are visual")


def _in_words(error: Exception, otherwise: str) -> str:
    if isinstance(error, CannotBeMadeError):
        return str(error)
    package = re.search(r"requires the (\w+) library|No module named '(\w+)'", str(error))
    if isinstance(error, ImportError) and package:
        return f"it needs the package {(package[1] or package[2]).lower()}"
    return otherwise


def _detail(error: Exception) -> str:
    """The error in one line, without folders that change from run to run."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"\S*/tmp\w*", "the model", text)[:300]


def main(model_type: str) -> None:
    """Print the trial of a family, as the last line."""
    trial: dict[str, Any] = asdict(try_family(model_type))
    sys.stdout.write("\n" + json.dumps(trial) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
