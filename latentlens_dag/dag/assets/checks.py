"""Blocking asset checks: what must hold of every artifact before anything is built on it.

A step gives its checks' results together with its own. Where one fails, `fail_on_errors` reports it and then fails the
step, so that the artifact counts as not built: Dagster's own blocking stops the rest of the same run only, and the next
build would use the artifact.
"""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

StepResults = Iterator[dg.MaterializeResult | dg.AssetCheckResult]


def check_result(name: str, key: dg.AssetKey, problems: list[str], blocking: bool = True) -> dg.AssetCheckResult:
    """Passed where there are no problems; the first ten are shown. A check that does not block only warns."""
    return dg.AssetCheckResult(
        passed=not problems,
        check_name=name,
        asset_key=key,
        metadata={"problems": problems[:10]},
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
    )


def fail_on_errors(result: dg.MaterializeResult) -> StepResults:
    """Yield the result where no blocking check failed; else the checks' results, then fail with the problems."""
    results = result.check_results or []
    failed = [check for check in results if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR]
    if not failed:
        yield result
        return
    yield from results
    problems = {check.check_name: check.metadata["problems"].value for check in failed}
    raise dg.Failure(f"A blocking check of {failed[0].asset_key.to_user_string()} failed: {problems}")  # type: ignore[union-attr]


def neighbor_problems(neighbors: pa.Table, tokens: int, top_k: int) -> list[str]:
    """The tokens that have not `top_k` neighbors, or not sorted best first.

    Args:
        neighbors: NEIGHBORS of one lens and layer.
        tokens: how many tokens must have answers.
        top_k: how many each must have.
    """
    if _are_sound(neighbors, tokens, top_k):
        return []
    import polars as pl

    frame = pl.from_arrow(neighbors)
    assert isinstance(frame, pl.DataFrame)
    score = pl.coalesce("cosine", "logit")
    seen = frame.group_by("image_id", "token_index", maintain_order=True).agg(
        pl.len().alias("answers"),
        (pl.col("rank") == pl.int_range(1, pl.len() + 1)).all().alias("ranked"),
        (score.is_finite() & (score.diff().fill_null(0) <= 0)).all().alias("sorted"),
    )
    problems = [] if len(seen) == tokens else [f"{len(seen)} visual tokens have answers, of {tokens}"]
    wrong = seen.filter((pl.col("answers") != top_k) | ~pl.col("ranked") | ~pl.col("sorted"))
    return problems + [f"token {row['token_index']} of {row['image_id']}: {row}" for row in wrong.head(10).to_dicts()]


def _are_sound(neighbors: pa.Table, tokens: int, top_k: int) -> bool:
    """Whether neighbors that come token after token are as they must be, in a fifth of the time of finding all faults.

    False of others, sound or not.
    """
    if not tokens or len(neighbors) != tokens * top_k:
        return False
    image = pc.dictionary_encode(neighbors["image_id"].combine_chunks()).indices
    index, rank = (neighbors[name].to_numpy() for name in ("token_index", "rank"))
    token = (image.to_numpy().astype(np.int64) << 32 | index.astype(np.uint32)).reshape(tokens, top_k)
    score = pc.coalesce(neighbors["cosine"], neighbors["logit"]).to_numpy().reshape(tokens, top_k)
    return bool(
        (rank.reshape(tokens, top_k) == np.arange(1, top_k + 1)).all()
        and (token == token[:, :1]).all()
        and len(np.unique(token[:, 0])) == tokens
        and np.isfinite(score).all()
        and (score[:, 1:] <= score[:, :-1]).all()
    )
