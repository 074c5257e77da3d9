"""The command diff, of two studies, two versions of a study, or two releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentlens_dag.cli.output import LocalPath, home_option, json_option, print_facts, table_text, terminal_width
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import find_home

if TYPE_CHECKING:
    from latentlens_dag.dataset.comparison import AnswerDifference
    from latentlens_dag.dataset.dataset import Dataset
    from latentlens_dag.dataset.release_comparison import ReleaseDifference
    from latentlens_dag.storage.warehouse import Warehouse
    from latentlens_dag.study.differences import JudgedStudy

_IDS_SHOWN = 5


@click.command()
@click.argument("first", metavar="STUDY[@VERSION]|RELEASE")
@click.argument("second", metavar="STUDY[@VERSION]|RELEASE")
@click.option("--second-home", type=LocalPath(), help="The home of the second study, if it has another.")
@click.option("--shares", is_flag=True, help="By how much the shares of interpretable tokens differ.")
@home_option
@json_option
def diff(first: str, second: str, second_home: Path | None, shares: bool, home: Path | None, as_json: bool) -> None:
    """Say how the answers and verdicts of two studies, versions of a study, or releases differ, layer by layer.

    `status --versions` lists versions; without one, what is there now is compared. A release is a folder (./release),
    or its name on the Hub (user/name@v1.0.0); a home may stand in place of one of them.

    With --shares, two studies of the same images are compared by their shares, with intervals and p-values; they may be
    of models that cut an image into different patches. Of releases, the studies of the same name are, or the only ones.
    """
    if _is_release(first) != _is_release(second):
        raise UserError(f"{first} and {second}: a study and a release cannot be compared; name two of a kind.")
    if _is_release(first):
        (_diff_shares_of_releases if shares else _diff_releases)(first, second, as_json)
        return
    from latentlens_dag.dataset.comparison import compare_results, refuse_other_patches
    from latentlens_dag.storage.records import ArtifactStore
    from latentlens_dag.storage.study_versions import version_files

    homes = [find_home(home).warehouse, find_home(second_home or home).warehouse]
    versions = [_study_and_version(name) for name in (first, second)]
    stores = [ArtifactStore(at.root) for at in homes]
    files = [version_files(store, *version) for store, version in zip(stores, versions, strict=True)]
    if shares:
        sinks = [at.summary(study, "sinks") for at, (study, _) in zip(homes, versions, strict=True)]
        one, other = map(_judged, (first, second), files, sinks)
        _print_share_differences([(one, other)], as_json)
        return
    if not set(files[0]) & set(files[1]):
        raise UserError(f"{first} and {second} have no lens at the same visual layer, so nothing can be compared.")
    if versions[0][0] != versions[1][0] or homes[0] != homes[1]:
        refuse_other_patches(
            (first, second), *(_token_files(at, study) for at, (study, _) in zip(homes, versions, strict=True))
        )
    differences = compare_results(*files)
    text = partial(_difference_text, differences, (first, second))
    print_facts([one._asdict() for one in differences], as_json, lambda: f"{text()}\n\n{_COLUMNS}")


def _token_files(at: Warehouse, study: str) -> list[Path]:
    """The tables of a study's visual tokens."""
    return sorted(at.visual_tokens(study, 0).parent.glob("batch_*.parquet"))


def _judged(name: str, files: Mapping[tuple[str, int], Sequence[Path]], sinks: Path) -> JudgedStudy:
    """The judgements of a version of a study. Of sinks, the home has those of now only."""
    import polars as pl
    import pyarrow.parquet as pq

    from latentlens_dag.schema import SINKS
    from latentlens_dag.study.differences import JudgedStudy

    judgements = {
        layer: pl.scan_parquet(list(of_layer), glob=False)
        for (part, layer), of_layer in files.items()
        if part == "judgements"
    }
    answers = next(list(of_layer) for (part, _), of_layer in files.items() if part != "judgements")
    top_k = pl.scan_parquet(answers, glob=False).select(pl.col("rank").max()).collect().item()
    return JudgedStudy(name, judgements, pq.read_table(sinks) if sinks.is_file() else SINKS.empty_table(), top_k)


def _diff_shares_of_releases(first: str, second: str, as_json: bool) -> None:
    from latentlens_dag.dataset.dataset import open_dataset

    with open_dataset(first) as one, open_dataset(second) as other:
        names = [_judged_studies(data) for data in (one, other)]
        same = [(name, name) for name in names[0] if name in names[1]]
        if not same and (len(names[0]), len(names[1])) != (1, 1):
            raise UserError(
                f"{first} has judgements of {_named(names[0])}, {second} of {_named(names[1])}: no study of the same "
                "name, nor one of each, so there is nothing to compare."
            )
        pairs = same or [(names[0][0], names[1][0])]
        _print_share_differences([(_released(first, one, a), _released(second, other, b)) for a, b in pairs], as_json)


def _judged_studies(data: Dataset) -> list[str]:
    if "judgements" not in data.tables:
        return []
    return list(data.collect("SELECT DISTINCT study FROM judgements ORDER BY study")["study"])


def _named(studies: list[str]) -> str:
    return ", ".join(studies) or "no study"


def _released(release: str, data: Dataset, study: str) -> JudgedStudy:
    from latentlens_dag.study.differences import JudgedStudy

    return JudgedStudy.of(data, study)._replace(name=f"{study} of {release}")


