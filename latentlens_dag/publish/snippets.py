"""The code of a card: how to load a release with `datasets`, Polars, DuckDB, pandas, LanceDB and this package.

Each snippet follows a comment with its name, `<!-- snippet: duckdb -->`, by which the tests find and run it. Note: the
`hf://` of Polars and DuckDB knows neither HF_ENDPOINT nor the cache, so these two read a snapshot, which
`snapshot_download` brings once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from latentlens_dag.models.layers import middle_layer


def table_snippets(repo_id: str, tables: set[str]) -> list[str]:
    """The snippets of a release of results, as Markdown."""
    picture = _DATASETS_PICTURE if "images" in tables else ""
    queries = {
        "datasets": ("With `datasets`", _DATASETS + picture),
        "streaming": ("Without downloading it", _STREAMING),
        "polars": ("With Polars", _POLARS),
        "duckdb": ("With DuckDB", _DUCKDB if "sentences" in tables else _DUCKDB_ALONE),
        "pandas": ("With pandas", _PANDAS),
        "latentlens_dag": ("With LatentLens DAG: all tables by name, and queries that come with it", _PACKAGE),
    }
    return [_block(name, title, code, repo_id) for name, (title, code) in queries.items()] + [_pull(repo_id)]


def index_snippets(repo_id: str, layers: Sequence[int], vectors: bool) -> list[str]:
    """The snippets of a release of an index, as Markdown."""
    layer = f"layer_{middle_layer(layers):02d}"
    queries = {
        "latentlens_dag": ("With LatentLens DAG, reading only what is asked for", _INDEX_PACKAGE),
        "lancedb": ("With LanceDB", _LANCEDB.replace("LAYER", layer)),
        "datasets": ("With `datasets`, the occurrences and sentences", _INDEX_DATASETS),
    }
    if vectors:
        queries["polars"] = ("With Polars, the vectors", _INDEX_POLARS.replace("LAYER", layer))
    return [_block(name, title, code, repo_id) for name, (title, code) in queries.items()] + [_pull(repo_id)]


def snippets_of(card: str) -> dict[str, str]:
    """The Python of a card, by name."""
    return dict(re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", card, re.DOTALL))


def _block(name: str, title: str, code: str, repo_id: str) -> str:
    return f"{title}:\n\n<!-- snippet: {name} -->\n```python\n{code.replace('REPO', repo_id)}```"


def _pull(repo_id: str) -> str:
    return f"On a command line, with every file's hash checked:\n\n```bash\nlatentlens-dag pull {repo_id}\n```"


_DATASETS = """\
from datasets import load_dataset

neighbors = load_dataset("REPO", split="train")
print(neighbors[0])
"""
_DATASETS_PICTURE = """\
images = load_dataset("REPO", "images", split="train")
print(images[0]["file_name"], images[0]["thumbnail"])
"""
_STREAMING = """\
from datasets import load_dataset

for answer in load_dataset("REPO", split="train", streaming=True).take(5):
    print(answer["lens"], answer["visual_layer"], answer["word"])
"""
_POLARS = """\
import polars as pl
from huggingface_hub import snapshot_download

folder = snapshot_download("REPO", repo_type="dataset")
nearest = pl.scan_parquet(f"{folder}/neighbors/*/*.parquet").filter(pl.col("rank") == 1)
print(nearest.group_by("lens", "word").len().sort("len", "lens", "word", descending=True).head(10).collect())
"""
_DUCKDB = """\
import duckdb
from huggingface_hub import snapshot_download

folder = snapshot_download("REPO", repo_type="dataset")
for table in ("neighbors/*", "sentences"):
    name = table.split("/")[0]
    duckdb.sql(f"CREATE VIEW {name} AS FROM read_parquet('{folder}/{table}/*.parquet')")
print(duckdb.sql(\"\"\"
    SELECT word, text, cosine FROM neighbors JOIN sentences USING (sentence_id)
    WHERE rank = 1 ORDER BY cosine DESC LIMIT 5
\"\"\"))
"""
_DUCKDB_ALONE = """\
import duckdb
from huggingface_hub import snapshot_download

folder = snapshot_download("REPO", repo_type="dataset")
duckdb.sql(f"CREATE VIEW neighbors AS FROM read_parquet('{folder}/neighbors/*/*.parquet')")
print(duckdb.sql("SELECT lens, word, count(*) AS n FROM neighbors GROUP BY ALL ORDER BY n DESC, lens, word LIMIT 5"))
"""
_PANDAS = """\
import pandas as pd

print(pd.read_parquet("hf://datasets/REPO/diversity.parquet"))
"""
_PACKAGE = """\
from latentlens_dag import open_dataset

data = open_dataset("REPO")
print(data.sql("FROM neighbors WHERE rank = 1 LIMIT 5").pl())
print(data.named("studies").pl())
"""
_INDEX_PACKAGE = """\
from latentlens_dag import ContextualIndex

index = ContextualIndex.open("hf://datasets/REPO")
print(index, index.width)
"""
_LANCEDB = """\
import lancedb

table = lancedb.connect("hf://datasets/REPO").open_table("LAYER")
row = table.search().limit(1).to_arrow()  # any state of the same language model does
print(table.search(row["vector"][0].as_py()).metric("cosine").select(["word"]).limit(5).to_polars())
"""
_INDEX_DATASETS = """\
from datasets import load_dataset

print(load_dataset("REPO", "occurrences", split="train")[0])
"""
_INDEX_POLARS = """\
import polars as pl
from huggingface_hub import hf_hub_download

print(pl.read_parquet(hf_hub_download("REPO", "vectors/LAYER.parquet", repo_type="dataset")).head())
"""
