"""What is installed: a bill of materials, its licenses, and known vulnerabilities. `make audit` runs it.

`python -m tests.audit TOOLS SBOM` takes the folder of programs with cyclonedx-py and pip-audit in it, and writes the
bill of the environment it runs in (CycloneDX, JSON). Every license must be in ALLOWED. Whether there are known
vulnerabilities is asked of a service; where it does not answer, that is NOT CHECKED, and no error.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

ALLOWED = (
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC"),
    *("LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
)
"""SPDX identifiers: they ask for the license's text to be kept; MPL-2.0, also for changes of its own files."""
_NAMES = {
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""What packages write in place of an identifier."""
EXEMPT = {"latentlens-dag"}
_NOT_FREE = re.compile(r"^(nvidia|cuda)-")
"""Libraries of NVIDIA, which torch brings on machines with its devices, under NVIDIA's own terms."""

_ANSWER_S = 300


def licenses(package: Distribution) -> list[str]:
    """The licenses of a package as it states them: SPDX identifiers where they are known, else its own words."""
    facts = package.metadata
    classifiers = [one.rpartition(" :: ")[2] for one in facts.get_all("Classifier", []) if one.startswith("License")]
    stated = facts.get("License-Expression") or " AND ".join(classifiers) or (facts.get("License") or "").split("\n")[0]
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", stated) if stated not in _NAMES else [stated]
    return [_NAMES.get(part.strip(), part.strip()) for part in _with_names(stated, parts) if part.strip()] or ["none"]


def _with_names(stated: str, parts: list[str]) -> list[str]:
    """Names with parentheses of their own stay whole."""
    whole = stated.split(" AND ")
    return whole if all(name in _NAMES for name in whole) else parts


def refused_licenses() -> list[str]:
    """The packages of this environment with a license that is not in ALLOWED."""
    found = []
    for package in distributions():
        name = package.metadata["Name"]
        wrong = [one for one in licenses(package) if one not in ALLOWED]
        if wrong and name not in EXEMPT and not _NOT_FREE.match(name.lower()):
            found.append(f"{name} {package.version}: {', '.join(wrong)}")
    return sorted(set(found))


def write_sbom(tools: Path, sbom: Path) -> int:
    """Write and validate the bill of materials, and return its number of components."""
    output = ["--output-format", "JSON", "--output-reproducible", "--validate", "--output-file", str(sbom)]
    subprocess.run([tools / "cyclonedx-py", "environment", sys.prefix, *output], check=True)
    bill = json.loads(sbom.read_text("utf-8"))
    if bill["bomFormat"] != "CycloneDX" or not bill["components"]:
        raise ValueError(f"{sbom} is no bill of materials of CycloneDX, or lists nothing.")
    return len(bill["components"])


def vulnerabilities(tools: Path) -> tuple[bool, str]:
    """Whether none is known, as far as that could be asked, and what to say."""
    path = next(str(place) for place in map(Path, sys.path) if place.name == "site-packages")
    command = [tools / "pip-audit", "--path", path, "--format", "json", "--progress-spinner", "off", "--timeout", "20"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_S)
        packages = json.loads(run.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return True, f"vulnerabilities: NOT CHECKED (no answer in {_ANSWER_S} s)"
    except (ValueError, KeyError, TypeError):
        reason = (run.stderr.strip().splitlines() or ["no answer"])[-1]
        return True, f"vulnerabilities: NOT CHECKED ({reason:.200})"
    if all("skip_reason" in one for one in packages):
        return True, f"vulnerabilities: NOT CHECKED ({packages[0]['skip_reason']:.200})"
    known = [f"{one['name']} {one['version']}: {fault['id']}" for one in packages for fault in one.get("vulns", [])]
    skipped = sum("skip_reason" in one for one in packages)
    return not known, "\n  ".join([f"vulnerabilities: {len(known)} known, {skipped} packages not asked about", *known])


def main() -> None:
    """Write the bill, compare the licenses, ask for vulnerabilities; exit with 1 where something is wrong."""
    tools, sbom = map(Path, sys.argv[1:])
    refused = refused_licenses()
    lines = [f"components: {write_sbom(tools, sbom)} ({sbom})"]
    lines.append("\n  ".join([f"licenses: {len(refused)} packages with one that is not allowed", *refused]))
    sound, answer = vulnerabilities(tools)
    sys.stdout.write("\n".join([*lines, answer, ""]))
    sys.exit(bool(refused) or not sound)


if __name__ == "__main__":
    main()
