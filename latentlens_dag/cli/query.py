"""The commands query, summary and search, which read results."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from latentlens_dag.cli.layout import rows_text
from latentlens_dag.cli.output import (
    LocalPath,
    home_option,
    json_option,
    one_line,
    print_facts,
    table_text,
    terminal_width,
    write_errors,
)
from latentlens_dag.cli.result_text import csv_text, escape_beyond, json_text
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import find_home

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from latentlens_dag.dag.components.studies import Study
    from latentlens_dag.dataset.dataset import Dataset
    from latentlens_dag.dataset.named_queries import NamedQuery
    from latentlens_dag.index.approximate import MeasuredRecall
    from latentlens_dag.index.contextual_index import ContextualIndex
    from latentlens_dag.storage.warehouse import Warehouse
    from latentlens_dag.study.query_states import QueryStates

_ROWS_SHOWN = 60
_ITEMS_SHOWN = 12  # of a list; a mask has thousands of numbers
data_option = click.option(
    "--data",
    metavar="PATH_OR_ID",
    help="Ask this instead of the home: a release's folder or its name on the Hub, as user/name@v1.0.0.",
)


@click.command()
@click.argument("query", required=False, metavar="[SQL_OR_NAME]")
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the query; may be repeated."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="In csv, bytes are their number, and lists and structs JSON; in json, bytes are base64. Parquet keeps all.",
)
@click.option("--output", type=LocalPath(dir_okay=False), help="A file to write instead of the terminal.")
@click.option("--columns", metavar="NAMES", help="Only these columns, as study,word,cosine, in this order.")
@click.option("--limit", type=click.IntRange(0), metavar="ROWS", help="At most so many rows.")
@click.option("--vertical", is_flag=True, help="A line per column; a table too wide for the terminal is printed so.")
@data_option
@home_option
def query(
    query: str | None,
    params: Sequence[str],
    form: str,
    output: Path | None,
    columns: str | None,
    limit: int | None,
    vertical: bool,
    data: str | None,
    home: Path | None,
) -> None:
    """Run SQL, or a query by name, over all that is built or over a release; without one, list the queries.

    For example: latentlens-dag query where_word --param word=dog --limit 5
    """
    from latentlens_dag.dataset.named_queries import named_queries
    from latentlens_dag.dataset.no_rows import no_rows_note

    if query is None:
        click.echo("\n".join(_query_help(one) for one in named_queries().values()))
        return
    if form == "parquet" and output is None:
        raise UserError("Parquet is no text: name a file with --output.")
    with _dataset(home, data) as dataset:
        frame = _part(found := dataset.collect(query, **(bound := _bound(params))), columns, limit)
        note = no_rows_note(dataset, query, bound) if found.is_empty() else None
    with nullcontext() if output is None else write_errors("--output", output):
        _write_frame(frame, form, output, vertical)
    if note:
        click.echo(note, err=True)


def _part(frame: pl.DataFrame, columns: str | None, limit: int | None) -> pl.DataFrame:
    """Some of the columns and rows."""
    names = frame.columns if columns is None else [name.strip() for name in columns.split(",")]
    if unknown := [name for name in names if name not in frame.columns]:
        raise UserError(
            f"`--columns {columns}`: the result has no column {unknown[0]!r}; it has {', '.join(frame.columns)}."
        )
    return frame.select([*dict.fromkeys(names)]).head(len(frame) if limit is None else limit)


@click.command()
@click.argument("study")
@click.option("--picture", type=LocalPath(dir_okay=False), help="A PNG of scenes with the words on them.")
@click.option("--layer", type=int, help="The visual layer of the picture; by default the one in the middle.")
@click.option("--scenes", type=click.IntRange(1), default=2, show_default=True, help="How many scenes the picture has.")
@click.option(
    "--measure",
    type=click.Choice(["interpretable", "concrete", "abstract", "global"]),
    help="All figures of this measure: share, chance and excess with intervals, tokens and images.",
)
@click.option("--k", type=click.IntRange(1), help="Judged by so many answers: 1, or by default all.")
@data_option
@home_option
def summary(
    study: str,
    picture: Path | None,
    layer: int | None,
    scenes: int,
    measure: str | None,
    k: int | None,
    data: str | None,
    home: Path | None,
) -> None:
    """Print a study's figures as a table, and draw its words on its pictures."""
    from latentlens_dag.figures.contact_sheet import thumbnail_loader, write_sheet

    if picture is not None and not picture.absolute().parent.is_dir():
        raise UserError(f"`--picture {picture}` cannot be written: there is no such folder.")
    with _dataset(home, data) as dataset:
        click.echo(_figures(dataset, study, measure, k))
        if picture is not None:
            with write_errors("--picture", picture):
                drawn = write_sheet(dataset, study, thumbnail_loader(dataset), picture, layer=layer, scenes=scenes)
            click.echo(f"{picture}: {scenes} scenes with the nearest answer of every visual token at layer {drawn}.")


