"""The dtype in which a model is computed: the one that a user names, or `auto` by a rule.

`auto` depends on the checkpoint (config.json, the size of the weights and, where the config names no dtype, that of the
weights) and on what the device can do, and on nothing else: no timing decides, so that one machine always gives the
same states.

| device | `auto`                                                                                                   |
|--------|----------------------------------------------------------------------------------------------------------|
| GPU    | the checkpoint's own dtype; float32 for a bfloat16 checkpoint where the GPU has no bfloat16              |
| CPU    | float32, in which results depend on the batches by rounding alone; but bfloat16 for a checkpoint of at   |
|        | least 1 GiB in 16 bits on a processor with instructions for bfloat16                                     |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from latentlens_dag.device import default_device, has_bfloat16
from latentlens_dag.errors import UserError
from latentlens_dag.models.configs import read_config
from latentlens_dag.models.hub_models import local_model, weight_bytes
from latentlens_dag.models.model_ref import ModelRef, model_ref
from latentlens_dag.models.weight_files import SHARD_INDEX, stored_dtypes, weight_files

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)
_LARGE_BYTES = 1 << 30  # half a billion 16-bit weights


def chosen_dtype(source: str | Path | ModelRef, device: str | None = None, dtype: str | None = None) -> str:
    """The dtype to load a model in, by the rule above.

    Args:
        source: a folder, user/name on the Hub, or a reference. Of a model of the Hub only the config is downloaded,
            unless it names no dtype.
        device: a torch device; by default that of `default_device`.
        dtype: the name of a torch dtype, which is then taken; None or "auto" for the rule.

    Raises:
        UserError: if the model has no valid config.json.
    """
    if dtype not in (None, "auto"):
        return str(dtype)
    model, device = model_ref(source), device or default_device()
    folder, stored = local_model(model, weights=False).folder, dtype_of_checkpoint(model)
    if not device.startswith("cpu"):
        return "float32" if stored == "bfloat16" and not has_bfloat16(device) else stored
    if stored == "float32" or _weight_bytes(model, folder) < _LARGE_BYTES:
        return "float32"
    return "bfloat16" if has_bfloat16(device) else "float32"


def dtype_of_checkpoint(source: str | Path | ModelRef) -> str:
    """The dtype in which a checkpoint is stored, by its config.json, else by its weights."""
    model = model_ref(source)
    folder = local_model(model, weights=False).folder
    return _dtype_of_config(folder) or _dtype_of_weights(local_model(model).folder)


def check_one_dtype(dtype: str, stored: str | None, declared: str | None, place: str) -> None:
    """Refuse to compute states in another dtype than those beside them.

    Args:
        dtype: in which states would be computed now.
        stored: in which those of the index or study were computed so far; None if there are none.
        declared: `dtype` of the YAML; None for `auto`. A declared one makes all parts outdated, as it counts as a
            setting; states that are in it already are reused.
        place: such as "Index words", for the message.

    Raises:
        UserError: if the two differ and neither was declared.
    """
    if declared is None and stored not in (None, dtype):
        raise UserError(
            f"`dtype: auto` of {place} is {dtype} on this machine, but its states so far are in {stored}: they were "
            f"computed on another device, or with another `dtype`. Write `dtype: {stored}` to go on with them, or "
            f"`dtype: {dtype}` to compute all of them again."
        )


def _dtype_of_config(folder: Path) -> str | None:
    config = read_config(folder) or {}
    named: Any = config.get("dtype") or config.get("torch_dtype") or (config.get("text_config") or {}).get("dtype")
    known = named.removeprefix("torch.") if isinstance(named, str) else None
    return known if known in DTYPES else None


def _dtype_of_weights(folder: Path) -> str:
    """The dtype of most of a checkpoint's weights; float32 where they are in none of DTYPES."""
    counts = {dtype: count for dtype, count in stored_dtypes(folder).items() if dtype in DTYPES}
    return max(sorted(counts), key=counts.__getitem__, default="float32")


def _weight_bytes(model: ModelRef, folder: Path) -> int:
    if model.repo is not None:
        return weight_bytes(model)
    files = [*folder.glob("model*.safetensors")]
    if not files and (folder / SHARD_INDEX).is_file():  # of other names, as those of a connector's checkpoints
        files = weight_files(folder, str(model), "AutoModel")
    return sum(file.stat().st_size for file in files)
