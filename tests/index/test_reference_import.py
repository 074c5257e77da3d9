"""Indexes of the reference library: what is read of them, what is refused, and that nothing of theirs is run."""

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from latentlens_dag import ContextualIndex
from latentlens_dag.cli.main import cli
from latentlens_dag.errors import UserError
from latentlens_dag.index import reference_import
from latentlens_dag.index.reference_import import import_index
from latentlens_dag.models.tokenization import tokenize
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.testing import SENTENCES, tiny_tokenizer
from latentlens_dag.text.words import word_span

WIDTH = 16


def _metadata(sentences: tuple[str, ...] = SENTENCES) -> list[dict[str, Any]]:
    """Rows as the reference library makes them: from position 2, the beginning-of-sequence token counted."""
    tokenizer = tiny_tokenizer()
    rows = []
    for text, tokens in zip(sentences, tokenize(tokenizer, list(sentences)), strict=True):
        for position in range(2, len(tokens.ids)):
            token = tokens.ids[position]
            row = {"token_str": tokenizer.decode([token]), "token_id": token, "caption": text, "position": position}
            rows.append({**row, "span": word_span(text, *tokens.spans[position])})
    return rows


def _save(folder: Path, layer: int, embeddings: Any, metadata: Any) -> None:
    path = folder / f"layer_{layer}" / "embeddings_cache.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"embeddings": embeddings, "metadata": metadata}, path)


def _random(rows: int, seed: int, width: int = WIDTH) -> torch.Tensor:
    found = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(found, dim=1).half()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{name: value for name, value in row.items() if name != "span"} for row in _metadata()]
    for layer in (2, 10):
        _save(tmp_path / "theirs", layer, _random(len(rows), layer), rows)
    (tmp_path / "theirs" / "metadata.json").write_text(json.dumps({"layers": [2, 10], "hidden_dim": WIDTH}))
    return tmp_path / "theirs"


