"""The real language model, once per process. Where it cannot be had, its tests are skipped; in CI they fail."""

import os
from pathlib import Path

import pytest

from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import FullModel, load_with_language_model
from tests.downloads import UnavailableError
from tests.real.models import smollm2


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct in float32. Do not write to it: it is the cache."""
    try:
        return smollm2()
    except UnavailableError as error:
        return missing(str(error))


def missing(reason: str) -> Path:
    """Skip what needs the model; but in CI its absence is a failure, unless `LATENTLENS_OFFLINE=1` allows it."""
    if os.environ.get("CI") == "true" and os.environ.get("LATENTLENS_OFFLINE") != "1":
        pytest.fail(f"{reason} In CI this is a failure; LATENTLENS_OFFLINE=1 makes it a skip.")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def loaded(smollm2_folder: Path) -> FullModel:
    return load_with_language_model(smollm2_folder, device="cpu")


@pytest.fixture(scope="session")
def model(loaded: FullModel) -> LanguageModel:
    return loaded.language_model