def _caption_parts(dataset: Dataset, study: str) -> list[str]:
    """What the captions of the study's model are worth, if it has any."""
    from latentlens_dag.study.report import caption_lines

    if "caption_scores" not in dataset.tables:
        return []
    found = dataset.collect("FROM caption_scores WHERE study = $study", study=study).to_arrow()
    return [caption_lines(found)] if len(found) else []


def _figures(dataset: Dataset, study: str, measure: str | None, k: int | None) -> str:
    """A study's verdicts or, without a judge, statistics of its neighbors."""
    from latentlens_dag.study.report import ablation_lines, interpretability_lines, unjudged_lines

    tables = ("interpretability", "diversity", "layer_alignment")
    judged, diversity, alignment = (
        dataset.collect(f"FROM {table} WHERE study = $study", study=study).to_arrow() for table in tables
    )
    if len(judged):
        if "measure" not in judged.column_names:
            raise UserError(
                f"The figures of study {study} were made by an older version of this package, with other columns: run "
                f"`latentlens-dag build {study}`, which runs the cheap steps after its answers again."
            )
        if k not in (None, *(known := judged["k"].unique().to_pylist())):
            raise UserError(
                f"`--k {k}`: the answers of study {study} were judged by {' and by '.join(map(str, known))}: name one."
            )
        parts = [interpretability_lines(judged, measure, k, diversity)]
        if "corpus_ablation" in dataset.tables:  # a catalog of an older version has none
            found = dataset.collect("FROM corpus_ablation WHERE study = $study", study=study).to_arrow()
            parts += [ablation_lines(found, measure, k)] if len(found) else []
        return "\n".join([*parts, *_caption_parts(dataset, study)])
    if len(diversity):
        return "\n".join([unjudged_lines(diversity, alignment), *_caption_parts(dataset, study)])
    known = dataset.collect("SELECT DISTINCT study FROM neighbors ORDER BY study")["study"].to_list()
    raise UserError(
        f"Study {study!r} has no figures here: it was not built to its end. Built, at least in part: "
        f"{', '.join(known) or 'none'}."
    )


@click.command()
@click.option("--study", "name", required=True, metavar="STUDY", help="Whose model and index are asked.")
@click.option("--text", help="Ask with every token of this text, as the study's language model reads it.")
@click.option("--image-id", help="Ask with a token of this image, or text, of the study...")
@click.option("--token", type=int, help="... this one, by its number in it.")
@click.option("--layer", type=int, help="The layer of the text or of the visual token; by default one in the middle.")
@click.option("--contextual-layers", metavar="LAYERS", help="Only these layers of the index, as 1,2.")
@click.option("-k", "--top-k", type=int, default=5, show_default=True, help="Answers per token.")
@click.option("--unique", type=click.Choice(["word", "sentence"]), help="What the answers of a token must differ in.")
@click.option(
    "--word", help="Only answers whose whole word is this, whatever its case and however its accents are stored."
)
@click.option("--own-sentence", is_flag=True, help="Answer from the text itself, too, where the index holds it.")
@click.option(
    "--similarity",
    type=click.Choice(["cosine", "centered"]),
    default="cosine",
    show_default=True,
    help="centered: of states without their layer's mean, for comparison.",
)
@click.option("--recall", type=float, help="Ask the tables' indexes if they reached this recall; else all rows.")
@home_option
@json_option
def search(name: str, home: Path | None, as_json: bool, **options: Any) -> None:
    """Find the nearest neighbors of a text's tokens, or of a stored token, in a study's index."""
    request = SearchRequest(**options)
    layers = _layer_numbers(request.contextual_layers)
    if (request.text is not None, request.image_id is not None, request.token is not None) not in _QUERIES:
        raise UserError("Ask with `--text TEXT`, or with `--image-id ID --token NUMBER`: one of the two.")
    from latentlens_dag.dag.loading import find_study

    study, warehouse = find_study(name), find_home(home).warehouse
    index = _open_index(name, warehouse.index(study.index).root)
    query = _query_states(request, study, warehouse, index)
    mean = _query_mean(request, study, warehouse, query.layer, index)
    how = _how(request, query, mean, _measured(request, warehouse, study.name, query.layer))
    rows, method = _neighbors(request, layers, query, index, how)
    of_texts = request.text is not None or study.texts is not None
    heading = f"The {'text' if of_texts else 'visual'} states at layer {query.layer} are nearest to:\n"
    end = "" if request.recall is None and mean is None else f"\n{method}"
    print_facts(rows, as_json, lambda: heading + _neighbor_table(rows, terminal_width()) + end)


