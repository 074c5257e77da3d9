"""Code that comes with a model: without the user's word nothing of it is run, and with it only what is pinned."""

import json
import shutil
import sys
from pathlib import Path
from threading import Thread

import pytest
import torch
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.errors import UserError
from latentlens_dag.models.fingerprints import fingerprint
from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.loading import load_language_model, load_tokenizer, load_vlm
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.testing import tiny_llava
from tests.helpers.hub_server import COMMIT, HubServer, Repo
from tests.helpers.remote_vlm import remote_vlm
from tests.models.test_hub_models import UNWANTED, files_of

OTHER = "f" * 40


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code_was_run"


@pytest.mark.parametrize("load", [load_vlm, load_language_model, load_tokenizer, inspect_model])
def test_without_the_users_word_a_model_is_refused_with_what_it_would_run_and_nothing_is_run(
    tmp_path: Path, marker: Path, load: object
) -> None:
    folder = remote_vlm(tmp_path / "model", marker)
    told = (
        r"model cannot be read without code that comes with it: configuration_own\.py \(AutoConfig\), "
        r"modeling_own\.py \(AutoModelForImageTextToText\)\. .*your rights.*`trust_remote_code: true`.*"
        r"`--trust-remote-code`"
    )
    with pytest.raises(UserError, match=told):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize("named", [str, Path, lambda folder: ModelRef(path=folder)])
@pytest.mark.parametrize("load", [load_vlm, load_language_model, load_tokenizer, inspect_model])
def test_an_untrusted_request_after_a_trusted_load_of_the_same_folder_is_refused(
    tmp_path: Path, marker: Path, load: object, named: object
) -> None:
    folder = remote_vlm(tmp_path / "model", marker)
    load(named(folder), trust_remote_code=True)
    for again in (load_vlm, load_language_model, load_tokenizer, inspect_model):
        with pytest.raises(UserError, match="cannot be read without code"):
            again(named(folder))


_REGISTERS = """
from transformers import AutoConfig, AutoModelForImageTextToText


class OwnVlm(OwnVlm):
    def __init__(self, config):
        AutoConfig.for_model("own_vlm")  # fails where the class is not registered
        super().__init__(config)


AutoConfig.register("own_vlm", OwnConfig)
AutoModelForImageTextToText.register(OwnConfig, OwnVlm)
"""


@pytest.fixture
def registering(tmp_path: Path, marker: Path) -> Path:
    folder = remote_vlm(tmp_path / "model", marker)
    (folder / "modeling_own.py").write_text((folder / "modeling_own.py").read_text() + _REGISTERS)
    return folder


def test_classes_that_trusted_code_registered_answer_no_untrusted_request(registering: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    plain = Path(shutil.copytree(registering, tmp_path / "plain"))  # of the same family, by its name alone
    _change(plain, lambda config: config.pop("auto_map"))
    load_vlm(registering, device="cpu", trust_remote_code=True)
    for load in (load_vlm, load_language_model):
        with pytest.raises(UserError, match=r"plain cannot be loaded as a .* model: .* model type `own_vlm`"):
            load(plain, device="cpu")
        with pytest.raises(UserError, match="cannot be read without code"):
            load(registering, device="cpu")
    with pytest.raises(ValueError, match="own_vlm"):
        AutoConfig.from_pretrained(plain)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoConfig.from_pretrained(registering, trust_remote_code=False)


def test_code_that_registers_its_classes_is_loaded_a_second_time_and_does_not_mix_with_other_code(
    registering: Path, tmp_path: Path, marker: Path
) -> None:
    other = remote_vlm(tmp_path / "other", marker)
    with (other / "modeling_own.py").open("a") as file:
        file.write("\n\nOF = 'other'\n")
    for folder, of in ((registering, None), (other, "other"), (registering, None)):
        model = load_vlm(folder, device="cpu", trust_remote_code=True).model
        assert getattr(sys.modules[type(model).__module__], "OF", None) == of


def test_a_tokenizer_that_trusted_code_registered_is_found_by_no_untrusted_request(tmp_path: Path) -> None:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    folder = tiny_llava(tmp_path / "model")
    (folder / "tokenization_own.py").write_text(_TOKENIZER)
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}}
    _change(folder, lambda config: config.update(own), "tokenizer_config.json")
    for _ in range(2):
        assert type(load_tokenizer(folder, trust_remote_code=True)).__name__ == "OwnTokenizer"
        assert tokenizer_class_from_name("OwnTokenizer") is None
    assert type(load_tokenizer(tiny_llava(tmp_path / "plain"))).__name__ != "OwnTokenizer"


_TOKENIZER = """
from transformers import AutoTokenizer, LlavaConfig, PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    pass

AutoTokenizer.register(LlavaConfig, fast_tokenizer_class=OwnTokenizer, exist_ok=True)
"""


def test_an_untrusted_load_waits_for_a_trusted_one_in_another_thread(tmp_path: Path) -> None:
    from latentlens_dag.models.remote_code import loading

    order: list[str] = []

    def untrusted() -> None:
        with loading(tmp_path, "other", "language model", trusted=False):
            order.append("untrusted")

    with loading(tmp_path, "own", "language model", trusted=True):
        thread = Thread(target=untrusted)
        thread.start()
        thread.join(0.2)
        order.append("trusted")
    thread.join()
    assert order == ["trusted", "untrusted"]


