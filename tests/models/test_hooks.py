"""Capturing the residual stream."""

import pytest
import torch
from torch import nn

from latentlens_dag.errors import UserError
from latentlens_dag.models.hooks import capture_hidden_states


class _Streams(nn.Module):
    """A decoder whose blocks pass on `streams` states per token, as with hyper-connections; 0: one, as usual."""

    def __init__(self, streams: int) -> None:
        super().__init__()
        self.streams, self.layers, self.norm = streams, nn.ModuleList([nn.Linear(4, 4)]), nn.LayerNorm(4)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = states[:, :, None].expand(-1, -1, self.streams, -1) if self.streams else states
        for block in self.layers:
            states = block(states)
        return self.norm(states.mean(dim=2) if self.streams else states)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_blocks_that_pass_on_several_streams_are_refused(streams: int) -> None:
    decoder = _Streams(streams)
    with (
        capture_hidden_states(decoder, [0], lambda states: states),
        pytest.raises(UserError, match=rf"A _Streams cannot be read: .*several streams.*shape \[2, 3, {streams}, 4\]"),
    ):
        decoder(torch.ones(2, 3, 4))


def test_what_enters_the_final_norm_of_such_blocks_is_one_stream() -> None:
    for streams in (0, 2):
        decoder = _Streams(streams)
        with capture_hidden_states(decoder, [1], lambda states: states) as states:
            decoder(torch.ones(2, 3, 4))
        assert states[1].shape == (2, 3, 4)
