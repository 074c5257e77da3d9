"""The commands inspect-model and import-index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentlens_dag.cli.output import LocalPath, bytes_text, json_option, one_line, print_facts
from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from latentlens_dag.models.inspection import Inspection
    from latentlens_dag.models.text_checks import ModelCheck


@click.command("import-index")
@click.argument("source")
@click.option(
    "--output",
    type=LocalPath(file_okay=False),
    required=True,
    help="The folder to write; an index there is replaced.",
)
@click.option("--revision", help="Of a Hub repository: a commit, branch or tag.")
@json_option
def import_index(source: str, output: Path, revision: str | None, as_json: bool) -> None:
    """Write an index of the reference library as a folder that can be searched.

    SOURCE is its folder, with layer_N/embeddings_cache.pt, or a Hub id. Nothing that it holds is run.
    """
    from dataclasses import asdict

    from latentlens_dag.index import reference_import

    tell = (lambda done, total: click.echo(f"{done}/{total} layers", err=True)) if not as_json else lambda *_: None
    found = reference_import.import_index(source, output, revision, tell)
    text = (
        f"{output}: {found.rows:,} occurrences of width {found.width} at layers {', '.join(map(str, found.layers))}; "
        f"of {found.placed:,} the word's place in its sentence is certain. {found.repeated:,} repeated rows left out."
    )
    print_facts({"path": str(output), **asdict(found)}, as_json, lambda: text)


@click.command("inspect-model")
@click.argument("source", metavar="PATH_OR_ID")
@click.option("--image", "file", type=LocalPath(), help="Show the model this picture, not noise.")
@click.option("--picture", type=LocalPath(dir_okay=False), help="A PNG of the image with its visual tokens.")
@click.option("--revision", metavar="COMMIT", help="Of a Hub id: a full commit.")
@click.option(
    "--localize/--no-localize", default=None, help="Check where the tokens look; by default for models up to 1 GB."
)
@click.option("--trust-remote-code", is_flag=True, help="Run the code that comes with the model, with all your rights.")
@json_option
def inspect_model(
    source: str,
    file: Path | None,
    picture: Path | None,
    revision: str | None,
    localize: bool | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Say whether a model can be read, how it sees an image, and what a study of it will cost.

    PATH_OR_ID is a model's folder, or a Hub id. No code that comes with it is run, unless you say so. The exit code is
    1 where one of its self-checks fails.
    """
    from transformers.utils.logging import disable_progress_bar

    from latentlens_dag.inputs.images import open_image, without_metadata_warnings
    from latentlens_dag.models import inspection

    disable_progress_bar()
    with without_metadata_warnings():
        image = None if file is None else open_image(file)
    if picture is not None and not picture.absolute().parent.is_dir():
        raise UserError(f"`--picture {picture}` cannot be written: there is no such folder.")
    found = inspection.inspect_model(source, image, revision, localize, picture, trust_remote_code)
    print_facts(found.facts(), as_json, lambda: _inspection_lines(found, picture))
    if found.failed:
        click.echo(f"{found.source} fails {', '.join(found.failed)}: {_FAILED}", err=True)
        sys.exit(1)


_FAILED = (
    "it is read wrongly, or breaks what the lenses rely on, so what a study of it says would be wrong. Are its "
    "config.json and its weights the ones that were published together?"
)


def _inspection_lines(found: Inspection, picture: Path | None) -> str:
    size, cost = found.size, found.cost
    rows = [
        ("family", f"{size.model_type} ({size.model_class})"),
        ("language model", f"{size.blocks} blocks, width {size.width:,}, vocabulary {size.vocabulary:,}"),
        ("", f"{size.parameters:,} parameters, {bytes_text(size.bytes_in_memory)} as {size.dtype} on {size.device}"),
        *_layout_rows(found),
        *((check.name, f"{_verdict(check, found)}  {check.figure:.2g}  {check.meaning}") for check in found.checks),
        *([] if found.not_checked is None else [("localization", f"not run: {found.not_checked}")]),
        ("text", f"{cost.text_batch_s:.2g} s a batch, {cost.text_tokens_per_s:,.0f} tokens a second"),
        *_cost_rows(found),
        *([] if picture is None else [("picture", str(picture))]),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(one_line(f"{name:{width}}  {text}") for name, text in rows), "", found.defs.rstrip()])


def _layout_rows(found: Inspection) -> list[tuple[str, str]]:
    from latentlens_dag.models.families.token_map import WITHOUT_BOX

    layout = found.layout
    if layout is None:
        return [("vision", "none: a language model, for indexes and studies of texts")]
    views = [
        f"{view.name} {view.tokens}"
        if view.name in WITHOUT_BOX
        else f"{view.name} {view.rows} x {view.columns}" + (f" in {view.tiles} tiles" if view.name == "tile" else "")
        for view in layout.views
    ]
    others = [f"{layout.newlines} newlines at the ends of rows"] if layout.newlines else []
    others += [f"{layout.padding} of these in padding, outside of the image"] if layout.padding else []
    boxes = [" ".join(f"{value:g}" for value in box or []) or "unknown" for box in (layout.first_box, layout.last_box)]
    return [
        ("visual tokens", f"{layout.tokens} of an image of {layout.width} x {layout.height}, in this order:"),
        ("", ", ".join([*views, *others])),
        ("", f"first box {boxes[0]}, last {boxes[1]} (x0 y0 x1 y1); {layout.covered:.1%} of the image covered"),
    ]


def _cost_rows(found: Inspection) -> list[tuple[str, str]]:
    cost = found.cost
    if cost.image_s is None or cost.images_s is None or cost.images_bytes is None:
        return []
    each = f"{cost.image_s:.2g} s an image"
    return [
        ("images", f"{each}; 1,000 such: {cost.images_s / 60:.1f} min, {bytes_text(cost.images_bytes)} of states"),
        ("", f"at {len(found.visual_layers)} layers"),
    ]


def _verdict(check: ModelCheck, found: Inspection) -> str:
    return "pass" if check.passed else "FAIL" if check.name in found.failed else "needs `dedup: sentence`"
