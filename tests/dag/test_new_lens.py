"""What it takes to add a lens: a line of `schema.DECLARED_LENSES` and a module, in a copy of the package."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import latentlens_dag
from latentlens_dag.testing import tiny_project
from tests.helpers.warm_process import WarmProcess

LINE = '        LensInfo("toylens", "ToyLens", "cosine"),\n'
MODULE = '''\
"""ToyLens: the input embeddings that point away from a state."""

from torch.nn.functional import normalize

from latentlens_dag.study.lenses.vocabulary import VocabularyLens


class ToyLens(VocabularyLens):
    name = "toylens"
    needs = "embedding"
    description = "The vocabulary tokens farthest from each visual token at layer {layer}."

    def scorer(self, vocabulary):
        embedding = normalize(vocabulary.embedding.detach().float(), dim=1)
        return lambda states: -normalize(states, dim=1) @ embedding.T
'''
BUILD = "from latentlens_dag.cli.main import main; main()"
READ = """\
import json
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.publish.data_dictionary import COLUMNS

home = ".latentlens"
with open_dataset(home) as data:
    tables = {
        table: data.collect(f"SELECT DISTINCT lens FROM {table} ORDER BY lens")["lens"].to_list()
        for table in ("neighbors", "judgements", "interpretability", "diversity")
    }
    toy = "FROM neighbors WHERE lens = 'toylens'"
    scores = data.collect(f"SELECT count(cosine), count(logit), min(cosine) {toy}").row(0)
print(json.dumps({"tables": tables, "scores": scores, "columns": COLUMNS}))
"""


def _run(package: Path, project: Path, code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONWARNINGS": "ignore"}
    environment.pop("LATENTLENS_HOME", None)
    process = WarmProcess(code, *arguments, folder=project, environment=environment)
    ended, (out, errors) = process.wait(300), process.output()
    assert ended == 0, errors
    return out


def _package_with_a_fourth_lens(folder: Path) -> Path:
    package = Path(latentlens_dag.__file__).parent
    copy = shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", "demo"))
    schema, last = copy / "schema.py", '        LensInfo("embeddinglens", "EmbeddingLens", "cosine"),\n'
    text = schema.read_text()
    assert text.count(last) == 1
    schema.write_text(text.replace(last, last + LINE))
    (copy / "study" / "lenses" / "toylens.py").write_text(MODULE)
    return folder


def test_a_new_lens_is_one_module_and_one_line(tmp_path: Path) -> None:
    package, project = _package_with_a_fourth_lens(tmp_path / "package"), tiny_project(tmp_path / "project")
    every = ["embeddinglens", "latentlens", "logitlens", "toylens"]
    _run(package, project, BUILD, "build", "tiny")
    steps = json.loads(_run(package, project, BUILD, "status", "--json"))["steps"]
    assert {"step": "study/tiny/toylens", "parts": 6, "built": 6, "missing": 0, "stale": 0} in steps
    found: dict[str, Any] = json.loads(_run(package, project, READ))
    assert found["tables"] == dict.fromkeys(found["tables"], every)
    cosines, logits, least = found["scores"]
    assert cosines > 0 and logits == 0 and -1 <= least <= 1
    assert found["columns"]["lens"] == (
        "latentlens, logitlens, logitlens_shared, embeddinglens, embeddinglens_shared, toylens or toylens_shared"
    )
    assert found["columns"]["cosine"].startswith("of LatentLens, EmbeddingLens and ToyLens;")
    picture = project / "sheet.png"
    summary = _run(package, project, BUILD, "summary", "tiny", "--picture", str(picture))
    assert summary.count("\ntoylens ") == 3 and picture.is_file()  # interpretable, concrete and all measures
