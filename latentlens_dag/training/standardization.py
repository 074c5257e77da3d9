"""The linear map that gives a vision encoder's features mean 0 and RMS 1 before a connector learns from them.

Encoders differ in the size of their features by a factor of a hundred, and an ordinary initialization of a connector
fits none of them. The map is linear, so it goes into the weights of the trained connector exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class Standardization(NamedTuple):
    """(features - mean) / rms @ whitening."""

    mean: Tensor
    """float32 [hidden]."""
    rms: float
    """Root mean square of the centered features."""
    whitening: Tensor
    """float32 [hidden, hidden], symmetric; the identity where features are not decorrelated."""

    @classmethod
    def of(cls, sample: Tensor, whitening: float = 0.0) -> Standardization:
        """That of a sample of features.

        Args:
            sample: [n, hidden].
            whitening: above 0, the directions are divided by the roots of their variances, to each of which this is
                added (their mean is 1).

        Raises:
            UserError: if all rows are the same.
        """
        import torch

        rows = sample.float()
        mean = rows.mean(dim=0)
        rms = float(root_mean_square(rows - mean))
        if not rms > 0:
            raise UserError(
                f"The vision encoder gives the same features for all of a sample of {len(rows):,} visual tokens: a "
                "connector can learn nothing from them. Are the images different, and is it the right layer?"
            )
        matrix = _whitening((rows - mean) / rms, whitening) if whitening else torch.eye(len(mean))
        return cls(mean, rms, matrix)

    def __call__(self, features: Tensor) -> Tensor:
        """The standardized features, float32 [.., hidden]."""
        return (features.float() - self.mean) / self.rms @ self.whitening


def root_mean_square(values: Tensor) -> Tensor:
    """Of all entries, a scalar."""
    return values.pow(2).mean().sqrt()


def _whitening(rows: Tensor, added: float) -> Tensor:
    """The symmetric inverse root of the covariance of centered rows of RMS 1, with `added` to every variance."""
    import torch

    variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
    return directions @ torch.diag((variances + added) ** -0.5) @ directions.T
