"""Who may write to a home beside whom."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from latentlens_dag.dag import home_lock
from latentlens_dag.dag.home_lock import build_lock
from latentlens_dag.errors import UserError
from latentlens_dag.inputs import texts
from latentlens_dag.storage.home import Home
from tests.dag.conftest import opened

Copy = Callable[[Path], Path]


def test_a_second_build_of_the_same_home_is_refused(tmp_path: Path) -> None:
    with build_lock(Home(tmp_path)), pytest.raises(UserError, match="is being built"), build_lock(Home(tmp_path)):
        pass
    with build_lock(Home(tmp_path)):
        pass


def test_a_step_of_the_ui_waits_for_a_build_and_a_build_for_a_step(
    fresh_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, going_on, refused = threading.Event(), threading.Event(), []

    def sleep(seconds: float) -> None:
        waits.set()
        going_on.wait(seconds)

    def written(*_: object) -> None:
        with (
            pytest.raises(UserError, match="one or more steps that were started in Dagster's UI"),
            build_lock(one.home),
        ):
            pass
        refused.append(True)

    monkeypatch.setattr(home_lock, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(texts, "write_sentences", written)
    with opened(copy_of(fresh_project)) as one:
        key = dg.AssetKey(["corpus", "text", "sentences"])
        job = one._runner.job.get_subset(asset_selection={key})
        how = {"instance": one.instance, "raise_on_error": False}
        step = threading.Thread(target=job.execute_in_process, kwargs=how)
        with build_lock(one.home):
            step.start()
            assert waits.wait(60)
            assert not refused  # the step has not begun
        going_on.set()
        step.join(60)
        assert refused  # while the step ran, no build could begin
        with build_lock(one.home):
            pass
