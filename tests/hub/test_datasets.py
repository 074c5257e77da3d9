"""A corpus read from a Hub of our own by the real client, in processes that reach nothing else."""

import gzip
import io
import json
import os
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs.texts import read_texts
from tests.helpers.hub_server import COMMIT, HubServer, Repo

TEXTS = ["One, with a comma.", 'Two "quoted".', "None", "NA", "Vier äöü.", "7"]
OTHER = "f" * 40
QUIET = {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}


def _parquet(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def _csv(texts: list[str]) -> bytes:
    return ("text,n\n" + "".join('"{}",1\n'.format(text.replace('"', '""')) for text in texts)).encode()


def _jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts).encode()


def _card(yaml: str) -> bytes:
    return f"---\n{yaml}---\n# A card\n".encode()


LINES = "\n".join(TEXTS).encode()
CONFIGS = "configs:\n- config_name: one\n  data_files: a.csv\n- config_name: two\n  data_files: b/*.csv\n"
REPOS = {
    "parquet": {"README.md": b"# A card", "train.parquet": _parquet(text=[*TEXTS, None, " "], n=range(8))},
    "large": {"train.parquet": _parquet(text=pa.array(TEXTS, pa.large_string()))},
    "csv": {"train.csv": _csv(TEXTS)},
    "jsonl": {"train.jsonl": _jsonl(TEXTS)},
    "packed": {"train.jsonl.gz": gzip.compress(_jsonl(TEXTS), mtime=0)},
    "lines": {"train.txt": LINES},
    "shards": {f"data/train-{n:05d}-of-00006.parquet": _parquet(text=[text]) for n, text in enumerate(TEXTS)},
    "splits": {"train.csv": _csv(["not this one"]), "test.csv": _csv(TEXTS)},
    "configs": {"README.md": _card(CONFIGS), "a.csv": _csv(["not this one"]), "b/c.csv": _csv(TEXTS)},
    "elsewhere": {"README.md": _card("configs:\n- config_name: a\n  data_files: hf://datasets/user/csv/train.csv\n")},
    "moving": {
        "README.md": _card("configs:\n- config_name: a\n  data_files: hf://datasets/user/moving@main/a.csv\n"),
        "a.csv": _csv(TEXTS),
    },
    "here": {"README.md": _card("configs:\n- config_name: a\n  data_files: /LOCAL\n")},
    "pictures": {"train/a.png": b"not looked at"},
    "card": {"README.md": _card("configs: [\n"), "train.csv": _csv(TEXTS)},
    "bare": {"README.md": b"# A card"},
    "broken_parquet": {"train.parquet": b"PAR1 no"},
    "broken_json": {"train.jsonl": b'{"text": "a"}\n{"text": \n'},
    "broken_gzip": {"train.csv.gz": gzip.compress(_csv(TEXTS) * 999)[:40]},
    "numbers": {"train.jsonl": b'{"text": 7}\n'},
    "lists": {"train.parquet": _parquet(text=[["a"], ["b"]])},
    "unlike_csv": {"train/1.csv": _csv(TEXTS), "train/2.csv": b"n\n1\n"},
    "unlike_json": {"train/1.jsonl": _jsonl(TEXTS), "train/2.jsonl": b'{"n": 1, "more": 2}\n'},
    "empty": {"train.csv": b"text\n"},
    "forbidden": {"train.csv": _csv(TEXTS)},
    "gated": {"README.md": b"# A card", "train.csv": _csv(TEXTS)},
}
READ = {
    **{name: {"dataset": f"user/{name}"} for name in ("parquet", "large", "csv", "jsonl", "packed", "lines", "shards")},
    "split": {"dataset": "user/splits", "split": "test"},
    "config": {"dataset": "user/configs", "config": "two"},
}
MISTAKES = {
    "no such dataset": ({"dataset": "user/nobody"}, r"'user/nobody' doesn't exist on the Hub.*Correct `hub`"),
    "no such commit": ({"revision": OTHER}, rf"Revision '{OTHER}' doesn't exist.*Correct `hub` or `revision`"),
    "no such config": ({"dataset": "user/configs", "config": "six"}, r"config six.*Available: \['one', 'two'\].*`conf"),
    "no config": ({"dataset": "user/configs"}, r"pick one among the available configs: \['one', 'two'\].*`config`"),
    "no such split": ({"split": "trian"}, r"split trian\) cannot .*Available splits: \['train'\].*`split`"),
    "part of a split": ({"split": "train[:1]"}, r"Bad split: train\[:1\]"),
    "no such column": ({"column": "texts"}, r"has no column 'texts'; it has text, n\. Correct `column`"),
    "no such column of CSV": ({"dataset": "user/csv", "column": "texts"}, r"has no column 'texts'; it has text, n"),
    "numbers": ({"column": "n"}, r"Dataset user/parquet of the Hub .*, row 1: n is 0, not text"),
    "numbers in JSON": ({"dataset": "user/numbers"}, r"row 1: text is 7, not text"),
    "lists": ({"dataset": "user/lists"}, r"row 1: text is a value of type list<element: string>, not text"),
    "files of another dataset": ({"dataset": "user/elsewhere"}, r"Data files don't belong to user/elsewhere"),
    "files of a branch": ({"dataset": "user/moving"}, r"moving@main/a\.csv, which its commit 0123\w+ does not pin"),
    "files of this machine": ({"dataset": "user/here"}, r"Data files don't belong to user/here"),
    "pictures": (
        {"dataset": "user/pictures"},
        rf"of imagefolder files, .*`hf download user/pictures --repo-type dataset --revision {COMMIT} .*folder",
    ),
    "no data": ({"dataset": "user/bare"}, r"doesn't contain any data files"),
    "a card that is no YAML": ({"dataset": "user/card"}, r"while parsing a flow node"),
    "broken Parquet": ({"dataset": "user/broken_parquet"}, r"Parquet file size is 7 bytes"),
    "broken JSON": ({"dataset": "user/broken_json"}, r"JSON parse error"),
    "broken gzip": ({"dataset": "user/broken_gzip"}, r"end-of-stream"),
    "files without the column": ({"dataset": "user/unlike_csv"}, r"has files without the column 'text'.*`config`"),
    "rows of other columns": ({"dataset": "user/unlike_json"}, r"column names don't match"),
    "forbidden": ({"dataset": "user/forbidden"}, r"the Hub answered with status 403\. .*HF_TOKEN"),
    "gated": ({"dataset": "user/gated"}, r"is a gated dataset on the Hub.*log in with `hf auth login`"),
}
CLIENT = """
import json, time
time.sleep = lambda seconds: None  # between retries
from latentlens_dag.inputs.texts import read_texts
from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn

def outcome(column):
    try:
        return list(read_texts(HubColumn(**column)))
    except UserError as error:
        return str(error)

print(json.dumps({name: outcome(column) for name, column in json.loads(sys.argv[1]).items()}), flush=True)
os._exit(0)  # Arrow's threads, where the interpreter ends as they do, now and then abort it (apache/arrow#34314)
"""


