"""Reading a head or an embedding by itself: equal to the bit to that of the whole model, and nothing else read."""

import gc
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from latentlens_dag import device as devices
from latentlens_dag.errors import UserError
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.models.model_parts import Head
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.vocabulary_parts import VocabularyNeeds, VocabularyParts, load_vocabulary_parts
from latentlens_dag.testing import tiny_tokenizer
from latentlens_dag.testing.families import BUILDERS
from tests.helpers.packages import need_packages_of
from tests.helpers.remote_vlm import remote_vlm
from tests.models.conftest import read_weights, set_config, write_weights
from tests.models.test_language_families import FAMILIES, tiny_language_model, with_large_weights

NEEDS: tuple[VocabularyNeeds, ...] = ("head", "embedding")
DTYPES = ["float32", "bfloat16"]
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"
BLOCK = "model.layers.1.mlp.up_proj.weight"


def _assert_equal_to_whole(folder: Path, dtype: str, read: type) -> None:
    """Compare both parts to the bit with those of the whole model; they must be read as objects of the class `read`."""
    whole = load_language_model(folder, device="cpu", dtype=dtype)
    head, embedding = (load_vocabulary_parts(folder, needs, "cpu", dtype) for needs in NEEDS)
    assert (type(head), type(embedding)) == (read, read)
    states = torch.randn(17, whole.width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.logits(states), whole.logits(states))
    assert embedding.embedding.dtype == whole.embedding.dtype
    assert torch.equal(embedding.embedding, whole.embedding)
    for part in (head, embedding):
        assert (part.name, part.vocabulary_size, part.device) == (whole.name, len(whole.embedding), whole.device)
        assert part.tokenizer.get_vocab() == whole.tokenizer.get_vocab()


def _randomize_norms(folder: Path) -> None:
    """Give all vectors of a model random values, so that no norm is like another."""
    torch.manual_seed(1)
    weights = read_weights(folder)
    vectors = {key for key, w in weights.items() if w.ndim == 1 and w.is_floating_point()}
    write_weights({key: torch.rand_like(w) if key in vectors else w for key, w in weights.items()}, folder)


@pytest.fixture(scope="module")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, written once."""
    written: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in written:
            folder = written[family] = tmp_path_factory.mktemp(family)
            if family in BUILDERS:
                BUILDERS[family](folder, 0)
                _randomize_norms(folder)
            else:
                with_large_weights(tiny_language_model(family)).save_pretrained(folder)
                tiny_tokenizer().save_pretrained(folder)
        return written[family]

    return folder_of


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [*BUILDERS, *FAMILIES])
def test_parts_of_every_family_are_equal_to_the_bit_to_those_of_the_whole_model(
    family: str, dtype: str, family_folder: Callable[[str], Path]
) -> None:
    need_packages_of(family)
    _assert_equal_to_whole(family_folder(family), dtype, VocabularyParts)


@pytest.fixture
def untied(tmp_path: Path) -> Path:
    """A Llama with a head of its own, in several files."""
    config = transformers.LlamaConfig(**FAMILIES["Llama"], vocab_size=len(tiny_tokenizer()))
    model = with_large_weights(transformers.LlamaForCausalLM(config))
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class _RecordingFile:
    """A safetensors file that records the names of the tensors that are read."""

    read: set[str]

    def __init__(self, path: str | Path, **options: Any) -> None:
        self._file = safetensors._safetensors_rust.safe_open(path, **options)

    def __enter__(self) -> "_RecordingFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def keys(self) -> list[str]:
        return self._file.keys()

    def get_slice(self, name: str) -> Any:
        inner, read = self._file.get_slice(name), self.read

        class Slice:
            def __getattr__(self, attribute: str) -> Any:
                return getattr(inner, attribute)

            def __getitem__(self, index: Any) -> Tensor:
                read.add(name)
                return inner[index]

        return Slice()


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the tensors that were read from weight files."""
    names: set[str] = set()
    monkeypatch.setattr(_RecordingFile, "read", names, raising=False)
    for module in (safetensors, transformers.modeling_utils):
        monkeypatch.setattr(module, "safe_open", _RecordingFile)
    return names


