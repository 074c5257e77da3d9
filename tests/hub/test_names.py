"""Names on the Hub."""

import pytest

from latentlens_dag.hub.names import REPO_ID, parse_release_name


@pytest.mark.parametrize(("name", "valid"), [("user/name", True), ("u/Qwen2.5-VL_7B", True), ("name", False)])
def test_a_repository_is_user_and_name(name: str, valid: bool) -> None:
    assert (REPO_ID.fullmatch(name) is not None) == valid


@pytest.mark.parametrize("name", ["", "/", "../name", "user/../name", "usér/name", "u/n/x", "u/" + "n" * 97])
def test_what_could_be_a_path_or_is_too_long_is_no_repository(name: str) -> None:
    assert REPO_ID.fullmatch(name) is None and parse_release_name(name) is None


def test_a_release_is_a_repository_with_or_without_a_revision() -> None:
    assert parse_release_name("user/name") == ("user/name", None)
    assert parse_release_name("user/name@refs/pr/1") == ("user/name", "refs/pr/1")
    assert parse_release_name("user/name@") is None
