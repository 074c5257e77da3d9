"""Models read from a Hub of our own by the real client, in processes that reach nothing else."""

import json
import re
from pathlib import Path

import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.models.hub_models import local_model
from latentlens_dag.models.loading import load_language_model, load_vlm
from latentlens_dag.models.model_ref import ModelRef, model_ref
from latentlens_dag.testing import tiny_llava
from tests.helpers.hub_server import COMMIT, HubServer, Repo

OTHER = "f" * 40
UNWANTED = {
    "pytorch_model.bin": b"pickled",
    "weights.pt": b"pickled",
    "modeling_own.py": b"raise SystemExit('code was run')",
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": b"no",
    "consolidated.safetensors": b"no",
    "original/model.safetensors": b"no",
    "picture.png": b"no",
}
MISTAKES = {
    "no such model": (["user/nobody"], r"no model user/nobody on the Hub, nor a folder of this name here"),
    "no such commit": (["user/vlm", OTHER], rf"user/vlm of the Hub has no revision {OTHER}"),
    "no such branch": (["user/vlm", "mian"], r"user/vlm of the Hub has no revision mian"),
    "gated": (["user/gated", COMMIT], r"user/gated of the Hub is gated: ask for access .*`hf auth login`"),
    "forbidden": (["user/forbidden", COMMIT], r"user/forbidden of .* status 403\. .*HF_TOKEN"),
    "only pickled weights": (["user/pickled", COMMIT], r"user/pickled of the Hub has no model\.safetensors at 0123"),
    "only an adapter": (["user/adapter", COMMIT], r"user/adapter of the Hub has no model\.safetensors"),
    "no config": (["user/bare", COMMIT], r"user/bare of the Hub is not a model .* no config\.json"),
    "not a name": (["user/-.-"], r"user/-\.- is no model: there is no such folder.*user/name"),
    "code of its own": (
        ["user/code", COMMIT],
        r"user/code@0123\w+ cannot be read without code that comes with it: modeling_own\.py",
    ),
}
CLIENT = """
import json, time
time.sleep = lambda seconds: None  # between retries
from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import load_language_model, load_vlm
from latentlens_dag.models.fingerprints import fingerprint

def outcome(arguments):
    try:
        vlm = load_vlm(*arguments, device="cpu")
        text = load_language_model(*arguments, device="cpu")
        same = fingerprint(text) == fingerprint(vlm.language_model)
        return [vlm.name, vlm.language_model.name, text.name, same, fingerprint(text)]
    except UserError as error:
        return str(error)

print(json.dumps({name: outcome(given) for name, given in json.loads(sys.argv[1]).items()}))
"""


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder as the files of a repository."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def vlm_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of(tiny_llava(tmp_path_factory.mktemp("vlm")))


def _hub(files: dict[str, bytes]) -> HubServer:
    hub = HubServer(failing={r"user/forbidden": 403})
    config = json.loads(files["config.json"])
    code = {**config, "model_type": "own", "auto_map": {"AutoModelForImageTextToText": "modeling_own.Own"}}
    repos = {
        "vlm": {**files, **UNWANTED},
        "gated": files,
        "forbidden": files,
        "pickled": {"config.json": files["config.json"], "pytorch_model.bin": b"pickled"},
        "adapter": {"config.json": files["config.json"], "adapter_model.safetensors": b"no"},
        "bare": {"model.safetensors": b"no"},
        "code": {**files, **UNWANTED, "config.json": json.dumps(code).encode()},
    }
    for name, content in repos.items():
        hub.add(Repo(f"user/{name}", content, "model", gated=name == "gated"))
    return hub


def _outcomes(hub: HubServer, home: Path, cases: dict[str, list[str]], **environment: str) -> dict[str, list | str]:
    run = hub.run(CLIENT, json.dumps(cases), home=home, **environment)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def hub(vlm_files: dict[str, bytes]) -> HubServer:
    return _hub(vlm_files)


@pytest.fixture(scope="module")
def outcomes(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list | str]:
    """What one client makes of all cases."""
    cases = {"branch": ["user/vlm"], "commit": ["user/vlm", COMMIT]}
    cases |= {name: arguments for name, (arguments, _) in MISTAKES.items()}
    return _outcomes(hub, tmp_path_factory.mktemp("outcomes") / "home", cases)


@pytest.mark.parametrize("how", ["branch", "commit"])
def test_a_model_of_the_hub_is_that_of_its_files_and_its_name_tells_the_commit(
    outcomes: dict[str, list | str], tmp_path: Path, how: str
) -> None:
    from latentlens_dag.models.fingerprints import fingerprint

    name = f"user/vlm@{COMMIT}"
    here = fingerprint(load_vlm(tiny_llava(tmp_path), device="cpu").language_model)
    assert outcomes[how] == [name, name, name, True, here]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_model_that_cannot_be_loaded_is_told(outcomes: dict[str, list | str], name: str) -> None:
    assert isinstance(outcomes[name], str)
    assert re.search(MISTAKES[name][1], str(outcomes[name])), outcomes[name]