@pytest.mark.parametrize("role", ["AutoModelForImageTextToText", "AutoModelForCausalLM"])
def test_with_the_users_word_a_model_is_read_as_its_weights_are(tmp_path: Path, marker: Path, role: str) -> None:
    vlm = load_vlm(remote_vlm(tmp_path / "model", marker, role), device="cpu", trust_remote_code=True)
    assert type(vlm.model).__name__ == "OwnVlm"
    assert set(marker.read_text().split()) == {"configuration_own", "modeling_own"}
    same = load_vlm(tiny_llava(tmp_path / "llava"), device="cpu")
    assert fingerprint(vlm.language_model) == fingerprint(same.language_model)
    assert torch.equal(vlm.language_model.unembedding.weight, same.language_model.unembedding.weight)
    image = _image()
    mine, theirs = (one.visual_states([image], [0, 2]) for one in (vlm, same))
    assert all(torch.equal(mine.states[layer], theirs.states[layer]) for layer in (0, 2))
    assert mine.tokens["view"].to_list() == ["unmapped"] * 9


def test_a_folder_that_a_defs_yaml_trusts_is_loaded_without_another_word(tmp_path: Path, marker: Path) -> None:
    folder = ModelRef(path=remote_vlm(tmp_path / "model", marker), trust_remote_code=True)
    found = load_language_model(folder, device="cpu")
    assert fingerprint(found) == fingerprint(load_vlm(folder, device="cpu").language_model)
    assert len(load_tokenizer(folder)) == len(found.tokenizer)


def test_the_text_half_of_a_vlm_is_not_taken_for_it(tmp_path: Path, marker: Path) -> None:
    folder = remote_vlm(tmp_path / "model", marker, "AutoModelForCausalLM", "modeling_own.OwnText")
    with pytest.raises(
        UserError, match=r"OwnText leaves \d+ weights \(model\.multi_modal_projector.*unread.*text half"
    ):
        load_vlm(folder, device="cpu", trust_remote_code=True)


def test_weights_that_would_be_random_are_refused(tmp_path: Path, marker: Path) -> None:
    folder = remote_vlm(tmp_path / "model", marker)
    more = "\n\nclass OwnVlm(OwnVlm):\n    def __init__(self, config):\n        super().__init__(config)\n"
    more += "        self.more = nn.Linear(2, 2)\n"
    (folder / "modeling_own.py").write_text((folder / "modeling_own.py").read_text() + more)
    with pytest.raises(
        UserError,
        match=r"2 weights \(more\.bias, more\.weight\) of its class OwnVlm .* would be random\. The model's own code",
    ):
        load_vlm(folder, device="cpu", trust_remote_code=True)


def test_a_class_for_images_goes_before_one_for_text_and_no_text_class_for_a_known_family(
    tmp_path: Path, marker: Path
) -> None:
    folder = remote_vlm(tmp_path / "both", marker)
    _change(folder, lambda config: config["auto_map"].update(AutoModelForCausalLM="modeling_own.OwnText"))
    assert type(load_vlm(folder, device="cpu", trust_remote_code=True).model).__name__ == "OwnVlm"
    known = remote_vlm(tmp_path / "known", marker, "AutoModelForCausalLM", "modeling_own.OwnText")
    _change(known, lambda config: config.update(model_type="llava"))
    _change(known, lambda config: config["auto_map"].pop("AutoConfig"))
    found = load_vlm(known, device="cpu", trust_remote_code=True).model
    assert type(found).__name__ == "LlavaForConditionalGeneration"


@pytest.mark.parametrize("trusted", [True, False])
def test_code_of_another_repository_is_never_run(tmp_path: Path, marker: Path, trusted: bool) -> None:
    folder = remote_vlm(tmp_path / "model", marker, model="user/elsewhere--modeling_own.OwnVlm")
    told = (
        r"takes its class modeling_own\.OwnVlm from another repository of the Hub, user/elsewhere, which its own commit"
    )
    with pytest.raises(UserError, match=told):
        load_vlm(folder, device="cpu", trust_remote_code=trusted)
    assert not marker.exists()


def test_code_of_another_repository_is_found_in_a_tokenizers_list_and_in_a_config_within_a_config(
    tmp_path: Path, marker: Path
) -> None:
    folder = remote_vlm(tmp_path / "model", marker)
    shutil.copytree(folder, tmp_path / "nested")
    _change(folder, lambda c: c.update(auto_map=[None, "user/other--tok.Fast"]), "tokenizer_config.json")
    _change(tmp_path / "nested", lambda c: c["text_config"].update(auto_map={"AutoModel": "user/other--m.Own"}))
    for one in (folder, tmp_path / "nested"):
        with pytest.raises(UserError, match=r"from another repository of the Hub, user/other"):
            load_vlm(one, device="cpu", trust_remote_code=True)
    assert not marker.exists()


