from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from latentlens_dag.models.fingerprints import evenly_spaced, fingerprint, fingerprint_like, scheme_of, weight_sample
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.testing import tiny_llava

PAPER_SHAPES = [
    (32_000, 4096),  # LLaVA-1.5's embedding
    (11_008, 4096),
    (152_064, 3584),  # Qwen2-VL's
    (18_944, 3584),
    (257_152, 2048),  # PaliGemma's
    (16_384, 2048),
    (128_256, 8192),
]
# Of the model `counting(70, 24)`, by the code of version 0.1.
FIRST_SCHEME = "b0985aea6581b9db"


def language_model(vocabulary: int, width: int, fill: object = None, dtype: torch.dtype = torch.float32) -> object:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(vocabulary, width, dtype=dtype)
            self.layers = nn.ModuleList(nn.Linear(width, 4 * width, dtype=dtype) for _ in range(2))
            self.norm = nn.LayerNorm(width, dtype=dtype)

    decoder = Decoder()
    with torch.no_grad():
        for number, weight in enumerate(decoder.parameters()):
            counted = (torch.arange(weight.numel()) % 251 + number).reshape(weight.shape)
            weight.copy_(counted if fill is None else torch.full(weight.shape, fill))
    return LanguageModel("counting", decoder, decoder.embed_tokens.weight, nn.Identity(), None, None)


@given(st.integers(1, 2**40))
def test_positions_lie_inside_the_tensor_from_its_first_to_its_last_value(length: int) -> None:
    found = evenly_spaced(length)
    assert found == sorted(set(found)) and len(found) == min(64, length)
    assert (found[0], found[-1]) == (0, length - 1) if length > 1 else found == [0]
    steps = [b - a for a, b in pairwise(found)]
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize("length", [2**24 + 4, 28_311_552, *(rows * width for rows, width in PAPER_SHAPES)])
def test_positions_of_large_tensors_are_exact_where_those_of_linspace_are_not(length: int) -> None:
    assert max(evenly_spaced(length)) == length - 1
    rounded = torch.linspace(0, length - 1, 64).long()
    assert int(rounded.max()) >= length or rounded.tolist() != evenly_spaced(length)


@pytest.mark.parametrize("elements", [2**24 + 4, 28_311_552])
def test_a_model_with_a_large_tensor_has_a_fingerprint_that_reads_its_last_value(elements: int) -> None:
    model = language_model(4, 4)
    model.decoder.large = nn.Parameter(torch.zeros(elements, dtype=torch.bfloat16))
    with pytest.raises(IndexError):
        fingerprint(model, 1)
    before = fingerprint(model)
    with torch.no_grad():
        model.decoder.large[-1] = 1
    assert fingerprint(model) != before


def test_the_first_scheme_gives_what_version_0_1_gave() -> None:
    assert fingerprint(language_model(70, 24), 1) == FIRST_SCHEME


def test_a_stored_fingerprint_is_compared_by_its_own_scheme() -> None:
    model = language_model(70, 24)
    assert (scheme_of(FIRST_SCHEME), scheme_of(fingerprint(model))) == (1, 2)
    assert fingerprint_like(model, FIRST_SCHEME) == FIRST_SCHEME
    assert fingerprint_like(model, None) == fingerprint_like(model, fingerprint(model)) == fingerprint(model)
    model.decoder.large = nn.Parameter(torch.zeros(2**24 + 4, dtype=torch.bfloat16))
    assert scheme_of(fingerprint_like(model, FIRST_SCHEME)) == 2  # of a model that can have none by the first


def test_the_same_weights_have_the_same_fingerprint_in_another_dtype_and_other_weights_another(
    llava_folder: Path, tmp_path: Path
) -> None:
    for scheme in (1, 2):
        one = fingerprint(load_language_model(llava_folder, device="cpu"), scheme)
        assert fingerprint(load_language_model(llava_folder, device="cpu", dtype="bfloat16"), scheme) == one
        other = load_language_model(tiny_llava(tmp_path / str(scheme), seed=1), device="cpu")
        assert fingerprint(other, scheme) != one


@pytest.mark.parametrize("place", [0, -1])
def test_every_tensor_counts_and_is_named(llava_folder: Path, place: int) -> None:
    model = load_language_model(llava_folder, device="cpu")
    before, sample = fingerprint(model), weight_sample(model)
    names = {name: weight for name, weight in model.decoder.named_parameters() if weight is not model.embedding}
    assert len(names) == 28
    for name, weight in {**names, "the input embedding": model.embedding}.items():
        with torch.no_grad():
            weight.view(-1)[place] += 1
            assert fingerprint(model) != before
            assert weight_sample(model).differences(sample) == [name]
            weight.view(-1)[place] -= 1


@pytest.mark.parametrize(("small", "large"), [(70, 71), (64, 128), (1000, 1064), (32_000, 32_064)])
def test_an_embedding_with_more_rows_differs_in_the_common_ones_only(small: int, large: int) -> None:
    whole = language_model(large, 8)
    cut = language_model(large, 8)
    cut.decoder.embed_tokens = nn.Embedding.from_pretrained(whole.embedding[:small].clone(), freeze=False)
    cut = LanguageModel("cut", cut.decoder, cut.decoder.embed_tokens.weight, nn.Identity(), None, None)
    with torch.no_grad():
        whole.embedding[small:] = 7
    assert weight_sample(cut).differences(weight_sample(whole)) == []
    assert weight_sample(whole).differences(weight_sample(cut)) == []
    assert fingerprint(cut) != fingerprint(whole)
    with torch.no_grad():
        whole.embedding[: small // 2] += 1
    assert weight_sample(cut).differences(weight_sample(whole)) == ["the input embedding"]


def test_tensors_that_only_one_model_has_are_named() -> None:
    one, other = language_model(70, 24), language_model(70, 24)
    other.decoder.layers.append(nn.Linear(24, 96))
    names = ["layers.2.bias", "layers.2.weight"]
    assert weight_sample(one).differences(weight_sample(other)) == names
    assert weight_sample(other).differences(weight_sample(one)) == names