def _fill_with_nan(folder: Path, except_for: set[str]) -> None:
    """Overwrite all weights of a folder but some with NaN, in place."""
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        filled = {key: w if key in except_for else torch.full_like(w, torch.nan) for key, w in weights.items()}
        save_file(filled, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("needs", "names"), [("head", {NORM, HEAD}), ("embedding", {EMBEDDING})])
def test_only_the_wanted_tensors_are_read(
    needs: VocabularyNeeds, names: set[str], untied: Path, read_names: set[str]
) -> None:
    assert len(list(untied.glob("*.safetensors"))) > 3
    whole = load_language_model(untied, device="cpu")
    assert {NORM, HEAD, EMBEDDING, BLOCK} <= read_names  # the recorder records
    read_names.clear()
    _fill_with_nan(untied, names)
    part = load_vocabulary_parts(untied, needs, "cpu")
    assert isinstance(part, VocabularyParts) and read_names == names
    states = torch.randn(5, 32)
    if needs == "head":
        assert torch.equal(part.logits(states), whole.logits(states))
    else:
        assert torch.equal(part.embedding, whole.embedding)


_PEAK = """
import sys
from pathlib import Path
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.models.vocabulary_parts import VocabularyParts, load_vocabulary_parts

def load(folder):
    if sys.argv[1] == "whole":
        return load_language_model(folder, device="cpu", dtype="float32")
    return load_vocabulary_parts(folder, sys.argv[1], "cpu", "float32")

def peak_kb():  # not ru_maxrss, which begins with that of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

load(sys.argv[2])
before = peak_kb()
part = load(sys.argv[3])
assert sys.argv[1] == "whole" or isinstance(part, VocabularyParts)
print(peak_kb() - before)
"""


def _write_large_model(folder: Path) -> int:
    """Write a Llama of 600 MB whose head is 20 MB, a block at a time; return the size."""
    shape = {"hidden_size": 512, "intermediate_size": 8192, "num_hidden_layers": 10, "num_attention_heads": 8}
    config = transformers.LlamaConfig(**shape, vocab_size=10240, tie_word_embeddings=False)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    with torch.device("meta"):
        shapes = {key: w.shape for key, w in transformers.LlamaForCausalLM(config).state_dict().items()}
    files = {key: f"model-{key.split('.')[2] if 'layers' in key else 'rest'}-of-x.safetensors" for key in shapes}
    for file in set(files.values()):
        weights = {key: torch.rand(shapes[key]) for key in shapes if files[key] == file}
        save_file(weights, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_a_part_of_20_mb_does_not_cost_the_memory_of_its_model_of_600_mb(tmp_path: Path, untied: Path) -> None:
    assert 580e6 < _write_large_model(tmp_path / "large") < 620e6

    def peak_mb(needs: str) -> float:
        command = [sys.executable, "-c", _PEAK, needs, str(untied), str(tmp_path / "large")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 1024

    peaks = {needs: peak_mb(needs) for needs in (*NEEDS, "whole")}
    assert max(peaks["head"], peaks["embedding"]) < 150 and peaks["whole"] > 500, peaks


Change = Callable[[Path], None]


def _with_weights(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor] | None]) -> Change:
    """A change of the weights of a folder; `change` changes a dict of them in place, or returns another."""

    def apply(folder: Path) -> None:
        weights = read_weights(folder)
        changed = change(weights)
        write_weights(dict(weights if changed is None else changed), folder)

    return apply


def _one_file(folder: Path) -> None:
    """Make one file of a model's shards."""
    weights = {key: w for file in folder.glob("*.safetensors") for key, w in load_file(file).items()}
    for file in folder.glob("model*"):
        file.unlink()
    write_weights(weights, folder)