def test_neither_pickled_weights_nor_code_nor_copies_of_the_weights_are_downloaded(
    outcomes: dict[str, list | str], hub: HubServer
) -> None:
    assert hub.asked(r"user/vlm/resolve/.*/model\.safetensors") > 0
    for path in UNWANTED:
        assert hub.asked(rf"/resolve/\w+/{re.escape(path)}$") == 0, path


def test_what_was_downloaded_is_loaded_without_the_hub_and_what_was_not_is_told(
    vlm_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub, home = _hub(vlm_files), tmp_path / "home"
    cases = {"it": ["user/vlm", COMMIT]}
    first = _outcomes(hub, home, cases)
    hub.down = True
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        now = _outcomes(hub, home, {**cases, "other": ["user/gated", COMMIT]}, **environment)
        assert now["it"] == first["it"] and isinstance(now["it"], list)
        assert re.search(r"user/gated of .* no answer \(\w+\)\. Is there a network, does HF_HUB_OFF", str(now["other"]))


def test_a_download_that_broke_off_is_not_taken_for_the_model(vlm_files: dict[str, bytes], tmp_path: Path) -> None:
    hub, home = _hub(vlm_files), tmp_path / "home"
    hub.failing = {r"processor_config\.json": 500}
    cases = {"it": ["user/vlm", COMMIT]}
    assert "status 500" in str(_outcomes(hub, home, cases)["it"])
    hub.failing, hub.down = {}, True
    assert "no answer" in str(_outcomes(hub, home, cases)["it"])
    hub.down = False
    assert isinstance(_outcomes(hub, home, cases)["it"], list)


def test_a_dtype_is_chosen_by_the_weights_on_the_hub_without_downloading_them(
    vlm_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub, config = HubServer(), {**json.loads(vlm_files["config.json"]), "dtype": "bfloat16"}
    index = {"weight_map": {"one": "model-1.safetensors", "two": "model-2.safetensors"}}
    one = vlm_files["model.safetensors"]
    weights, size = {"model-1.safetensors": one, "model-2.safetensors": one + b"x"}, 2 * len(one) + 1
    files = {**UNWANTED, **weights, "config.json": json.dumps(config).encode()}
    hub.add(Repo("user/parts", {**files, "model.safetensors.index.json": json.dumps(index).encode()}, "model"))
    code = """
from latentlens_dag.models import dtypes
from latentlens_dag.models.hub_models import local_model, weight_bytes
from latentlens_dag.models.model_ref import ModelRef
dtypes.has_bfloat16 = lambda device: True
model, sizes = ModelRef(None, *sys.argv[1:3]), []
for dtypes._LARGE_BYTES in (int(sys.argv[3]), int(sys.argv[3]) + 1):
    sizes.append(dtypes.chosen_dtype(model, "cpu"))
print(*sizes)
local_model(model)
print(weight_bytes(model))
"""
    run = hub.run(code, "user/parts", COMMIT, str(size), home=tmp_path / "home")
    assert run.stdout.split() == ["bfloat16", "float32", str(size)], run.stderr
    requests = [request for request in hub.requests if "safetensors" in request and "index" not in request]
    assert sum(request.startswith("GET") for request in requests) == 2  # of `local_model`


@pytest.mark.parametrize("token", ["hf_secret", "hf_sécret"])
def test_a_token_is_sent_to_the_hub_and_told_to_nobody(vlm_files: dict[str, bytes], tmp_path: Path, token: str) -> None:
    hub = _hub(vlm_files)
    code = "from traceback import format_exc\n" + CLIENT.replace("return str(error)", "return format_exc()")
    cases = {name: [f"user/{name}", COMMIT] for name in ("forbidden", "gated", "nobody")}
    run = hub.run(code, json.dumps(cases), home=tmp_path / "home", HF_TOKEN=token)
    assert run.stdout.count("UserError: ") == 3, run.stdout + run.stderr
    assert token not in run.stdout + run.stderr and "cret" not in run.stdout + run.stderr
    assert hub.tokens == ({f"Bearer {token}"} if token.isascii() else set())


def test_a_path_of_two_parts_that_is_not_there_is_not_only_blamed_on_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"There is no folder models/absent here: correct the path.*of the Hub cannot"):
        load_language_model("models/absent")
    with pytest.raises(UserError, match=r"^absent/absent of the Hub cannot"):
        load_language_model("absent/absent")


def test_what_is_neither_a_folder_nor_a_name_is_told(tmp_path: Path) -> None:
    for source in (tmp_path / "absent", str(tmp_path / "absent"), "gpt2", "a/b/c", Path("user/name")):
        with pytest.raises(UserError, match=r"is no model: there is no such folder"):
            model_ref(source)
    with pytest.raises(UserError, match=r"is no model: there is no such folder"):
        local_model(ModelRef(path=tmp_path / "absent"))
