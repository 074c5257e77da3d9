"""How long `dagster dev` takes to show a project of 16 studies, with 2 of them switched on, and with all 16.

    python -m tests.benchmarks.dagster_dev [--studies 16] [--enabled 2]

The studies are the demo's under other names, with its corpus, index and pictures. Measured from the start of
`dagster dev` until its GraphQL answers with all assets; and, in a process of its own, what of that is loading.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.dagster_server import NODES, dagster_dev

DEMO = Path(__file__).parents[2] / "assets" / "demo"
_LOADING = """
import json, time
start = time.perf_counter()
import dagster
dagster_s = time.perf_counter() - start
import latentlens_dag.definitions
from latentlens_dag.dag.loading import load_definitions
imported = time.perf_counter()
definitions = load_definitions()
loaded = time.perf_counter()
assets = len(definitions.get_repository_def().asset_graph.get_all_asset_keys())
end = time.perf_counter()
ours_s = imported - start - dagster_s
parts = {"import_dagster_s": dagster_s, "import_ours_s": ours_s, "definitions_s": loaded - imported}
print(json.dumps({**parts, "asset_graph_s": end - loaded, "cpu_s": time.process_time(), "assets": assets}))
"""


def main() -> None:
    """Make the projects, start the server on each, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=16)
    parser.add_argument("--enabled", type=int, nargs="+", default=[2, 16])
    given = parser.parse_args()
    found = {}
    for enabled in given.enabled:
        with tempfile.TemporaryDirectory(prefix="latentlens-") as folder:
            project = many_studies(Path(folder) / "project", given.studies, enabled)
            found[f"{enabled} of {given.studies}"] = {"loading": _loading(project), "dagster_dev": _start(project)}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def many_studies(project: Path, studies: int, enabled: int) -> Path:
    """A project of the demo and of copies of its study, the last of them switched off."""
    (project / "assets").mkdir(parents=True)
    (project / "workspace.yaml").write_text((DEMO.parents[1] / "workspace.yaml").read_text())
    (project / "assets" / "demo").mkdir()
    for file in DEMO.iterdir():
        (project / "assets" / "demo" / file.name).symlink_to(file)
    declared = (DEMO / "defs.yaml").read_text().split("---\n")
    study = next(one for one in declared if "components.Study\n" in one)
    for number in range(2, studies + 1):
        folder = project / "assets" / f"study_{number:02d}"
        folder.mkdir()
        switch = "true" if number <= enabled else "false"
        text = study.replace("name: demo", f"name: study_{number:02d}\n  enabled: {switch}", 1)
        (folder / "defs.yaml").write_text(text.replace("{path: model}", "{path: ../demo/model}"))
    return project


def _loading(project: Path) -> dict[str, float]:
    """What one process spends on the definitions."""
    done = subprocess.run([sys.executable, "-c", _LOADING], cwd=project, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _start(project: Path) -> dict[str, float]:
    """Seconds until the server answers with all assets, on the clock and of the processor."""
    start = time.perf_counter()
    with dagster_dev(project) as server:
        answered, cpu = time.perf_counter() - start, server.cpu_s()
        assets = len(server.ask(NODES))
        again = time.perf_counter()
        server.ask(NODES)
        asked = time.perf_counter() - again
    return {
        "until_it_answers_s": answered,
        "cpu_s": cpu,
        "next_answer_s": asked,
        "assets": assets,
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
