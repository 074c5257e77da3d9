"""A tiny VLM whose family only the code in its folder knows, as models with remote code are published."""

import json
from pathlib import Path

from latentlens_dag.testing import tiny_llava

_CONFIGURATION = """\
from pathlib import Path

from transformers import LlavaConfig

MARK

class OwnConfig(LlavaConfig):
    model_type = "own_vlm"
"""
_MODELING = """\
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel, LlavaForConditionalGeneration

from .configuration_own import OwnConfig

MARK

class OwnVlm(LlavaForConditionalGeneration):
    config_class = OwnConfig


class OwnText(LlamaPreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = nn.Module()
        self.model.language_model = LlamaModel(config.text_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
"""


def remote_vlm(
    folder: Path, marker: Path, role: str = "AutoModelForImageTextToText", model: str = "modeling_own.OwnVlm"
) -> Path:
    """Write the model; each of its files, when it is run, adds its name to the file `marker`.

    Args:
        folder: where it is written.
        marker: does not exist as long as nothing is run.
        role: the auto class that `model` stands for in its `auto_map`.
        model: `modeling_own.OwnVlm` or `modeling_own.OwnText`, the text half; or one of another repository.
    """
    from transformers import LlavaForConditionalGeneration

    tiny_llava(folder)
    whole = LlavaForConditionalGeneration.from_pretrained(folder)
    whole.save_pretrained(folder, save_original_format=False)  # by the names of the weights in the class
    path = folder / "config.json"
    own = {"model_type": "own_vlm", "auto_map": {"AutoConfig": "configuration_own.OwnConfig", role: model}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    for name, text in (("configuration_own", _CONFIGURATION), ("modeling_own", _MODELING)):
        mark = f"with Path({str(marker)!r}).open('a') as file:\n    file.write({name!r} + ' ')\n"
        (folder / f"{name}.py").write_text("from pathlib import Path\n" + text.replace("MARK\n", mark))
    return folder
