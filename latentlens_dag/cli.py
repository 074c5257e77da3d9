"""The command line. It reads arguments, calls the library, prints; nothing else.

Exit codes: 0 done, 1 something failed while running, 2 a mistake of the user's, 130 interrupted. What a
newcomer gets wrong: `--help` must be quick, so torch, dagster and duckdb are imported inside the
commands that need them (together over 8 s).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from latentlens_dag.errors import UserError
from latentlens_dag.home import find_home

if TYPE_CHECKING:
    import polars as pl

    from latentlens_dag.dag.driver import Ran
    from latentlens_dag.inspection import Inspection
    from latentlens_dag.model_checks import ModelCheck
    from latentlens_dag.queries import Dataset, NamedQuery

_ROWS_SHOWN = 60
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")

home_option = click.option("--home", type=click.Path(path_type=Path), help="Folder of results and history.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
studies_argument = click.argument("studies", nargs=-1, metavar="[STUDY ...]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="latentlens-dag")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. May stand after the command too.")
def cli(debug: bool) -> None:
    """Say in plain language what every visual token of a vision-language model means at every layer."""


@cli.command()
@studies_argument
@click.option("--select", "asset", help="Only this asset, or those that begin so, and what they are made from.")
@click.option("--force", is_flag=True, help="Build what is selected even where it is up to date.")
@home_option
@json_option
def build(studies: Sequence[str], asset: str | None, force: bool, home: Path | None, as_json: bool) -> None:
    """Build what is missing or out of date, and nothing else."""
    from latentlens_dag.dag.driver import build_lock, open_project

    with open_project(find_home(home)) as project, build_lock(project.home), _progress_on_terminal():
        selection = project.select(studies, asset)
        project.observe(selection)
        planned = len(project.plan(selection))
        counter = _Counter(planned, quiet=as_json)
        ran = project.build(selection, force, counter)
    _print_facts([_ran_facts(one) for one in ran], as_json, lambda: _build_end(ran))


@cli.command()
@studies_argument
@click.option("--select", "asset", help="Only this asset, or those that begin so, and what they are made from.")
@home_option
@json_option
def plan(studies: Sequence[str], asset: str | None, home: Path | None, as_json: bool) -> None:
    """Say what `build` would do, and why."""
    from latentlens_dag.dag.driver import open_project

    with open_project(find_home(home)) as project:
        selection = project.select(studies, asset)
        project.observe(selection)
        needs = project.plan(selection)
    facts = [{"asset": n.key.to_user_string(), "partition": n.partition, "reason": n.reason} for n in needs]
    lines = [str(need) for need in needs] or ["Everything is up to date."]
    _print_facts(facts, as_json, lambda: "\n".join(lines))


@cli.command()
@studies_argument
@home_option
@json_option
def status(studies: Sequence[str], home: Path | None, as_json: bool) -> None:
    """Say what is built, what is missing and what is out of date, step by step."""
    from latentlens_dag.dag.driver import open_project

    with open_project(find_home(home)) as project:
        facts = project.status(project.select(studies))
    width = max((len(fact["step"]) for fact in facts), default=0)
    lines = [f"{'step':{width}}  {'built':>9}  {'missing':>7}  {'stale':>5}"]
    for fact in facts:
        built = f"{fact['built']}/{fact['parts']}"
        lines.append(f"{fact['step']:{width}}  {built:>9}  {fact['missing']:>7}  {fact['stale']:>5}")
    _print_facts(facts, as_json, lambda: "\n".join(lines))


@cli.command()
@click.argument("query", required=False, metavar="[SQL_OR_NAME]")
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the query; may be repeated."
)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file to write instead of the terminal."
)
@home_option
def query(query: str | None, params: Sequence[str], form: str, output: Path | None, home: Path | None) -> None:
    """Run SQL, or a query by name, over all that is built; without one, list the queries."""
    from latentlens_dag.queries import queries

    if query is None:
        click.echo("\n".join(_query_help(one) for one in queries().values()))
        return
    if form == "parquet" and output is None:
        raise UserError("Parquet is no text: name a file with --output.")
    with _dataset(home) as dataset:
        _write_frame(dataset.collect(query, **_bound(params)), form, output)


@cli.command()
@click.argument("study")
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), help="A PNG of scenes with the words on them."
)
@click.option("--layer", type=int, help="The visual layer of the picture; by default the one in the middle.")
@click.option("--scenes", type=click.IntRange(1), default=2, show_default=True, help="How many scenes the picture has.")
@home_option
def summary(study: str, picture: Path | None, layer: int | None, scenes: int, home: Path | None) -> None:
    """Print a study's figures as a table, and draw its words on its pictures."""
    from latentlens_dag.pictures import from_thumbnails, study_picture
    from latentlens_dag.reports import interpretability_lines

    with _dataset(home) as dataset:
        found = dataset.collect("FROM interpretability WHERE study = $study", study=study)
        if found.is_empty():
            known = dataset.collect("SELECT DISTINCT study FROM neighbors ORDER BY study")["study"].to_list()
            raise UserError(
                f"Study {study!r} has no figures here: it was not built, or has no judge. "
                f"Built: {', '.join(known) or 'none'}."
            )
        click.echo(interpretability_lines(found.to_arrow()))
        if picture is not None:
            drawn = study_picture(dataset, study, from_thumbnails(dataset), picture, layer=layer, scenes=scenes)
            click.echo(f"{picture}: {scenes} scenes with the nearest answer of every visual token at layer {drawn}.")