_TIED: dict[str, Change] = {
    "the embedding is stored": _with_weights(lambda w: {key: t for key, t in w.items() if key != HEAD}),
    "the head is stored": _with_weights(lambda w: {key: t for key, t in w.items() if key != EMBEDDING}),
    "both are stored": _with_weights(lambda w: {**w, HEAD: w[EMBEDDING].clone()}),
    "both are stored, and differ": _with_weights(lambda w: {**w, HEAD: 2 * w[EMBEDDING]}),
    "the names lack the base model's": _with_weights(
        lambda w: {key.removeprefix("model."): t for key, t in w.items() if key != HEAD}
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", _TIED)
def test_a_head_that_shares_the_embedding_is_found_however_it_is_stored(case: str, dtype: str, untied: Path) -> None:
    _one_file(untied)
    set_config(untied, tie_word_embeddings=True)
    _TIED[case](untied)
    _assert_equal_to_whole(untied, dtype, VocabularyParts)


def test_a_head_with_a_bias_has_it(tmp_path: Path) -> None:
    model = with_large_weights(tiny_language_model("GPTJ"))
    assert model.lm_head.bias is not None
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    _assert_equal_to_whole(tmp_path, "float32", VocabularyParts)
    _with_weights(lambda w: {**w, "lm_head.bias": w["lm_head.bias"] + 1})(tmp_path)
    _assert_equal_to_whole(tmp_path, "float32", VocabularyParts)


class _Doubled(ConversionOps):
    """A conversion that a comparison of shapes does not notice."""

    def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {key: 2 * (value[0] if isinstance(value, list) else value) for key, value in input_dict.items()}


def _use_mapping(monkeypatch: pytest.MonkeyPatch, make: Callable[[], list[Any]]) -> None:
    """Let transformers map the weights of every model as told."""
    for module in (transformers.modeling_utils, conversion_mapping):
        monkeypatch.setattr(module, "get_model_conversion_mapping", lambda *_, **__: make())


def _converted(_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (HEAD, EMBEDDING)
    _use_mapping(monkeypatch, lambda: [WeightConverter([key], [key], operations=[_Doubled()]) for key in names])


def test_a_name_of_the_model_is_not_renamed(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_mapping(monkeypatch, lambda: [WeightRenaming("^lm_head", "output"), WeightRenaming(r"^model\.norm", "norm_f")])
    _assert_equal_to_whole(untied, "float32", VocabularyParts)


def test_a_vlm_has_the_tokens_that_its_processor_adds(tmp_path: Path) -> None:
    BUILDERS["paligemma"](tmp_path, 0)
    tiny_tokenizer(bos_first=False).save_pretrained(tmp_path)  # without those for places in the image
    head = load_vocabulary_parts(tmp_path, "head", "cpu")
    assert len(head.tokenizer) > len(AutoTokenizer.from_pretrained(tmp_path))
    _assert_equal_to_whole(tmp_path, "float32", VocabularyParts)


def _kept_in_float32(_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["embed_tokens", "norm"]
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keep_in_fp32_modules_strict", names)


def _made_in_float32(_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the norm and the embedding be float32 whatever the model is."""
    init = transformers.LlamaForCausalLM.__init__

    def with_float32_parts(self: Any, config: Any) -> None:
        init(self, config)
        self.model.norm.float()
        self.model.embed_tokens.float()

    monkeypatch.setattr(transformers.LlamaForCausalLM, "__init__", with_float32_parts)


_DOUBTS: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "tensors that are put together from others": _converted,
    "a dtype that transformers keeps": _kept_in_float32,
    "a dtype that the class chooses": _made_in_float32,
    "an adapter": lambda folder, _: (folder / "adapter_config.json").write_text("{}"),
    "a config that names another file": lambda folder, _: set_config(
        folder, transformers_weights=shutil.copy(folder / "model.safetensors", folder / "other.safetensors").name
    ),
    "a quantized checkpoint": lambda folder, _: set_config(folder, quantization_config={"quant_method": "own"}),
    "tensors stored twice": lambda folder, _: _with_weights(
        lambda w: {**w, "norm.weight": w[NORM].clone(), "embed_tokens.weight": w[EMBEDDING].clone()}
    )(folder),
    "tensors stored as integers": lambda folder, _: _with_weights(
        lambda w: {**w, NORM: w[NORM].int(), EMBEDDING: w[EMBEDDING].int()}
    )(folder),
}


@pytest.mark.parametrize("doubt", _DOUBTS)
def test_in_doubt_the_whole_model_is_loaded(
    doubt: str, untied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _one_file(untied)
    _DOUBTS[doubt](untied, monkeypatch)
    with caplog.at_level("INFO"):
        _assert_equal_to_whole(untied, "bfloat16", LanguageModel)
    assert [line for line in caplog.messages if "is loaded whole for its head: _DoubtError" in line]


@pytest.mark.parametrize("needs", NEEDS)
def test_the_memory_of_a_part_returns_as_soon_as_nobody_holds_it(needs: VocabularyNeeds, untied: Path) -> None:
    part = load_vocabulary_parts(untied, needs, "cpu")
    assert isinstance(part, VocabularyParts)
    weight = weakref.ref(part.part.unembedding.weight if isinstance(part.part, Head) else part.part)
    gc.disable()
    try:
        del part
        assert weight() is None
    finally:
        gc.enable()


def _buffer_in_norm(norm: Any) -> None:
    norm.register_buffer("table", torch.ones(3), persistent=False)


def _tensor_in_norm(norm: Any) -> None:
    norm.table = torch.ones(3)


@pytest.mark.parametrize("add", [_buffer_in_norm, _tensor_in_norm])
def test_a_norm_with_a_tensor_that_is_not_stored_is_read_with_the_whole_model(
    add: Callable[[Any], None], untied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = LlamaRMSNorm.__init__

    def with_table(self: Any, *shape: Any, **options: Any) -> None:
        init(self, *shape, **options)
        add(self)

    monkeypatch.setattr(LlamaRMSNorm, "__init__", with_table)
    assert isinstance(load_vocabulary_parts(untied, "head", "cpu"), LanguageModel)
    assert isinstance(load_vocabulary_parts(untied, "embedding", "cpu"), VocabularyParts)


def test_a_model_whose_own_code_may_be_run_is_loaded_whole(tmp_path: Path) -> None:
    folder = ModelRef(path=remote_vlm(tmp_path / "model", tmp_path / "marker"), trust_remote_code=True)
    whole = load_language_model(folder, device="cpu")
    states = torch.randn(5, whole.width)
    head = load_vocabulary_parts(folder, "head", "cpu")
    assert isinstance(head, LanguageModel) and torch.equal(head.logits(states), whole.logits(states))


def test_a_model_of_transformers_that_may_run_its_own_code_is_loaded_whole_too(untied: Path) -> None:
    trusted = ModelRef(path=untied, trust_remote_code=True)  # whatever `auto_map` names would be run
    assert isinstance(load_vocabulary_parts(trusted, "head", "cpu"), LanguageModel)


def test_weights_that_transformers_prefers_to_ours_are_read_with_the_whole_model(untied: Path) -> None:
    save_file({"x": torch.zeros(1)}, untied / "shard-00000-model-00001-of-00001.safetensors")
    assert isinstance(load_vocabulary_parts(untied, "head", "cpu"), LanguageModel)


def test_its_own_code_is_not_run_without_permission(tmp_path: Path) -> None:
    folder = remote_vlm(tmp_path / "model", tmp_path / "marker")
    with pytest.raises(UserError, match="trust_remote_code"):
        load_vocabulary_parts(folder, "head", "cpu")
    assert not (tmp_path / "marker").exists()


def _without(name: str) -> Change:
    return _with_weights(lambda w: {key: t for key, t in w.items() if key != name})


def _cut(name: str) -> Change:
    return _with_weights(lambda w: {**w, name: w[name][:-1].contiguous()})


def _with_nan(name: str) -> Change:
    return _with_weights(lambda w: {**w, name: w[name].index_fill(0, torch.tensor([3]), torch.nan)})


def _cut_vocabulary(folder: Path) -> None:
    """Leave the last tokens of the tokenizer without a row."""
    rows = len(tiny_tokenizer()) - 9
    _with_weights(lambda w: {**w, **{key: w[key][:rows].contiguous() for key in (HEAD, EMBEDDING)}})(folder)
    set_config(folder, vocab_size=rows)


def _cut_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _pointer(folder: Path) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1000\n"
    (folder / "model.safetensors").write_text(text)


_DAMAGES: list[tuple[tuple[VocabularyNeeds, ...], str, Change]] = [
    (("head",), "1 weight .*lm_head.*is not in", _without(HEAD)),
    (("head",), "norm.*is not in", _without(NORM)),
    (("embedding",), "embed_tokens.*is not in", _without(EMBEDDING)),
    (("head",), "another shape", _cut(HEAD)),
    (("head",), "another shape", _cut(NORM)),
    (("embedding",), "another shape", _cut(EMBEDDING)),
    (("head",), "lm_head.*not finite", _with_nan(HEAD)),
    (("head",), "norm.*not finite", _with_nan(NORM)),
    (("embedding",), "embed_tokens.*not finite", _with_nan(EMBEDDING)),
    (NEEDS, "its tokenizer do not match", _cut_vocabulary),
    (NEEDS, "is cut off", _cut_file),
    (NEEDS, "Git LFS", _pointer),
    (NEEDS, "has no model.safetensors", lambda folder: (folder / "model.safetensors").unlink()),
    (NEEDS, "no tokenizer files", lambda folder: (folder / "tokenizer.json").unlink()),
    (NEEDS, "norm after it", lambda folder: _write_bert(folder)),
]


def _write_bert(folder: Path) -> None:
    """Replace the model by one whose blocks are under another name."""
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, is_decoder=True
    )
    transformers.BertLMHeadModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("needs", "words", "damage"), [(needs, words, damage) for parts, words, damage in _DAMAGES for needs in parts]
)
def test_a_damaged_part_is_refused_in_the_words_for_the_whole_model(
    needs: VocabularyNeeds, words: str, damage: Change, untied: Path
) -> None:
    _one_file(untied)
    damage(untied)
    with pytest.raises(UserError, match=words) as of_whole:
        load_language_model(untied, device="cpu")
    with pytest.raises(UserError) as of_part:
        load_vocabulary_parts(untied, needs, "cpu")
    assert str(of_part.value) == str(of_whole.value)


def test_a_missing_shard_is_refused_in_the_words_for_the_whole_model(untied: Path) -> None:
    next(untied.glob("model-*.safetensors")).unlink()
    messages = []
    for load in (load_language_model, lambda folder: load_vocabulary_parts(folder, "head")):
        with pytest.raises(UserError, match="weight files are missing") as error:
            load(untied)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_the_part_that_was_not_read_is_refused_with_its_name(untied: Path) -> None:
    with pytest.raises(ValueError, match=r"needs 'embedding'"):
        _ = load_vocabulary_parts(untied, "head", "cpu").embedding
    with pytest.raises(ValueError, match=r"needs 'head'"):
        load_vocabulary_parts(untied, "embedding", "cpu").logits(torch.ones(1, 32))


def test_the_final_norm_in_16_bits_is_copied_to_float32_once(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, copy = [], devices.deepcopy
    monkeypatch.setattr(devices, "deepcopy", lambda module: copied.append(type(module)) or copy(module))
    whole = load_language_model(untied, device="cpu", dtype="bfloat16")
    part = load_vocabulary_parts(untied, "head", "cpu", "bfloat16")
    states = torch.randn(3, 32)
    assert all(torch.equal(model.logits(states), whole.logits(states)) for model in (whole, part) for _ in range(3))
    assert copied == [LlamaRMSNorm, LlamaRMSNorm]
