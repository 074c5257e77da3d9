import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.models.layers import auto_contextual_layers, auto_visual_layers, check_layers


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, []),
        (2, [1]),
        (8, [1, 2, 4, 6, 7]),
        (25, [1, 2, 4, 8, 16, 23, 24]),
        (28, [1, 2, 4, 8, 16, 24, 26, 27]),
        (32, [1, 2, 4, 8, 16, 24, 30, 31]),
        (40, [1, 2, 4, 8, 16, 24, 38, 39]),
        (41, [1, 2, 4, 8, 16, 20, 31, 39, 40]),
        (60, [1, 2, 4, 8, 16, 30, 45, 58, 59]),
        (64, [1, 2, 4, 8, 16, 32, 48, 56, 62, 63]),
        (80, [1, 2, 4, 8, 16, 40, 60, 72, 78, 79]),
    ],
)
def test_automatic_layers_are_the_papers_at_the_papers_depths(depth: int, expected: list[int]) -> None:
    assert auto_contextual_layers(depth) == expected
    assert auto_visual_layers(depth) == [0, *expected]


@pytest.mark.parametrize("depth", range(1, 130))
def test_automatic_layers_exist_and_reach_from_the_first_block_to_the_last(depth: int) -> None:
    layers = auto_visual_layers(depth)
    assert layers == sorted(set(layers)) == [0, *auto_contextual_layers(depth)]
    assert (layers[:2], layers[-2:]) == ([0, 1][:depth], [depth - 2, depth - 1][-depth:])


@pytest.mark.parametrize("layer", [-1, 8, 100])
def test_a_layer_that_the_model_lacks_is_an_error_that_names_it(layer: int) -> None:
    with pytest.raises(UserError, match=rf"Layer {layer} .* the model has 8 blocks: .* 0 .* to 7 .*here"):
        check_layers([0, layer], 8, "the model", "here")