class SearchRequest(NamedTuple):
    """The options of `search` that say what is looked for, and which neighbors count."""

    text: str | None
    image_id: str | None
    token: int | None
    layer: int | None
    contextual_layers: str | None
    top_k: int
    unique: Literal["word", "sentence"] | None
    word: str | None
    own_sentence: bool
    similarity: Literal["cosine", "centered"]
    recall: float | None


_QUERIES = {(True, False, False), (False, True, True)}  # of text, image_id and token: which go together


def _open_index(study: str, folder: Path) -> ContextualIndex:
    from latentlens_dag.index.contextual_index import ContextualIndex

    if not folder.is_dir():
        raise UserError(
            f"Study {study} has no index here yet ({folder}): run `latentlens-dag build {study}` first, or name "
            "another --home."
        )
    return ContextualIndex.open(folder)


def _query_states(request: SearchRequest, study: Study, warehouse: Warehouse, index: ContextualIndex) -> QueryStates:
    """The states to search with, of a text that the model reads now or of a token that the study stored."""
    from latentlens_dag.models.layers import middle_layer
    from latentlens_dag.models.loading import load_language_model
    from latentlens_dag.study.query_states import encode_query, stored_query
    from latentlens_dag.study.source import study_source

    layer = middle_layer(index.layers) if request.layer is None else request.layer
    if request.text is not None:
        # A connector's checkpoint lies in the home; the study's last step says which it read.
        of_home = study.connector_name is not None
        model = study_source(warehouse, study.name).model if of_home else study.model_ref
        return encode_query(load_language_model(model, dtype=index.dtype), request.text, layer)
    token = request.image_id or "", request.token or 0
    return stored_query(warehouse, study.name, *token, request.layer, middle_layer(index.layers))


def _query_mean(
    request: SearchRequest, study: Study, warehouse: Warehouse, layer: int, index: ContextualIndex
) -> NDArray[np.float64] | None:
    """What is subtracted from the query: the mean of the study's tokens, or of the index's, at its layer."""
    from latentlens_dag.study.query_states import mean_state

    if request.similarity == "cosine":
        return None
    return index.mean_state(layer) if request.text is not None else mean_state(warehouse, study.name, layer)


def _measured(request: SearchRequest, warehouse: Warehouse, study: str, layer: int) -> MeasuredRecall | None:
    """The recall on the study's stored states, where one of them asks; a new text is more like the index's rows."""
    from latentlens_dag.study.search_recall import stored_recall

    return None if request.recall is None or request.text is not None else stored_recall(warehouse, study, layer)


def _how(
    request: SearchRequest, query: QueryStates, mean: NDArray[np.float64] | None, measured: MeasuredRecall | None
) -> dict[str, Any]:
    """What `ContextualIndex.search` is told of how to search."""
    how: dict[str, Any] = {"exact": True} if request.recall is None else {"exact": False, "recall": request.recall}
    how |= {} if mean is None else {"similarity": request.similarity, "query_mean": mean}
    return {
        **how,
        "measured": measured,
        "sentence_ids": [query.sentence_id] * len(query.tokens),
        "own_sentence": request.own_sentence,
    }


