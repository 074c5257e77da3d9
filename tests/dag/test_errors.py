"""Mistakes of the user's: one clear message, exit code 2, no traceback, nothing that is built is harmed."""

import errno
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag.testing import tiny_llava
from tests.helpers.command_line import run_command

Copy = Callable[[Path], Path]


def _warehouse(project: Path) -> dict[str, bytes]:
    root = project / ".latentlens" / "warehouse"
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file() and "observed" not in p.parts}


def _edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(here: Path) -> None:
        text = (here / "defs.yaml").read_text()
        assert old in text
        (here / "defs.yaml").write_text(text.replace(old, new))

    return edit


def _another_model(here: Path) -> None:
    tiny_llava(here / "other", blocks=4)
    _edited("vlm: {path: model}", "vlm: {path: other}")(here)


def _other_weights(here: Path) -> None:
    tiny_llava(here / "other", seed=1)
    _edited("vlm: {path: model}", "vlm: {path: other}")(here)


def _second_study(here: Path) -> None:
    (here.parent / "again").mkdir()
    study = (here / "defs.yaml").read_text().split("---")[-1].replace("path: model", "path: ../tiny/model")
    (here.parent / "again" / "defs.yaml").write_text(study)


MISTAKES = {
    "unknown key": (
        _edited("top_k: 3", "top_kk: 3"),
        r"`top_kk` in \S*defs\.yaml:\d+ is no field of Study\. There are: .*\. Did you mean `top_k`\?$",
    ),
    "not a number": (
        _edited("top_k: 3", "top_k: many"),
        r"`top_k: many` of Study tiny in \S*defs\.yaml: .*valid integer",
    ),
    "a boolean of YAML for a name": (
        _edited("{name: text,", "{name: off,"),
        r"`name: false` of \S*defs\.yaml:\d+: .*takes a text\. YAML reads yes, no, on and off as booleans .* quotes",
    ),
    "no such choice": (
        _edited("contexts_per_token: 5", "contexts_per_token: 5, sampling: random"),
        r"`sampling: random` of Index words in \S*defs\.yaml: .*'smallest_hash' or 'first'",
    ),
    "a number for a choice": (
        _edited("contexts_per_token: 5", "contexts_per_token: 5, dedup: 3"),
        r"`dedup: 3` of \S*defs\.yaml:\d+: .*'prefix' or 'sentence'",
    ),
    "top_k of zero": (_edited("top_k: 3", "top_k: 0"), r"`top_k: 0` of Study tiny .*at least 1"),
    "top_k over the vocabulary": (_edited("top_k: 3", "top_k: 999999"), r"`top_k: 999999` of Study tiny .*at most \d+"),
    "no such candidates": (
        _edited("top_k: 3", "candidates: some"),
        r"`candidates: some` of Study tiny in \S*defs\.yaml: .*'all' or 'shared'",
    ),
    "no such candidates in a list": (
        _edited("top_k: 3", "candidates: [all, some]"),
        r"`candidates: \['all', 'some'\]` of \S*defs\.yaml:\d+: .*'all' or 'shared'",
    ),
    "candidates twice": (
        _edited("top_k: 3", "candidates: [shared, shared]"),
        r"`candidates: \['shared', 'shared'\]` of Study tiny .*must name `all`, `shared` or both, each once",
    ),
    "no candidates": (
        _edited("top_k: 3", "candidates: []"),
        r"`candidates: \[\]` of Study tiny .*must name `all`, `shared` or both, each once",
    ),
    "candidates of no lens on the vocabulary": (
        _edited("top_k: 3", "candidates: shared\n  lenses: [latentlens]"),
        r"`candidates: shared` of Study tiny .*`lenses: \['latentlens'\]`.*add one of logitlens, embeddinglens",
    ),
    "a lens with other candidates by its name": (
        _edited("top_k: 3", "lenses: [logitlens_shared]"),
        r"`lenses.*logitlens_shared.*'latentlens', 'logitlens' or 'embeddinglens'",
    ),
    "no such component": (
        _edited("components.Study", "components.Studdy"),
        r"`type: latentlens_dag\.dag\.components\.Studdy` in \S*defs\.yaml is no component\. There are: "
        r"latentlens_dag\.dag\.components\.Corpus, .*\.Study, latentlens_dag\.dag\.components\.Release\.",
    ),
    "no such module": (
        _edited("latentlens_dag.dag.components.Study", "latent_lens.Study"),
        r"`type: latent_lens\.Study` in \S*defs\.yaml is no component\. There are: latentlens_dag",
    ),
    "no YAML": (_edited("attributes: {name: text,", "attributes: {name: text"), r"defs\.yaml"),
    "missing corpus": (
        _edited("corpus.txt", "corpse.txt"),
        r"`source.lines` of Corpus text .*corpse\.txt does not exist",
    ),
    "missing folder": (_edited("folder: pictures", "folder: photos"), r"`source.folder` of ImageSet pictures"),
    "missing regions": (_edited("regions.parquet", "region.parquet"), r"`regions.masks` of ImageSet pictures"),
    "missing model": (
        _edited("vlm: {path: model}", "vlm: {path: modell}"),
        r"`vlm.path` of Study tiny .*modell does not",
    ),
    "unknown index": (_edited("index: words", "index: wordz"), r"`index: wordz` of Study tiny .* There are: words"),
    "layer the model lacks": (
        _edited("layers: [0, 1, 2]", "layers: [0, 9]"),
        r"Layer 9 .* model has 3 blocks.*Study tiny",
    ),
    "contextual layer the model lacks": (_edited("layers: [1, 2], c", "layers: [1, 3], c"), r"Layer 3 .*Index words"),
    "zero shards": (_edited("shards: 2", "shards: 0"), r"`shards: 0` of Corpus text .*from 1 to 96"),
    "too many batches": (_edited("batches: 2", "batches: 100"), r"`batches: 100` of ImageSet pictures .*from 1 to 96"),
    "two studies of one name": (_second_study, r"2 Study components are named 'tiny'"),
    "a name that is none": (_edited("name: tiny", "name: Tiny Study"), r"`name: Tiny Study` of Study .* is no name"),
    "index of another model": (_another_model, r"through Index words of another model: 4 blocks.*3 blocks"),
    "index of other weights": (_other_weights, r"Study tiny cannot be read through Index words: .*other weights"),
    "no such judge": (
        _edited("judge: {regions: {}}", "judge: {chat: {}}"),
        r"`judge\.chat` in \S*defs\.yaml:\d+ is no field of Judge\. There are: regions\.",
    ),
    "no such part of the prompt": (
        _edited("top_k: 3", "prompt: {befor: Look}"),
        r"Error: `prompt\.befor` in \S*defs\.yaml:\d+ is no field of PromptParts\. .* Did you mean `before`\?$",
    ),
    "the image's token in the prompt": (
        _edited("top_k: 3", "prompt: {before: Look at <image>}"),
        r"The prompt 'Look at <image>' \(`before`\) contains <image>, a token of \S+ for images",
    ),
    "unreadable image": (
        lambda here: (here / "pictures" / "picture_1.png").write_bytes(b"nothing"),
        r"picture_1\.png cannot be read as an image",
    ),
    "empty corpus": (lambda here: (here / "corpus.txt").write_text("\n\n"), r"corpus\.txt is empty"),
    "not UTF-8": (lambda here: (here / "corpus.txt").write_bytes(b"caf\xe9\n"), r"line 1: byte 0xe9 .* is not UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_with_exit_code_2_and_harms_nothing(
    built_project: Path, copy_of: Copy, mistake: str
) -> None:
    make, message = MISTAKES[mistake]
    project = copy_of(built_project)
    before = _warehouse(project)
    make(project / "assets" / "tiny")
    run = run_command(project, "build")
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert re.search(message, run.stderr.strip().replace("\n", " ")), run.stderr
    after = _warehouse(project)
    changed = {name for name, content in before.items() if after.get(name) != content}
    # Images are listed before they are read; nobody but the steps reads the list.
    assert not {name for name in changed if "/images/pictures/names" not in name}


def test_a_full_disk_ends_a_build_with_the_way_out_and_what_was_built_stays(
    built_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentlens_dag.cli import main
    from latentlens_dag.dag.assets import study as study_assets

    def no_room(_: object, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    project = copy_of(built_project)
    before = _warehouse(project)
    _edited("top_k: 3", "top_k: 2")(project / "assets" / "tiny")
    monkeypatch.setattr(study_assets, "write_parquet", lambda table, path, *_: no_room(table, path))
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["latentlens-dag", "build"])
    with pytest.raises(SystemExit) as left:
        main.main()
    told = capsys.readouterr().err
    assert left.value.code == 1 and "Traceback" not in told
    assert "A disk is full. Free are now " in told and str(project) in told and "TMPDIR" in told
    assert "[00] failed: [Errno 28] No space left on device" in told  # which step, and where
    assert _warehouse(project) == before


def test_more_answers_than_the_index_has_rows_are_refused(built_project: Path, copy_of: Copy) -> None:
    """The other lenses have enough candidates, and are built."""
    project = copy_of(built_project)
    _edited("top_k: 3", "top_k: 250")(project / "assets" / "tiny")
    run = run_command(project, "build")
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "`top_k: 250` of Study tiny asks for more answers than its index has rows" in run.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["build", "nobody"], "tiny"),
        (["plan", "nobody"], "tiny"),
        (["build", "--select", "study/nobody"], "study/tiny"),
        (["bild"], "No such command"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_those_that_do(
    built_project: Path, arguments: list[str], answer: str
) -> None:
    run = run_command(built_project, *arguments)
    assert run.returncode == 2
    assert answer in run.stderr
    assert "Traceback" not in run.stderr


def test_outside_a_project_the_message_says_where_to_go(tmp_path: Path) -> None:
    run = run_command(tmp_path, "build")
    assert run.returncode == 2
    assert "No workspace.yaml here or above" in run.stderr


def test_facts_come_as_json_on_request(built_project: Path) -> None:
    status = json.loads(run_command(built_project, "status", "--json").stdout)
    assert {"step": "study/tiny/visual", "parts": 8, "built": 8, "missing": 0, "stale": 0} in status["steps"]
    assert json.loads(run_command(built_project, "plan", "--json").stdout) == {
        "parts": [],
        "steps": [],
        "left_out": [],
        "building": None,
    }


def test_another_home_is_another_history(built_project: Path, tmp_path: Path) -> None:
    status = json.loads(run_command(built_project, "status", "--json", "--home", str(tmp_path / "home")).stdout)
    assert sum(step["built"] for step in status["steps"]) == 0
