"""Opens are counted as they are made: by threads and processes, in a row, and with other files beside them."""

import os
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.file_opens import counted_opens

NAMES = "abc"
actions = st.lists(st.tuples(st.sampled_from([*NAMES, "other"]), st.booleans()), max_size=60)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name in (*NAMES, "other"):
        (tmp_path / name).write_bytes(b"content")
    return [tmp_path / name for name in NAMES]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions)
def test_every_open_counts_whether_or_not_the_file_is_closed_before_the_next_one(
    files: list[Path], made: list[tuple[str, bool]]
) -> None:
    with counted_opens(files) as opens:
        held = []
        for name, closed in made:
            held.append(os.open(files[0].with_name(name), os.O_RDONLY))
            if closed:
                os.close(held.pop())
        for one in held:
            os.close(one)
        count = Counter(name for name, _ in made)
        assert opens() == {file: count[file.name] for file in files}
        assert set(opens().values()) == {0}


def test_opens_of_other_processes_and_of_native_code_count(files: list[Path]) -> None:
    import pyarrow as pa

    with counted_opens(files) as opens:
        for _ in range(3):
            subprocess.run(["cat", files[0]], check=True, capture_output=True)
        pa.OSFile(str(files[1])).close()
        assert opens() == {files[0]: 3, files[1]: 1, files[2]: 0}


def test_opens_of_threads_side_by_side_count(files: list[Path]) -> None:
    def read(file: Path) -> None:
        for _ in range(300):
            file.read_bytes()

    with counted_opens(files) as opens, ThreadPoolExecutor(3) as pool:
        list(pool.map(read, files))
        assert opens() == dict.fromkeys(files, 300)


def test_more_opens_than_the_queue_holds_are_an_error_and_not_a_wrong_count(files: list[Path]) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with counted_opens(files) as opens:
        for _ in range(limit // 2 + 1):
            os.close(os.open(files[0], os.O_RDONLY))
        with pytest.raises(AssertionError, match="ask more often"):
            opens()