@cli.command()
@click.option("--study", "name", required=True, metavar="STUDY", help="Whose model and index are asked.")
@click.option("--text", help="Ask with every token of this text, as the study's language model reads it.")
@click.option("--image-id", help="Ask with a visual token of this image...")
@click.option("--token", type=int, help="... this one, by its number in the image.")
@click.option("--layer", type=int, help="The layer of the text or of the visual token; by default one in the middle.")
@click.option("--contextual-layers", metavar="LAYERS", help="Only these layers of the index, as 1,2.")
@click.option("-k", "--top-k", "k", type=int, default=5, show_default=True, help="Answers per token.")
@click.option("--unique", type=click.Choice(["word", "sentence"]), help="What the answers of a token must differ in.")
@click.option("--word", help="Only answers whose whole word is this, whatever its case.")
@click.option("--recall", type=float, help="Ask the tables' indexes where they reached this recall; else all rows are.")
@home_option
@json_option
def search(
    name: str,
    text: str | None,
    image_id: str | None,
    token: int | None,
    layer: int | None,
    contextual_layers: str | None,
    k: int,
    unique: Literal["word", "sentence"] | None,
    word: str | None,
    recall: float | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Ask a study's index what a text's tokens or a visual token are like."""
    asked = (text is not None, image_id is not None, token is not None)
    if asked not in {(True, False, False), (False, True, True)}:
        raise UserError("Ask with `--text TEXT`, or with `--image-id ID --token NUMBER`: one of the two.")
    from latentlens_dag.dag.loading import find_study
    from latentlens_dag.index import ContextualIndex
    from latentlens_dag.models import load_language_model
    from latentlens_dag.questions import middle, text_question, visual_question

    study, warehouse = find_study(name), find_home(home).warehouse
    folder = warehouse.index(study.index).root
    if not folder.is_dir():
        raise UserError(
            f"Study {name} has no index here yet ({folder}): run `latentlens-dag build {name}` first, or name another "
            "--home."
        )
    index = ContextualIndex.open(folder)
    layers = _layer_numbers(contextual_layers)
    if text is not None:
        model = load_language_model(study.named_model)
        question = text_question(model, text, middle(index.layers) if layer is None else layer)
    else:
        question = visual_question(warehouse, name, image_id or "", token or 0, layer, middle(index.layers))
    how = {"exact": True} if recall is None else {"exact": False, "recall": recall}
    found = index.search(question.states, k, layers, unique=unique, word=word, **how)
    same = {"layer": question.layer, "method": found.method}
    rows = [{"token": question.tokens[row["query"]], **same, **row} for row in found.to_polars().to_dicts()]
    heading = f"The {'text' if text is not None else 'visual'} states at layer {question.layer} are nearest to:\n"
    end = "" if recall is None else f"\n{found.method}"
    _print_facts(rows, as_json, lambda: heading + _answer_lines(rows) + end)


@cli.command("import-index")
@click.argument("source")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
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

    from latentlens_dag import reference

    tell = (lambda done, total: click.echo(f"{done}/{total} layers", err=True)) if not as_json else lambda *_: None
    found = reference.import_index(source, output, revision, tell)
    text = (
        f"{output}: {found.rows:,} occurrences of width {found.width} at layers {', '.join(map(str, found.layers))}; "
        f"of {found.placed:,} the word's place in its sentence is certain. {found.repeated:,} repeated rows left out."
    )
    _print_facts({"path": str(output), **asdict(found)}, as_json, lambda: text)


@cli.command("inspect-model")
@click.argument("source", metavar="PATH_OR_ID")
@click.option("--image", "file", type=click.Path(path_type=Path), help="Show the model this picture, not noise.")
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), help="A PNG of the image with its visual tokens."
)
@click.option("--revision", metavar="COMMIT", help="Of a Hub id: a full commit.")
@click.option(
    "--localize/--no-localize", default=None, help="Check where the tokens look; by default for models up to 1 GB."
)
@json_option
def inspect_model(
    source: str, file: Path | None, picture: Path | None, revision: str | None, localize: bool | None, as_json: bool
) -> None:
    """Say whether a model can be read, how it sees an image, and what a study of it will cost.

    PATH_OR_ID is a model's folder, or a Hub id. No code that comes with it is run.
    """
    from latentlens_dag import inspection
    from latentlens_dag.images import open_image

    _without_progress_bars()
    image = None if file is None else open_image(file)
    found = inspection.inspect_model(source, image, revision, localize, picture)
    _print_facts(found.facts(), as_json, lambda: _inspection_lines(found, picture))


def main() -> None:
    """Run the command line with the exit codes and messages that this module promises."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported
    os.environ.setdefault("LANCE_LOG", "error")
    try:
        cli.main(arguments, prog_name="latentlens-dag", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave("Interrupted. What was finished stays; run the same command again to go on.", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        _leave(f"Error: {error}", 2, debug)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        hint = "" if debug else "\nRun again with --debug to see where."
        _leave(f"Error: {type(error).__name__}: {error}{hint}", 1, debug, getattr(error, "trace", ""))


def _leave(message: str, code: int, debug: bool = False, trace: str = "") -> None:
    if debug:
        traceback.print_exc()
        click.echo(trace, err=True)
    click.echo(message, err=True)
    sys.exit(code)


def _print_facts(facts: Any, as_json: bool, text: Callable[[], str]) -> None:
    click.echo(json.dumps(facts, indent=1, default=str) if as_json else text())


def _dataset(home: Path | None) -> Dataset:
    from latentlens_dag.queries import open_dataset

    found = find_home(home)
    if not found.warehouse.root.is_dir():
        raise UserError(
            f"Nothing is built in {found.root} yet. Run `latentlens-dag build` first, or name another --home."
        )
    return open_dataset(found.warehouse)


def _bound(params: Sequence[str]) -> dict[str, str]:
    wrong = [param for param in params if "=" not in param]
    if wrong:
        raise UserError(f"`--param {wrong[0]}` must be NAME=VALUE.")
    return dict(param.split("=", 1) for param in params)


def _layer_numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"`--contextual-layers {text}` must be numbers with commas, as 1,2.")
    return [int(number) for number in text.split(",")]


def _answer_lines(rows: list[dict[str, Any]]) -> str:
    """Answers as a table; text from data must not drive the terminal."""
    from latentlens_dag.questions import bracketed

    room = max(40, shutil.get_terminal_size((160, 24)).columns - 42)
    lines = [f"{'token':16}  {'rank':>4}  {'cosine':>6}  {'layer':>5}  sentence"]
    for row in rows:
        sentence = bracketed(row["sentence"], row["char_start"], row["char_end"], room)
        name = _one_line(row["token"]) if row["rank"] == 1 else ""
        lines.append(
            f"{name:16}  {row['rank']:>4}  {row['cosine']:>6.3f}  {row['contextual_layer']:>5}  {_one_line(sentence)}"
        )
    return "\n".join(lines)


def _inspection_lines(found: Inspection, picture: Path | None) -> str:
    size, cost = found.size, found.cost
    rows = [
        ("family", f"{size.model_type} ({size.model_class})"),
        ("language model", f"{size.blocks} blocks, width {size.width:,}, vocabulary {size.vocabulary:,}"),
        ("", f"{size.parameters:,} parameters, {_bytes_text(size.bytes_in_memory)} as {size.dtype} on {size.device}"),
        *_layout_rows(found),
        *((check.name, f"{_verdict(check)}  {check.figure:.2g}  {check.meaning}") for check in found.checks),
        *([] if found.not_checked is None else [("localization", f"not run: {found.not_checked}")]),
        ("text", f"{cost.text_batch_s:.2g} s a batch, {cost.text_tokens_per_s:,.0f} tokens a second"),
        *_cost_rows(found),
        *([] if picture is None else [("picture", str(picture))]),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(_one_line(f"{name:{width}}  {text}") for name, text in rows), "", found.defs.rstrip()])


def _layout_rows(found: Inspection) -> list[tuple[str, str]]:
    layout = found.layout
    if layout is None:
        return [("vision", "none: a language model, for indexes")]
    views = [
        f"unmapped {view.tokens}"
        if view.name == "unmapped"
        else f"{view.name} {view.rows} x {view.columns}" + (f" in {view.tiles} tiles" if view.name == "tile" else "")
        for view in layout.views
    ]
    boxes = [" ".join(f"{value:g}" for value in box or []) or "unknown" for box in (layout.first_box, layout.last_box)]
    return [
        ("visual tokens", f"{layout.tokens} of an image of {layout.width} x {layout.height}, in this order:"),
        ("", ", ".join(views) + (f", {layout.newlines} newlines at the ends of rows" if layout.newlines else "")),
        ("", f"first box {boxes[0]}, last {boxes[1]} (x0 y0 x1 y1); {layout.covered:.1%} of the image covered"),
    ]


def _cost_rows(found: Inspection) -> list[tuple[str, str]]:
    cost = found.cost
    if cost.image_s is None or cost.images_s is None or cost.images_bytes is None:
        return []
    each = f"{cost.image_s:.2g} s an image"
    return [
        ("images", f"{each}; 1,000 such: {cost.images_s / 60:.1f} min, {_bytes_text(cost.images_bytes)} of states"),
        ("", f"at {len(found.visual_layers)} layers"),
    ]


def _verdict(check: ModelCheck) -> str:
    return "pass" if check.passed else "FAIL"


def _bytes_text(count: int) -> str:
    unit, name = next(((10**e, n) for e, n in ((9, "GB"), (6, "MB"), (3, "kB")) if count >= 10**e), (1, "bytes"))
    return f"{count / unit:.3g} {name}"


def _without_progress_bars() -> None:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _one_line(text: str) -> str:
    return _CONTROL.sub("\ufffd", text.replace("\n", " "))


def _query_help(one: NamedQuery) -> str:
    names = " ".join(f"--param {p.name}=..." if p.required else f"[--param {p.name}=...]" for p in one.parameters)
    return f"{one.name} {names}\n    {one.description}"


def _write_frame(frame: pl.DataFrame, form: str, output: Path | None) -> None:
    if form == "parquet":
        frame.write_parquet(output or "")
        return
    if form == "json":
        text = frame.write_json()
    elif form == "csv":
        text = _flat(frame).write_csv()
    else:
        text = _table_text(frame)
    if output is None:
        click.echo(text.rstrip("\n"))
    else:
        output.write_text(text, encoding="utf-8")


def _table_text(frame: pl.DataFrame) -> str:
    """The first rows as a table; text from data must not drive the terminal."""
    import polars as pl

    width = shutil.get_terminal_size((200, 24)).columns
    shown = {
        "tbl_rows": _ROWS_SHOWN,
        "tbl_cols": -1,
        "fmt_str_lengths": 60,
        "fmt_table_cell_list_len": 12,
        "tbl_width_chars": width,
    }
    with pl.Config(**shown, tbl_hide_dataframe_shape=True):  # type: ignore[arg-type]
        text = _CONTROL.sub("\ufffd", str(frame))
    more = f", {_ROWS_SHOWN} shown; --format csv gives all" if len(frame) > _ROWS_SHOWN else ""
    return f"{text}\n{len(frame):,} rows{more}"


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as JSON text, bytes as their number, which CSV has no form for."""
    import polars as pl
    import polars.selectors as cs

    lists = cs.by_dtype(pl.List)
    joined = lists.map_elements(lambda one: json.dumps(list(one)), return_dtype=pl.String)
    return frame.with_columns(joined, cs.binary().bin.size())


def _build_end(ran: list[Ran]) -> str:
    built = sum(len(one.needs) for one in ran)
    return f"Built {built} parts in {sum(one.wall_s for one in ran):.1f} s." if built else "Everything is up to date."


def _ran_facts(ran: Ran) -> dict[str, Any]:
    needs = [{"asset": n.key.to_user_string(), "reason": n.reason} for n in ran.needs]
    return {"partition": ran.partition, "built": needs, "steps": ran.steps, "wall_s": ran.wall_s}


class _Counter:
    """Tells on the terminal how far a build is, run by run."""

    def __init__(self, planned: int, quiet: bool) -> None:
        self._planned, self._done, self._quiet = planned, 0, quiet

    def __call__(self, ran: Ran) -> None:
        self._done += len(ran.needs)
        if self._quiet:
            return
        part = f"[{ran.partition}]" if ran.partition else ""
        share = f"{min(self._done, self._planned):>3}/{self._planned}"
        for step, wall_s in ran.steps.items():
            click.echo(f"{share}  {step.replace('__', '/')}{part}  {wall_s:.1f} s", err=True)


class _ProgressHandler(logging.Handler):
    """One line on the terminal, written over."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"\r\x1b[2K  {record.getMessage()}\r")
        sys.stderr.flush()


class _progress_on_terminal:
    """Show the progress of steps while they run, where stderr is a terminal."""

    def __enter__(self) -> None:
        from latentlens_dag.dag.reporting import PROGRESS_LOGGER

        self._logger, self._handler = logging.getLogger(PROGRESS_LOGGER), _ProgressHandler()
        if sys.stderr.isatty():
            self._logger.addHandler(self._handler)
            self._logger.setLevel(logging.INFO)
            self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