def _column(fields: dict[str, str]) -> dict[str, str | None]:
    whole = {"dataset": "user/parquet", "config": None, "split": "train", "column": "text", "revision": COMMIT}
    return {**whole, **fields}


def _hub(local: str = "/nowhere") -> HubServer:
    hub = HubServer(page=2, failing={r"/datasets/user/forbidden/resolve/.*csv": 403})
    for name, files in REPOS.items():
        files = {path: content.replace(b"/LOCAL", local.encode()) for path, content in files.items()}
        hub.add(Repo(f"user/{name}", files, gated=name == "gated"))
    return hub


def _outcomes(hub: HubServer, home: Path, columns: dict[str, dict], **environment: str) -> dict[str, list[str] | str]:
    columns = {name: _column(fields) for name, fields in columns.items()}
    run = hub.run(CLIENT, json.dumps(columns), home=home, **environment)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str] | str]:
    """What one client makes of all cases."""
    folder = tmp_path_factory.mktemp("outcomes")
    for file in (folder / "LOCAL.csv", folder / "home" / "user" / "parquet" / "train.csv"):  # by the dataset's name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_csv(["not of the Hub"]))
    mistakes = {name: fields for name, (fields, _) in MISTAKES.items()}
    columns = {**READ, **mistakes, "no rows": {"dataset": "user/empty"}}
    return _outcomes(_hub(f"{folder}/LOCAL.csv"), folder / "home", columns)


@pytest.mark.parametrize("name", READ)
def test_a_column_of_a_dataset_is_a_source(outcomes: dict[str, list[str] | str], name: str) -> None:
    assert outcomes[name] == TEXTS


def test_a_dataset_without_rows_has_no_texts(outcomes: dict[str, list[str] | str]) -> None:
    assert outcomes["no rows"] == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_dataset_that_cannot_be_read_is_told(outcomes: dict[str, list[str] | str], name: str) -> None:
    assert isinstance(outcomes[name], str)
    assert re.search(MISTAKES[name][1], str(outcomes[name])), outcomes[name]


def test_only_the_column_is_fetched_of_parquet(tmp_path: Path) -> None:
    hub = HubServer()
    wide = _parquet(text=TEXTS * 100, picture=[os.urandom(30_000) for _ in range(600)])
    hub.add(Repo("user/parquet", {"train.parquet": wide}))
    assert _outcomes(hub, tmp_path / "home", {"wide": {}})["wide"] == TEXTS * 100
    assert hub.sent_bytes < len(wide) / 2, hub.sent_bytes


def test_nothing_is_read_where_the_hub_is_not_reached_even_if_another_commit_was_cached(tmp_path: Path) -> None:
    hub, home = HubServer(), tmp_path / "home"
    hub.add(Repo("user/parquet", {"train.parquet": _parquet(text=TEXTS)}, commit=OTHER))
    cached = hub.run(f"import datasets; datasets.load_dataset('user/parquet', revision='{OTHER}')", home=home, **QUIET)
    assert cached.returncode == 0, cached.stderr
    hub.down = True
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        told = _outcomes(hub, home, {"offline": {}}, **environment)["offline"]
        assert re.search(r"cannot be read: no answer \(\w+\)\. Is there a network, does HF_HUB_OFFLINE", str(told)), (
            told
        )


@pytest.mark.parametrize("token", ["hf_secret", "hf_sécret"])
def test_a_token_is_sent_to_the_hub_and_told_to_nobody(tmp_path: Path, token: str) -> None:
    """Not where the Hub's answer repeats it, nor where it cannot be sent and the client's own error does."""
    hub = HubServer(failing={r"train\.csv": 403})
    hub.add(Repo("user/csv", {"train.csv": _csv(TEXTS)}))
    code = "from traceback import format_exc\n" + CLIENT.replace("return str(error)", "return format_exc()")
    run = hub.run(code, json.dumps({"it": _column({"dataset": "user/csv"})}), home=tmp_path / "home", HF_TOKEN=token)
    assert "UserError: Dataset user/csv of the Hub" in run.stdout, run.stderr
    assert token not in run.stdout + run.stderr and "cret" not in run.stdout + run.stderr
    assert hub.tokens == ({f"Bearer {token}"} if token.isascii() else set())


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"`datasets` is not installed\. Install it with `pip install 'datasets>=5"):
        list(read_texts(HubColumn(**_column({}))))  # type: ignore[arg-type]