def _print_share_differences(pairs: Sequence[tuple[JudgedStudy, JudgedStudy]], as_json: bool) -> None:
    from latentlens_dag.study.differences import study_differences

    found = [((one.name, other.name), study_differences(one, other).to_pylist()) for one, other in pairs]
    for names, rows in found:
        if not rows:
            raise UserError(
                f"{' and '.join(names)} have no judged image in common at one lens and visual layer, so their shares "
                "cannot be compared: name two studies of the same images that have `judge: regions`."
            )
    every = [row for _, rows in found for row in rows]
    answers = [(one.top_k, other.top_k) for one, other in pairs]
    text = (_share_text(names, _of_all(rows), *of) for (names, rows), of in zip(found, answers, strict=True))
    print_facts(every, as_json, lambda: "\n\n".join(text))


def _of_all(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of all patches, and of all answers where both have as many."""
    of_all = [row for row in rows if row["patch_group"] == "all"]
    return [row for row in of_all if row["k"] is None] or of_all


def _share_text(names: tuple[str, str], rows: list[dict[str, Any]], top_k: int | None, other: int | None) -> str:
    cells = [
        (
            row["measure"],
            row["lens"],
            str(row["visual_layer"]),
            *(f"{100 * row[name]:.1f}" for name in ("share", "other_share")),
            f"{100 * row['difference']:+.1f}",
            "" if row["low"] is None else f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}",
            f"{row['adjusted_p_value']:.2g}",
            f"{row['images']:,}",
        )
        for row in rows
    ]
    shares = (f"% of tokens in {name}" for name in names)
    headers = ("measure", "lens", "layer", *shares, "difference", "95 % interval", "adjusted p-value", "images")
    note = (
        ""
        if top_k == other
        else f"\nOf the nearest answer alone: the first has {top_k} of each token, the second {other}."
    )
    return table_text(headers, cells, terminal_width(), ["measure", "lens"]) + "\n" + _SHARES_FOOT + note


_NEAREST_ALONE = "\nOf the nearest answer alone, since the first has {} answers of each token and the second {}."
_SHARES_FOOT = """\
difference        of the two shares, first minus second, in percentage points, with its 95 % interval over images
adjusted p-value  of no difference, adjusted for all rows of its measure (Benjamini and Hochberg)
Of all patches but sinks and padding; an image counts with its share in each study.
--json has objects and background, too."""


def _study_and_version(name: str) -> tuple[str, int | None]:
    study, _, version = name.partition("@")
    if version and not version.isdecimal():
        raise UserError(f"{name}: a version is a number, as in {study}@1; `status {study} --versions` lists them.")
    return study, int(version) if version else None


_COLUMNS = """\
tokens   visual tokens that both have (for judgements: tokens under lenses)
same     share of them with the same answers in the same order, or the same verdict
nearest  share with the same first answer
overlap  mean share of the answers that the other has, too
only in  tokens that one has and the other lacks, for which nothing is compared"""


def _difference_text(differences: list[AnswerDifference], names: tuple[str, str] = ("first", "second")) -> str:
    rows = []
    for difference in differences:
        first, second = difference.only_first, difference.only_second
        shares = (difference.same, difference.same_nearest, difference.overlap)
        percents = ("" if share is None else f"{share:.1%}" for share in shares)
        alone = (f"{only:,}" if only else "" for only in (first, second))
        rows.append((difference.part, str(difference.visual_layer), f"{difference.tokens:,}", *percents, *alone))
    headers = ("", "layer", "tokens", "same", "nearest", "overlap", *(f"only in {name}" for name in names))
    return table_text(headers, rows, terminal_width(), [""], {"tokens": 9, "same": 7})


def _is_release(name: str) -> bool:
    """Whether it names a folder or a release of the Hub: no study has a `/` in its name, or begins with a dot."""
    return "/" in name or name.startswith(".")


def _diff_releases(first: str, second: str, as_json: bool) -> None:
    from latentlens_dag.dataset.dataset import open_dataset
    from latentlens_dag.dataset.release_comparison import compare_releases

    with open_dataset(first) as one, open_dataset(second) as other:
        difference = compare_releases(one, other)
    print_facts(difference.facts(), as_json, lambda: _release_text(difference))


def _release_text(difference: ReleaseDifference) -> str:
    parts = [_tables_text(difference), _ids_text("images or texts", difference.images_removed, difference.images_added)]
    parts.append(_ids_text("studies", difference.studies_removed, difference.studies_added))
    for study, layers in difference.studies.items():
        parts.append(f"\nStudy {study}\n{_difference_text(layers)}")
    if not difference.studies:
        parts.append("No study of the two has answers of one lens at the same visual layer.")
    else:
        parts.append(f"\n{_COLUMNS}")
    return "\n".join(part for part in parts if part)


def _tables_text(difference: ReleaseDifference) -> str:
    changed = [one for one in difference.tables if not one.same]
    lines = [f"{one.table:16}  {one.rows_first:>13,} -> {one.rows_second:>13,} rows" for one in changed]
    same = ", ".join(one.table for one in difference.tables if one.same)
    unread = [f"Not compared, for one of the two lacks them here: {', '.join(difference.not_compared)}."]
    return "\n".join([*lines, f"The same rows: {same or 'none'}.", *(unread if difference.not_compared else [])])


def _ids_text(what: str, removed: tuple[str, ...], added: tuple[str, ...]) -> str:
    lines = []
    for ids, where in ((removed, "first"), (added, "second")):
        more = ", ..." if len(ids) > _IDS_SHOWN else ""
        if ids:
            lines.append(f"{len(ids):,} {what} only in the {where}: {', '.join(ids[:_IDS_SHOWN])}{more}")
    return "\n".join(lines)
