"""The tables of a release of results: what the catalogs of its studies hold, cut into files by image.

A file's bytes depend on its rows alone: sorted, with this package's Parquet settings, one image per file while images
are few. One image more is therefore a few files more, and all others stay as they are. The rows come from the
catalogs, which are sorted by image, one range of ids at a time: memory does not grow with the release, and DuckDB
spills the rest.

Note: `patch_truth` stays at home. It follows from the regions and the tokens' boxes, which go out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from latentlens_dag.dataset.study_catalog import ROW_ORDER
from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import table_of
from latentlens_dag.schema import IMAGES, TABLES
from latentlens_dag.sql.connections import scratch_connection
from latentlens_dag.sql.quoting import file_literal, identifier, literal
from latentlens_dag.sql.views import DECLARED, SUMMARIES
from latentlens_dag.storage.parquet import unsynced_parquet_rows
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import duckdb

SentenceChoice = Literal["all", "cited", "none"]
"""Which sentences go out: of the corpora, so that another image changes none; those of the answers; or none."""
OWN_FILES = 1024
"""The most images with files of their own; of more, those with the same first two digits share files."""
_MANY_SENTENCES = 1 << 20  # above it, they lie in 256 files instead of 16
_MEMORY = "1GB"
_BATCH = 1 << 14  # rows per record batch
_SCORES = ("cosine", "logit")  # columns of floats with hardly two equal values
_OF_STUDIES = ("neighbors", "judgements", "visual_tokens", "text_tokens")
_SHARED = {"images": "image_id", "regions": "image_id", "texts": "text_id"}
_ORDER = {
    **{table: ROW_ORDER[table] for table in (*_OF_STUDIES, *_SHARED)},
    **{table: f"study, {ROW_ORDER[table]}" for table in SUMMARIES},
    "interpretability": "study, judge, lens, visual_layer, patch_group, k, measure",
}
"""In which order the rows lie in a file; total, so that equal rows are equal bytes."""


def _image_schema() -> pa.Schema:
    """IMAGES with thumbnails as the library `datasets` knows pictures, which it decodes and the viewer shows."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field("thumbnail", picture) if field.name == "thumbnail" else field for field in IMAGES]
    kinds = {
        field.name: {"_type": "Image"} if field.name == "thumbnail" else {"dtype": str(field.type), "_type": "Value"}
        for field in fields
    }
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": kinds}})})


RELEASE_IMAGES = _image_schema()


class IdRange(NamedTuple):
    """A range of ids that share a file."""

    name: str
    first: str
    last: str


