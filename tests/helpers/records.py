"""Records of artifacts with plain values where a test does not say more."""

from typing import Any

from latentlens_dag.storage.records import ArtifactRecord, FirstBuild


def artifact_record(asset: str, created_at: str = "2026-01-01T00:00:00+00:00", **fields: Any) -> ArtifactRecord:
    values: dict[str, Any] = {
        "partition": None,
        "data_version": "0" * 16,
        "code_version": "1",
        "settings": {},
        "inputs": {},
        "files": [],
        "rows": None,
        "run": "r1",
        "build": "b1",
        "first_built": FirstBuild("b1", created_at),
        "packages": {"latentlens-dag": "9"},
    }
    return ArtifactRecord(asset=asset, created_at=created_at, **{**values, **fields})
