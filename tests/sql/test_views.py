from pathlib import Path

from latentlens_dag.sql.views import current_files, table_patterns
from latentlens_dag.storage.warehouse import Warehouse


def test_an_index_of_an_old_home_whose_shape_has_only_its_parts_hides_no_table(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    old = warehouse.occurrences("words", 0)
    old.parent.mkdir(parents=True)
    for part in (0, 1):
        warehouse.occurrences("words", part).touch()
    warehouse.shape("index", "words").write_text('{"parts": 1}')
    assert current_files(tmp_path, table_patterns()["occurrences"]) == [old]