def test_code_that_fails_or_lacks_a_package_is_told_as_the_models(tmp_path: Path, marker: Path) -> None:
    folder = remote_vlm(tmp_path / "model", marker)
    text = (folder / "modeling_own.py").read_text()
    for line, told in (
        ("(None).absent", r"own code failed \(AttributeError: .*transformers than 5\."),
        ("import nonsuch", "nonsuch"),
    ):
        (folder / "modeling_own.py").write_text(f"{text}\n{line}\n")
        for load in (load_vlm, load_language_model):
            with pytest.raises(UserError, match=rf"cannot be loaded as a .*{told}"):
                load(folder, device="cpu", trust_remote_code=True)


def test_the_code_of_two_folders_of_one_name_does_not_mix(tmp_path: Path, marker: Path) -> None:
    for name in ("one", "two"):
        folder = remote_vlm(tmp_path / name / "model", marker)
        for file in folder.glob("*.py"):
            file.write_text(f"{file.read_text()}\n\nOF = {name!r}\n")
    for name in ("one", "two", "one"):
        model = load_vlm(tmp_path / name / "model", device="cpu", trust_remote_code=True).model
        modules = [sys.modules[type(part).__module__] for part in (model, model.config)]
        assert [module.OF for module in modules] == [name, name]


def test_inspect_model_allows_it_by_its_option_and_says_so_in_its_yaml(tmp_path: Path, marker: Path) -> None:
    folder = remote_vlm(tmp_path / "model", marker)
    refused = CliRunner().invoke(cli, ["inspect-model", str(folder)])
    assert isinstance(refused.exception, UserError) and "--trust-remote-code" in str(refused.exception)
    assert not marker.exists()
    run = CliRunner().invoke(cli, ["inspect-model", str(folder), "--trust-remote-code"])
    assert run.exit_code == 0, run.output
    assert "own_vlm (OwnVlm)" in run.output and "unmapped 9" in run.output
    assert run.output.count(f'{{path: "{folder}", trust_remote_code: true}}') == 2


CLIENT = """
import json
from latentlens_dag.errors import UserError
from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.loading import load_language_model, load_vlm

def outcome(load, name, revision, trusted):
    try:
        found = {"vlm": load_vlm, "text": load_language_model, "inspect": inspect_model}[load](
            name, revision=revision, trust_remote_code=trusted
        )
        if load == "inspect":
            return found.defs
        module = sys.modules[type(getattr(found, "model", found.decoder if load == "text" else None)).__module__]
        return [found.name, getattr(module, "OF", None)]
    except UserError as error:
        return str(error)

print(json.dumps([outcome(*case) for case in json.loads(sys.argv[1])]))
"""


@pytest.fixture
def hub(tmp_path: Path, marker: Path) -> HubServer:
    files = files_of(remote_vlm(tmp_path / "of_hub", marker))
    hub = HubServer()
    for name, commit in (("one", COMMIT), ("two", OTHER)):
        code = {path: files[path] + f"\n\nOF = {name!r}\n".encode() for path in files if path.endswith(".py")}
        hub.add(Repo(f"{name}/own", {**UNWANTED, **files, **code}, "model", commit))
    return hub


def _outcomes(hub: HubServer, home: Path, *cases: list[object]) -> list[list | str]:
    run = hub.run(CLIENT, json.dumps(cases), home=home)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_code_of_the_hub_is_downloaded_only_with_the_users_word_and_of_a_commit(
    hub: HubServer, tmp_path: Path, marker: Path
) -> None:
    kinds, home = ("vlm", "text", "inspect"), tmp_path / "home"
    moving = [["vlm", "one/own", "main", True], ["text", "one/own", None, True], ["inspect", "one/own", "main", True]]
    told = _outcomes(hub, home, *([kind, "one/own", COMMIT, False] for kind in kinds), *moving)
    for refused in told[:3]:
        assert "one/own@0123" in refused and "modeling_own.py (AutoModelForImageTextToText)" in refused
    for branch in told[3:]:
        assert "`trust_remote_code` with one/own at main: " in branch and "full commit" in branch
    assert not hub.asked(r"resolve/.*\.(py|safetensors)$") and not marker.exists()
    vlm, text, defs = _outcomes(hub, home, *([kind, "one/own", COMMIT, True] for kind in kinds))
    assert vlm == [f"one/own@{COMMIT}", "one"] and text[0] == vlm[0] and marker.exists()
    assert f"{{hub: one/own, revision: {COMMIT}, trust_remote_code: true}}" in defs
    assert not hub.asked(r"resolve/.*\.(bin|pt)$")


def test_the_code_of_two_commits_does_not_mix(hub: HubServer, tmp_path: Path) -> None:
    cases = [["vlm", "one/own", COMMIT, True], ["vlm", "two/own", OTHER, True], ["vlm", "one/own", COMMIT, True]]
    assert [of for _, of in _outcomes(hub, tmp_path / "home", *cases)] == ["one", "two", "one"]


def _change(folder: Path, change: object, name: str = "config.json") -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def _image() -> object:
    from latentlens_dag.models.self_checks import noise_image

    return noise_image(70, 50)