def test_an_imported_index_answers_what_the_definition_answers(source: Path, tmp_path: Path) -> None:
    found = import_index(str(source), tmp_path / "ours")
    rows = _metadata()
    index = ContextualIndex.open(tmp_path / "ours")
    assert index.layers == found.layers == [2, 10]
    assert index.rows == found.rows == len(rows)
    assert index.width == found.width == WIDTH
    states = np.random.default_rng(0).normal(size=(5, WIDTH))
    answers = index.search(states, k=7).to_polars()
    vectors = np.concatenate([_random(len(rows), layer).double().numpy() for layer in (2, 10)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, query in enumerate(states):
        cosine = vectors @ query / np.linalg.norm(query)
        mine = answers.filter(query=number)
        best = np.argsort(-cosine)[:7]
        assert np.allclose(mine["cosine"], cosine[best], atol=2e-3)  # float16 once more, after normalizing
        for row, place in zip(mine.to_dicts(), best, strict=True):
            theirs = rows[place % len(rows)]
            assert row["contextual_layer"] == (2 if place < len(rows) else 10)
            assert (row["token_str"], row["position"]) == (theirs["token_str"], theirs["position"])
            assert row["sentence"] == theirs["caption"]


def test_vectors_are_of_unit_length_with_the_length_that_was_stored(source: Path, tmp_path: Path) -> None:
    import lance

    rows = [{name: value for name, value in row.items() if name != "span"} for row in _metadata()]
    _save(source, 2, 3 * _random(len(rows), 2).double(), rows)
    import_index(str(source), tmp_path / "ours")
    for layer, length in ((2, 3), (10, 1)):
        table = lance.dataset(str(tmp_path / "ours" / f"layer_{layer:02d}.lance")).to_table()
        vectors = np.array(table["vector"].to_pylist(), np.float32)
        assert table.schema.field("vector").type.value_type == "halffloat"
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
        assert np.allclose(table["norm"].to_numpy(), length, atol=4e-3)
        assert table["key"].to_pylist() == sorted(table["key"].to_pylist())


def test_words_and_their_places_are_those_of_the_tokenizer(source: Path, tmp_path: Path) -> None:
    found = import_index(str(source), tmp_path / "ours")
    expected = {(row["caption"], row["position"]): row["span"] for row in _metadata()}
    rows = pl.read_parquet(tmp_path / "ours" / "occurrences" / "shard_00.parquet")
    texts = dict(pl.read_parquet(tmp_path / "ours" / "sentences.parquet").iter_rows())
    assert found.placed == len(rows) == len(expected)
    for row in rows.to_dicts():
        text = texts[row["sentence_id"]]
        assert (row["char_start"], row["char_end"]) == expected[text, row["position"]]
        assert row["word"] == text[row["char_start"] : row["char_end"]]


@pytest.mark.parametrize(
    ("text", "tokens", "place"),
    [
        ("a hat", {2: "a"}, ("a", None, None)),  # in `a` or in `hat`: the first match would be a guess
        ("the old hat", {4: " hat"}, ("hat", 8, 11)),
        ("the old hat", {4: "at"}, ("hat", 8, 11)),
        ("the dog and the dog", {3: " dog"}, ("dog", None, None)),  # the word is certain, its place is not
        ("the dog and the dog", {5: " the", 6: " dog"}, ("the", None, None)),
        ("the dog and the dog", {4: " and", 5: " the"}, ("and", 8, 11)),
        ("the dog and the dog", {4: "and", 5: "the"}, ("and", 8, 11)),  # without blanks, as SentencePiece writes them
        ("the dog", {1: " the", 2: " dog"}, ("the", 0, 3)),
        ("the dog", {1: "the", 3: "dog"}, ("the", 0, 3)),
        ("a dog a big dog", {3: " a", 5: " dog"}, ("a", None, None)),  # no neighbors: `a dog` stands elsewhere
        ("the dog", {2: "\ufffd"}, ("\ufffd", None, None)),
        ("the  dog", {2: " "}, ("", None, None)),
        (" the dog ", {2: " dog"}, ("dog", 4, 7)),
        ("aaa", {2: "aa"}, ("aaa", None, None)),
    ],
)
def test_a_place_is_given_only_where_it_is_certain(
    tmp_path: Path, text: str, tokens: dict[int, str], place: tuple[str, int | None, int | None]
) -> None:
    rows = [
        {"token_str": token, "token_id": 5, "caption": text, "position": position} for position, token in tokens.items()
    ]
    _save(tmp_path / "theirs", 1, _random(len(rows), 1), rows)
    import_index(str(tmp_path / "theirs"), tmp_path / "ours")
    found = pl.read_parquet(tmp_path / "ours" / "occurrences" / "shard_00.parquet").sort("position").row(0, named=True)
    assert (found["word"], found["char_start"], found["char_end"]) == place
    assert found["sentence_id"] == text_id(text.strip())


def test_keys_depend_on_sentence_position_and_token_alone(source: Path, tmp_path: Path) -> None:
    import_index(str(source), tmp_path / "first")
    rows = [{name: value for name, value in row.items() if name != "span"} for row in _metadata()]
    for layer in (2, 10):
        mixed = torch.randperm(len(rows), generator=torch.Generator().manual_seed(layer))
        _save(source, layer, _random(len(rows), layer)[mixed], [rows[number] for number in mixed.tolist()])
    import_index(str(source), tmp_path / "second")
    file = Path("occurrences") / "shard_00.parquet"
    assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    states = np.random.default_rng(0).normal(size=(5, WIDTH))
    first, second = (ContextualIndex.open(tmp_path / name).search(states) for name in ("first", "second"))
    assert (first.key == second.key).all()


def test_layers_may_have_different_rows_and_repeated_ones_are_left_out(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "span"} for row in _metadata()]
    vectors = _random(len(rows), 1)
    _save(tmp_path / "theirs", 1, vectors[:10], rows[:10])
    _save(tmp_path / "theirs", 3, torch.cat([vectors[5:25], -vectors[5:8]]), rows[5:25] + rows[5:8])
    found = import_index(str(tmp_path / "theirs"), tmp_path / "ours")
    assert (found.rows, found.repeated) == (25, 3)
    index = ContextualIndex.open(tmp_path / "ours")
    assert index.rows == 25
    answer = index.search(vectors[6:7], k=2).to_polars()
    assert answer["contextual_layer"].to_list() == [1, 3]
    assert answer["key"].n_unique() == 1
    with pytest.raises(UserError, match="rows"):
        index.search(vectors[:1], k=11, merge=False)


class Evil:
    """What a pickle can do to who loads it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_file_that_would_run_code_is_refused_and_not_run(source: Path, tmp_path: Path) -> None:
    _save(source, 10, _random(2, 1), [Evil(tmp_path / "ran")])
    with pytest.raises(UserError) as error:
        import_index(str(source), tmp_path / "ours")
    message = str(error.value)
    assert "layer_10/embeddings_cache.pt was not read" in message
    assert f"it holds {os.mkdir.__module__}.mkdir, which only runs as code" in message
    assert "unless you trust its author" in message
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ours").exists()


def _one(**changes: Any) -> dict[str, Any]:
    row = {"token_str": " dog", "token_id": 5, "caption": "a dog", "position": 2} | changes
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize(
    ("embeddings", "metadata", "words"),
    [
        (torch.ones(2, WIDTH), [_one()], ["2 vectors, but 1 rows"]),
        (torch.ones(1, WIDTH), {"a": 1}, ["1 vectors, but dict rows"]),
        (torch.ones(0, WIDTH), [], ["holds no rows"]),
        (torch.ones(1, WIDTH + 1), [_one()], ["width 17", "width 16"]),
        (torch.ones(WIDTH), [_one()], ["must be a matrix"]),
        (torch.ones(1, WIDTH, dtype=torch.int32), [_one()], ["must be a matrix of floating numbers"]),
        ([[1.0]], [_one()], ["must be a matrix", "list"]),
        (torch.ones(1, WIDTH).to_sparse(), [_one()], ["must be a matrix"]),
        (torch.zeros(1, WIDTH), [_one()], ["row 0", "no direction"]),
        (torch.tensor([[1.0] * WIDTH, [float("nan")] * WIDTH]), [_one(), _one(position=3)], ["row 1", "no direction"]),
        (torch.full((1, WIDTH), float("inf")), [_one()], ["no direction"]),
        (torch.ones(1, WIDTH), [_one(caption=None)], ["row 0", "`caption` is None"]),
        (torch.ones(1, WIDTH), [_one(position="2")], ["`position` is '2'", "int"]),
        (torch.ones(1, WIDTH), [_one(token_id=True)], ["`token_id` is True"]),
        (torch.ones(1, WIDTH), [_one(token_str=None)], ["`token_str`"]),
        (torch.ones(1, WIDTH), [_one(position=-1)], ["row 0", "damaged"]),
        (torch.ones(1, WIDTH), [_one(token_id=2**40)], ["row 0", "damaged"]),
        (torch.ones(1, WIDTH), [_one(caption=" ")], ["row 0", "damaged"]),
        (torch.ones(1, WIDTH), [_one(caption="half \ud83d")], ["surrogate"]),
        (torch.ones(1, WIDTH), ["row"], ["row 0"]),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(
    source: Path, tmp_path: Path, embeddings: Any, metadata: Any, words: list[str]
) -> None:
    _save(source, 10, embeddings, metadata)
    with pytest.raises(UserError) as error:
        import_index(str(source), tmp_path / "ours")
    assert all(word in str(error.value) for word in ["layer_10/embeddings_cache.pt", *words]), error.value
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda file: file.write_bytes(b"junk" * 10),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(pickle.dumps({"embeddings": 1})),
        lambda file: torch.save({"embeddings": torch.ones(1, 2)}, file, _use_new_zipfile_serialization=False),
        lambda file: torch.save([1, 2], file),
        lambda file: torch.save({"vectors": torch.ones(1, 2)}, file),
    ],
    ids=["cut", "junk", "empty", "pickle", "before 1.6", "list", "other names"],
)
def test_a_file_of_something_else_is_refused(source: Path, tmp_path: Path, damage: Any) -> None:
    damage(source / "layer_10" / "embeddings_cache.pt")
    with pytest.raises(UserError, match=r"layer_10/embeddings_cache\.pt is no "):
        import_index(str(source), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def _storage(file: Path) -> tuple[str, int]:
    """The name of the member that holds the vectors, and where its bytes begin in the file."""
    content = file.read_bytes()
    with zipfile.ZipFile(file) as members:
        (name,) = (name for name in members.namelist() if name.endswith("/data/0"))
        return name, content.index(members.read(name))


def test_vectors_that_are_not_those_of_the_files_own_checksum_are_refused(source: Path, tmp_path: Path) -> None:
    file = source / "layer_10" / "embeddings_cache.pt"
    _, start = _storage(file)
    content = bytearray(file.read_bytes())
    content[start : start + 8] = bytes(8)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"layer_10/embeddings_cache\.pt is no .*checksum"):
        import_index(str(source), tmp_path / "ours")


def test_vectors_that_end_before_their_matrix_does_are_refused(source: Path, tmp_path: Path) -> None:
    file = source / "layer_10" / "embeddings_cache.pt"
    cut, _ = _storage(file)
    with zipfile.ZipFile(file) as members:
        parts = {name: members.read(name) for name in members.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as members:
        for name, content in parts.items():
            members.writestr(name, content[:10] if name == cut else content)
    with pytest.raises(UserError, match=r"layer_10/embeddings_cache\.pt"):
        import_index(str(source), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_vectors_with_a_gradient_are_read_as_those_without(source: Path, tmp_path: Path) -> None:
    import_index(str(source), tmp_path / "plain")
    for layer in (2, 10):
        file = source / f"layer_{layer}" / "embeddings_cache.pt"
        found = torch.load(file, weights_only=True)
        _save(source, layer, found["embeddings"].requires_grad_(), found["metadata"])
    import_index(str(source), tmp_path / "ours")
    plain, ours = (ContextualIndex.open(tmp_path / name) for name in ("plain", "ours"))
    states = _random(3, 5).float()
    assert ours.search(states, 3).to_polars().equals(plain.search(states, 3).to_polars())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_refused(source: Path, tmp_path: Path) -> None:
    _save(source, 10, torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), [])
    with pytest.raises(UserError, match=r"layer_10/embeddings_cache\.pt"):
        import_index(str(source), tmp_path / "ours")


def test_a_source_that_is_not_whole_or_not_there_is_told(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    with pytest.raises(UserError, match="neither a folder nor a Hub id"):
        import_index(str(tmp_path / "nothing"), out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="it has no layer_N"):
        import_index(str(tmp_path / "empty"), out)
    with pytest.raises(UserError, match="leave it out"):
        import_index(str(source), out, "main")
    (source / "layer_3").mkdir()
    with pytest.raises(UserError, match="layer_3 has no embeddings_cache"):
        import_index(str(source), out)
    (source / "layer_3").rmdir()
    (source / "metadata.json").write_text('{"layers": [2, 4, 10]}')
    with pytest.raises(UserError, match="lists layer 4"):
        import_index(str(source), out)
    (source / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        import_index(str(source), out)


def test_another_index_is_replaced_and_another_folder_is_not(source: Path, tmp_path: Path) -> None:
    first = import_index(str(source), tmp_path / "ours")
    assert import_index(str(source), tmp_path / "ours") == first
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="Name another --output"):
        import_index(str(source), tmp_path / "letters")


def test_a_hub_id_is_downloaded_and_remembered_with_its_commit(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789012345678901234567890123456789"
    source.rename(tmp_path / commit)
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        reference_import,
        "download",
        lambda repo_id, revision: (asked.append((repo_id, revision)), tmp_path / commit)[1],
    )
    import_index("someone/an-index", tmp_path / "ours", "v1")
    assert asked == [("someone/an-index", "v1")]
    assert ContextualIndex.open(tmp_path / "ours").language_model == "someone/an-index"
    assert json.loads((tmp_path / "ours" / "shape.json").read_text())["source"] == f"someone/an-index@{commit}"


def test_a_repository_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="someone/an-index cannot be had"):  # the tests are offline
        import_index("someone/an-index", tmp_path / "ours")


def test_the_command_tells_what_it_wrote(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import-index", str(source), "--output", str(tmp_path / "ours")]
    cli.main(arguments, standalone_mode=False)
    told = capsys.readouterr()
    assert f"{len(_metadata())} occurrences of width 16 at layers 2, 10" in told.out
    assert told.err.splitlines() == ["1/2 layers", "2/2 layers"]
    cli.main([*arguments, "--json"], standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["layers"] == [2, 10]
    assert facts["placed"] == facts["rows"] == len(_metadata())