def _neighbors(
    request: SearchRequest,
    layers: list[int] | None,
    query: QueryStates,
    index: ContextualIndex,
    how: dict[str, Any],
) -> tuple[list[dict[str, Any]], str]:
    """The neighbors of every token, as rows, and how they were found; `how` as `_how` gives it."""
    found = index.search(query.states, request.top_k, layers, unique=request.unique, word=request.word, **how)
    same = {"layer": query.layer, "method": found.method}
    rows = [{"token": query.tokens[row["query"]], **same, **row} for row in found.to_polars().to_dicts()]
    return rows, found.method


def _dataset(home: Path | None, data: str | None) -> Dataset:
    from latentlens_dag.dataset.dataset import is_empty, open_dataset

    if data is not None and home is not None:
        raise UserError("`--data` and `--home` name two datasets: leave one out.")
    if data is None:
        found = find_home(home)
        if is_empty(found.warehouse):
            raise UserError(
                f"Nothing is built in {found.root} yet. Run `latentlens-dag build` first, or name another --home."
            )
    dataset = open_dataset(found.warehouse if data is None else data)
    if dataset.note:
        click.echo(dataset.note, err=True)
    return dataset


def _bound(params: Sequence[str]) -> dict[str, str]:
    bound: dict[str, str] = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not name or not equals:
            raise UserError(f"`--param {param}` must be NAME=VALUE.")
        if name in bound:
            raise UserError(f"`--param {name}` comes twice, with {bound[name]!r} and {value!r}. Leave one out.")
        bound[name] = value
    return bound


def _layer_numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"`--contextual-layers {text}` must be numbers with commas, as 1,2.")
    return [int(number) for number in text.split(",")]


def _neighbor_table(rows: list[dict[str, Any]], width: int | None) -> str:
    """Neighbors as a table; on a terminal, a long sentence is cut around its word."""
    from latentlens_dag.text.display import bracket_word

    room = None if width is None else max(40, width - _BESIDE_SENTENCE)
    cells = []
    for row in rows:
        sentence = bracket_word(row["sentence"], row["char_start"], row["char_end"], room)
        token = one_line(row["token"]) if row["rank"] == 1 else ""
        numbers = (str(row["rank"]), f"{row['cosine']:.3f}", str(row["contextual_layer"]))
        cells.append((token, *numbers, one_line(sentence)))
    headers = ("token", "rank", "cosine", "layer", "sentence")
    return table_text(headers, cells, width, ["token", "sentence"], {"token": 16})


_BESIDE_SENTENCE = 42  # characters of the other columns


def _query_help(one: NamedQuery) -> str:
    names = " ".join(f"--param {p.name}=..." if p.required else f"[--param {p.name}=...]" for p in one.parameters)
    return f"{one.name} {names}\n    {one.description}"


def _write_frame(frame: pl.DataFrame, form: str, output: Path | None, vertical: bool = False) -> None:
    if form == "parquet":
        frame.write_parquet(output or "")
        return
    if form == "json":
        text = (
            json_text(frame) if output is not None else escape_beyond(json_text(frame), sys.stdout.encoding or "utf-8")
        )
    elif form == "csv":
        text = csv_text(frame)
    else:
        text = _frame_table(frame, terminal_width() if output is None else None, vertical)
    if output is None:
        click.echo(text.removesuffix("\n"))  # and no more: a last row of null is an empty line of CSV
    else:
        output.write_text(text, encoding="utf-8")


def _frame_table(frame: pl.DataFrame, width: int | None, vertical: bool = False) -> str:
    """The first rows as a table, or a line per column where that is wanted or too wide."""
    headers = {name: one_line(name) for name in frame.columns}
    left = [headers[name] for name, dtype in frame.schema.items() if not dtype.is_numeric()]
    rows = [[_cell(value) for value in row] for row in frame.head(_ROWS_SHOWN).iter_rows()]
    text, shown = rows_text([*headers.values()], rows, width, left, vertical)
    more = f", {shown} shown; --format csv gives all" if len(frame) > shown else ""
    return f"{text}\n{len(frame):,} row{'' if len(frame) == 1 else 's'}{more}"


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{one_line(str(name))}: {_cell(part)}' for name, part in value.items())}}}"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list):
        more = [f"… {len(value):,} in all"] if len(value) > _ITEMS_SHOWN else []
        return f"[{', '.join([*map(_cell, value[:_ITEMS_SHOWN]), *more])}]"
    return one_line(str(value))
