"""Natural sentences for examples: those of the PyPI package `latentlens` that hold certain words, and some others.

    python -m tests.real.sentences FOLDER

FOLDER/words.txt has one word a line. FOLDER/sentences.txt becomes every sentence that holds one of them as a whole
word, in any case, and every 179th of all 117,125, in the order of the package.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.downloads import PackageFile, UnavailableError, cache, made_once

SENTENCES = PackageFile(
    "latentlens==0.1.0",
    "6dd15719bb4c0f5cb48ec339a8d77aceaab27a80ddd76fc42cda2c3f8d5cbe21",
    "latentlens/data/concepts.txt",
    "f698a2682c0a3fd97764a339a65a3ebdd0780f78a4741df34bead1b71169075c",
    "MIT",
)
_EVERY = 179  # prime: the package has five sentences a concept, ever longer, and a multiple of 5 would take the longest


def main() -> None:
    """Write the sentences, and print how many they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        chosen = chosen_sentences((folder / "words.txt").read_text().split())
    except UnavailableError as error:
        raise SystemExit(str(error)) from error
    file = folder / "sentences.txt"
    write_lines(chosen, file)
    where = f"of the PyPI package {SENTENCES.requirement}"
    sys.stdout.write(f"{len(chosen):,} sentences {where} in {file}. License: {SENTENCES.license}.\n")


def chosen_sentences(words: Iterable[str]) -> list[str]:
    """The sentences that hold one of the words, and every 179th.

    Raises:
        UnavailableError, ValueError: as `PackageFile.download`.
    """
    file = made_once(cache() / "sentences" / f"latentlens-{SENTENCES.sha256[:8]}.txt", SENTENCES.download)
    one_of_them = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for number, line in enumerate(lines, 1) if number % _EVERY == 0 or one_of_them.search(line)]


def write_lines(lines: Iterable[str], file: Path) -> None:
    """Write a text file, one line each."""
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
