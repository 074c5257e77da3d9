"""Every family of VLMs, end to end: `make soak`."""

from pathlib import Path

import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.testing import tiny_project
from latentlens_dag.testing.families import BUILDERS
from tests.dag.conftest import build
from tests.helpers.family_studies import check_tables
from tests.helpers.packages import need_packages_of

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_a_study_has_every_token_of_the_model_and_every_answer(family: str, tmp_path: Path) -> None:
    need_packages_of(family)
    check_tables(family, tmp_path)


def test_paligemma_makes_no_index_of_prefixes_for_it_reads_text_in_both_directions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Index words cannot be made with `dedup: prefix`.*Set `dedup: sentence` in"):
        build(tiny_project(tmp_path, family="paligemma"))