@contextmanager
def open_catalogs(warehouse: Warehouse, studies: Sequence[str], beside: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that has the catalogs of the studies as s0, s1, ...; it spills into a folder beside `beside`.

    Raises:
        UserError: where a study has no catalog.
    """
    with scratch_connection(beside, _MEMORY) as connection:
        for number, study in enumerate(studies):
            catalog = warehouse.catalog(study)
            if not catalog.is_file():
                raise UserError(
                    f"Study {study} is not built to its end, so it cannot be released ({catalog} is missing): run "
                    f"`latentlens-dag build {study}` first."
                )
            connection.execute(f"ATTACH {literal(str(catalog))} AS s{number} (READ_ONLY)")
        yield connection


def write_tables(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    studies: Sequence[str],
    corpora: Sequence[Path],
    *,
    thumbnails: bool,
    sentences: SentenceChoice,
) -> dict[str, int]:
    """Write all tables of a release of results into a folder; give the number of images, or texts, of each study.

    Args:
        connection: as `open_catalogs` gives it.
        folder: of the release, in a temporary place.
        studies: their names; where two have the same image under two names, the first one's is written.
        corpora: Parquet of their sentences (SENTENCES), in order of id.
        thumbnails: whether pictures go out.
        sentences: which sentences go out.
    """
    catalogs = [f"s{number}" for number in range(len(studies))]
    for column, tables in (("image_id", ("images", "regions")), ("text_id", ("texts",))):
        rows = " UNION ".join(f"SELECT {column} FROM {catalog}.{tables[0]}" for catalog in catalogs)
        parts = id_ranges([one for (one,) in connection.sql(f"FROM ({rows}) ORDER BY 1").fetchall()])
        for part in parts:
            for table in tables:
                _write_shared(connection, folder, table, catalogs, part, thumbnails)
        for catalog, study in zip(catalogs, studies, strict=True):
            own = parts if _is_of_texts(connection, catalog) == (column == "text_id") else []
            for part in own:
                _write_study(connection, folder, catalog, study, part)
    for table in SUMMARIES:
        having = catalogs if table not in DECLARED else [one for one in catalogs if _has(connection, one, table)]
        if not having:
            continue
        rows = " UNION ALL ".join(f"SELECT * FROM {catalog}.{table}" for catalog in having)
        _write(connection, folder / f"{table}.parquet", table, f"FROM ({rows}) ORDER BY {_ORDER[table]}")
    if sentences != "none":
        _write_sentences(connection, folder, catalogs, corpora, every=sentences == "all")
    return {study: _count_items(connection, catalog) for study, catalog in zip(studies, catalogs, strict=True)}


def id_ranges(ids: Sequence[str]) -> list[IdRange]:
    """The ids of each file: one while they are few, else those with the same first two digits."""
    if len(ids) <= OWN_FILES:
        return [IdRange(one, one, one) for one in ids]
    return _by_digits(2)


def _by_digits(digits: int) -> list[IdRange]:
    names = [f"{number:0{digits}x}" for number in range(16**digits)]
    return [IdRange(name, name.ljust(16, "0"), name.ljust(16, "f")) for name in names]


def _count_items(connection: duckdb.DuckDBPyConnection, catalog: str) -> int:
    ((count,),) = connection.sql(f"SELECT count(DISTINCT image_id) FROM {catalog}.visual_tokens").fetchall()
    return int(count)


def _is_of_texts(connection: duckdb.DuckDBPyConnection, catalog: str) -> bool:
    return bool(connection.sql(f"FROM {catalog}.text_tokens LIMIT 1").fetchall())


def _has(connection: duckdb.DuckDBPyConnection, catalog: str, table: str) -> bool:
    sql = "SELECT 1 FROM duckdb_tables() WHERE database_name = $catalog AND table_name = $table"
    return bool(connection.sql(sql, params={"catalog": catalog, "table": table}).fetchall())


def _write_study(connection: duckdb.DuckDBPyConnection, folder: Path, catalog: str, study: str, part: IdRange) -> None:
    for table in _OF_STUDIES:
        query = f"FROM {catalog}.{table} WHERE image_id BETWEEN $first AND $last ORDER BY {_ORDER[table]}"
        _write(connection, folder / table / study / f"{part.name}.parquet", table, query, part)


def _write_shared(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    table: str,
    catalogs: Sequence[str],
    part: IdRange,
    thumbnails: bool,
) -> None:
    """Write a table that studies share, with each image's rows from the first study that has any."""
    column = _SHARED[table]
    every = " UNION ALL ".join(
        f"SELECT {place} AS place, * FROM {catalog}.{table} WHERE {column} BETWEEN $first AND $last"
        for place, catalog in enumerate(catalogs)
    )
    query = f"FROM ({every}) QUALIFY place = min(place) OVER (PARTITION BY {column}) ORDER BY {_ORDER[table]}"
    _write(connection, folder / table / f"{part.name}.parquet", table, query, part, thumbnails)


def _write_sentences(
    connection: duckdb.DuckDBPyConnection, folder: Path, catalogs: Sequence[str], corpora: Sequence[Path], every: bool
) -> None:
    files = ", ".join(map(file_literal, dict.fromkeys(corpora)))
    cited = " UNION ALL ".join(f"SELECT sentence_id, text FROM {catalog}.sentences" for catalog in catalogs)
    rows = f"SELECT * FROM read_parquet([{files}])" if every else cited
    ((count,),) = connection.sql(f"SELECT count(*) FROM ({rows})").fetchall()
    for part in _by_digits(1 if count <= _MANY_SENTENCES else 2):
        query = (
            f"FROM (SELECT DISTINCT sentence_id, text FROM ({rows}) WHERE sentence_id BETWEEN $first AND $last) "
            "ORDER BY sentence_id"
        )
        _write(connection, folder / "sentences" / f"{part.name}.parquet", "sentences", query, part)


def _write(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    table: str,
    query: str,
    part: IdRange | None = None,
    thumbnails: bool = True,
) -> None:
    """Write the rows of a query as a table's file; none where there are no rows."""
    schema = RELEASE_IMAGES if table == "images" else TABLES[table]
    columns = ", ".join(_column(name, table, thumbnails) for name in schema.names)
    bound = {"first": part.first, "last": part.last} if part else {}
    batches = iter(connection.sql(f"SELECT {columns} {query}", params=bound).to_arrow_reader(_BATCH))
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = [field.name for field in schema if pa.types.is_float64(field.type)]
        split, of_studies = [*_SCORES, *figures], table in SUMMARIES
        with unsynced_parquet_rows(path, schema, split=split, read_whole=of_studies) as rows:
            rows.write(pa.Table.from_batches([first]))
            for batch in batches:
                rows.write(pa.Table.from_batches([batch]))


def _column(name: str, table: str, thumbnails: bool) -> str:
    if (table, name) != ("images", "thumbnail"):
        return identifier(name)
    picture = "struct_pack(bytes := thumbnail, path := NULL::VARCHAR)"
    return f"{picture if thumbnails else 'NULL::STRUCT(bytes BLOB, path VARCHAR)'} AS thumbnail"


def count_table_rows(folder: Path) -> Mapping[str, int]:
    """The number of rows of each table in a folder, by the footers of its files."""
    import pyarrow.parquet as pq

    found = Counter[str]()
    for path in sorted(folder.rglob("*.parquet")):
        if table := table_of(path.relative_to(folder).as_posix()):
            found[table] += pq.read_metadata(path).num_rows
    return found
