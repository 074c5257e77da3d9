"""The card of a release: README.md, written from its tables and their provenance.

Every statement is read from the release, so a card cannot promise what its files do not hold. Note: names, prompts and
licenses are text of others, and Markdown is HTML. Everything that is not a word of this module goes through
`escape_markdown`. The snippets are in `snippets.py`; the tests run each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.publish.data_dictionary import COLUMNS, TABLE_TITLES
from latentlens_dag.publish.snippets import index_snippets, table_snippets
from latentlens_dag.publish.tables import RELEASE_IMAGES
from latentlens_dag.schema import LENSES, TABLES
from latentlens_dag.storage.package_versions import package_versions
from latentlens_dag.study.interpretability import MEASURES
from latentlens_dag.study.report import alignment_text, alignment_titles, words_text

if TYPE_CHECKING:
    from latentlens_dag.publish.about import About

Facts = Mapping[str, Any]
_TITLES = {name: lens.title for name, lens in LENSES.items()}
_PROMPTS = {"system_prompt": "system prompt", "prompt_before": "prompt before the image", "prompt": "prompt"}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGER = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**12, "1B<n<10B"))
_TAGS = ["latentlens", "interpretability", "vision-language-models", "latentlens-dag"]


def tables_card(
    folder: Path, about: About, studies: Mapping[str, Facts], rows: Mapping[str, int], examples: Sequence[str]
) -> str:
    """The card of a release of results.

    Args:
        folder: the release, whose summaries are read.
        about: its name and license terms.
        studies: provenance of each study, as in the manifest.
        rows: of each table.
        examples: the studies with an image in `examples/`.
    """
    body = [
        *(f"![{study}: what each lens says of every patch](examples/{study}.webp)\n\n{_PICTURE}" for study in examples),
        "## Results",
        *(_results(folder, study) for study in studies),
        "## How it was made",
        _MADE,
        *(_made(study, facts) for study, facts in studies.items()),
    ]
    return _card(folder, about, rows, _INTRODUCTION, body, table_snippets(about.repo_id, set(rows)), _LIMITS)


def index_card(folder: Path, about: About, facts: Facts, rows: Mapping[str, int]) -> str:
    """The card of a release of an index.

    Args:
        folder: the release.
        about: its name and license terms.
        facts: provenance of the index.
        rows: of each table.
    """
    body = ["## How it was made", _bullets(_index_lines(facts))]
    snippets = index_snippets(about.repo_id, facts["contextual_layers"], (folder / "vectors").is_dir())
    return _card(folder, about, rows, _INDEX_INTRODUCTION, body, snippets, _INDEX_LIMITS)


def _card(
    folder: Path,
    about: About,
    rows: Mapping[str, int],
    introduction: str,
    body: Sequence[str],
    snippets: Sequence[str],
    limits: str,
) -> str:
    parts = [
        _front_matter(folder, about, rows),
        f"# {escape_markdown(about.title)}",
        introduction,
        *(escape_markdown(part) for part in re.split(r"\n\s*\n", about.description or "") if part.strip()),
        *body,
        "## Use it",
        *snippets,
        "## Tables",
        *(_columns(table, rows[table]) for table in TABLES if table in rows),
        "## Licence",
        _licence(about, set(rows)),
        "## Citation",
        citation(),
        "## Limits",
        limits,
    ]
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: object) -> str:
    """Escape foreign text for Markdown and HTML, in one line."""
    line = " ".join(str(text).split())
    return re.sub(r"[^\w\s,;'()/ -]|(?<!\w)_|_(?!\w)", lambda found: f"&#{ord(found[0])};", line)


def _front_matter(folder: Path, about: About, rows: Mapping[str, int]) -> str:
    import yaml

    files = {table: _pattern(folder, table) for table in TABLES if table in rows}
    files |= {path.stem: f"vectors/{path.name}" for path in sorted(folder.glob("vectors/*.parquet"))}
    first = "neighbors" if "neighbors" in files else next(iter(files))
    configs = [
        {"config_name": table, "data_files": pattern, **({"default": True} if table == first else {})}
        for table, pattern in files.items()
    ]
    largest = max(rows.values(), default=0)
    size = next(name for most, name in (*_SIZES, *_LARGER, (10**99, "n>1T")) if largest < most)
    facts = {
        "license": about.license,
        "pretty_name": " ".join(about.title.split()),
        "tags": _TAGS,
        "size_categories": [size],
        "configs": configs,
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _pattern(folder: Path, table: str) -> str:
    """The glob pattern of a table's files: one file, a folder, or one folder per study."""
    patterns = (f"{table}.parquet", f"{table}/*.parquet", f"{table}/*/*.parquet")
    return next(pattern for pattern in patterns if any(folder.glob(pattern)))


def _results(folder: Path, study: str) -> str:
    """The verdicts on a study or, where there are none, statistics of its neighbors."""
    judged = _rows(folder, "interpretability", study)
    lines = list(_verdict_tables(judged)) if judged else list(_unjudged(folder, study))
    if judged and (words := _distinct_words(folder, study)):
        lines += [_WORDS, words]
    lines += list(_ablation(_rows(folder, "corpus_ablation", study)))
    lines += list(_captions(_rows(folder, "caption_scores", study)))
    return "\n\n".join([f"### {study}", *lines])


def _rows(folder: Path, table: str, study: str) -> list[Facts]:
    import pyarrow.parquet as pq

    path = folder / f"{table}.parquet"
    found: list[Facts] = pq.read_table(path, filters=[("study", "=", study)]).to_pylist() if path.is_file() else []
    return found


def _verdict_tables(rows: list[Facts]) -> Iterator[str]:
    every = [row for row in rows if row["patch_group"] == "all"]
    for judge in dict.fromkeys(row["judge"] for row in every):
        own = [row for row in every if row["judge"] == judge]
        tokens, images = (max(row[name] for row in own) for name in ("tokens", "images"))
        for k in sorted({row["k"] for row in own}, reverse=True):
            by = "the nearest answer alone" if k == 1 else f"{k} answers"
            yield f"**Judged by {by}**: % of {tokens:,} visual tokens of {images:,} images, by judge `{judge}`"
            yield _measure_table([row for row in own if row["k"] == k])
    yield _MEASURED


def _measure_table(rows: list[Facts]) -> str:
    """Markdown: a row per lens and visual layer, a column per measure."""
    head = ["lens", "visual layer", *MEASURES, "effective tokens"]
    lines = [head, ["---", "---:", *["---"] * len(MEASURES), "---:"]]
    places = dict.fromkeys((row["lens"], row["visual_layer"]) for row in rows)
    by_place = {(row["lens"], row["visual_layer"], row["measure"]): row for row in rows}
    for lens, layer in places:
        found = [by_place[lens, layer, measure] for measure in MEASURES]
        effective = found[0]["effective_tokens"]
        cells = map(_share, found)
        lines.append([_TITLES[lens], str(layer), *cells, "" if effective is None else f"{effective:,.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ablation(rows: list[Facts]) -> Iterator[str]:
    """The paper's measure by all answers from each part of the index; nothing without rows."""
    every = max((row["k"] for row in rows), default=0)
    shown = [row for row in rows if (row["patch_group"], row["measure"], row["k"]) == ("all", MEASURES[0], every)]
    for judge in dict.fromkeys(row["judge"] for row in shown):
        own = [row for row in shown if row["judge"] == judge]
        yield f"**LatentLens from parts of the index**, by vectors per contextual layer: {_ABLATED}, by judge `{judge}`"
        titles = {
            str(row["fraction"]): f"{row['occurrences']:,} ({100 * row['fraction']:g} % of its sentences)"
            for row in own
        }
        yield _matrix({(row["visual_layer"], str(row["fraction"])): _share(row) for row in own}, titles)


def _captions(rows: list[Facts]) -> Iterator[str]:
    """Recall and precision of the model's own captions; nothing without rows."""
    shown = [row for row in rows if row["share"] is not None]
    if not shown:
        return
    yield (
        "**What the model itself says of the images**: % of the things in an image that its caption names (recall), "
        "and of the things that a caption names that are in its image (precision), each with chance, by captions of "
        "other images, and 95 % intervals over images"
    )
    lines = [["things", "measure", "share / chance", "images"], ["---", "---", "---", "---:"]]
    for row in shown:
        ends = [("share", ""), ("chance", "chance_")]
        cells = [
            f"{100 * row[name]:.1f}{_interval(row[f'{end}low'], row[f'{end}high'])}"
            for name, end in ends
            if row[name] is not None
        ]
        lines.append([row["kind"], row["measure"], " / ".join(cells), f"{row['images']:,}"])
    yield "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(row: Facts) -> str:
    """Share, chance and excess, each with its interval."""
    return " / ".join(
        "-" if row[name] is None else f"{100 * row[name]:.1f}{_interval(row[f'{ends}low'], row[f'{ends}high'])}"
        for name, ends in (("share", ""), ("chance", "chance_"), ("excess", "excess_"))
    )


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:.1f}-{100 * high:.1f}]"


def _unjudged(folder: Path, study: str) -> Iterator[str]:
    yield f"Nobody judged the answers, so it is not known how many fit. {_WORDS}"
    yield _distinct_words(folder, study)
    if alignment := _rows(folder, "layer_alignment", study):
        yield f"{' '.join(alignment_titles(alignment))}:"
        layers = sorted({row["contextual_layer"] for row in alignment})
        cells = {(row["visual_layer"], str(row["contextual_layer"])): alignment_text(row) for row in alignment}
        yield _matrix(cells, {str(layer): f"layer {layer}" for layer in layers})


def _distinct_words(folder: Path, study: str) -> str:
    """Markdown: a row per visual layer, a column per lens; empty where nobody counted."""
    words = _rows(folder, "diversity", study)
    return _matrix({(row["visual_layer"], row["lens"]): words_text(row) for row in words}, _TITLES) if words else ""


def _matrix(cells: Mapping[tuple[int, str], str], titles: Mapping[str, str]) -> str:
    """A Markdown table: a row per visual layer, a column per name."""
    names = [name for name in titles if any(name == column for _, column in cells)]
    lines = ["visual layer", *(titles[name] for name in names)], ["---:"] * (len(names) + 1)
    body = [[str(layer), *(cells.get((layer, name), "") for name in names)] for layer in sorted({a for a, _ in cells})]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *body])


def _made(study: str, facts: Facts) -> str:
    model, shown = facts["model"], facts["images"]
    lines = [
        f"model: {_model(model)}",
        f"{facts['kind']}: {shown['count']:,} of `{shown['name']}`, from {escape_markdown(shown['source'])}",
        *(f"{title}: {escape_markdown(facts[name])}" for name, title in _PROMPTS.items() if facts.get(name)),
        f"visual layers: {_numbers(facts['visual_layers'])}",
        f"lenses: {', '.join(_TITLES[lens] for lens in LENSES if lens in facts['lenses'])}, "
        f"{facts['top_k']} answers each" + ("" if facts["unique"] == "none" else f", of different {facts['unique']}s"),
        *([_SHARED] if any(LENSES[lens].declared for lens in LENSES if lens in facts["lenses"]) else []),
        f"judge: {escape_markdown(facts['judge'])}",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()))
    made_with = [f"versions: {escape_markdown(versions)}"] if versions else []
    index = [f"index {line}" for line in _index_lines(facts["index"])]
    return f"**{study}**\n\n" + _bullets([*lines, *index, *made_with])


def _of_sentences(fraction: float) -> str:
    return "all sentences" if fraction == 1 else f"{100 * fraction:g} % of the sentences"


def _index_lines(index: Facts) -> list[str]:
    return [
        f"`{index['name']}`: states of {_model(index['model'])}",
        f"corpus: {index['sentences']:,} sentences of `{index['corpus']}`, from {escape_markdown(index['source'])}",
        f"contextual layers: {_numbers(index['contextual_layers'])}",
        f"occurrences: {index['occurrences']:,}; at most {index['contexts_per_token']} of each token, chosen by "
        f"`{index['sampling']}`, from position {index['min_position']} on, of {_of_sentences(index['fraction'])}, "
        f"each {index['dedup']} once",
    ]


def _model(model: Facts) -> str:
    if model.get("connector"):
        made = [f"{escape_markdown(asset)} {version}" for asset, version in sorted(model.get("made_from", {}).items())]
        steps = f"connector {escape_markdown(model['connector'])} after {model['step']} steps"
        return ", ".join([f"{steps}, in {_model(model['language_model'])}", f"files {model['weights']}", *made])
    pinned = f", revision {model['revision']}" if model.get("revision") else ""
    weights = f", files {model['weights']}" if model.get("weights") else ""
    return f"{escape_markdown(model['name'])}{pinned}{weights}"


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _columns(table: str, rows: int) -> str:
    schema = RELEASE_IMAGES if table == "images" else TABLES[table]
    head = ["| column | type | what it holds |", "|---|---|---|"]
    lines = [f"| `{field.name}` | {_type(field)} | {COLUMNS[field.name]} |" for field in schema]
    return f"### {table}\n\n{rows:,} rows: {TABLE_TITLES[table]}.\n\n" + "\n".join([*head, *lines])


def _type(field: Any) -> str:
    if field.name == "thumbnail":
        return "image"
    return f"list of {field.type.value_type}" if hasattr(field.type, "value_type") else str(field.type)


def _licence(about: About, tables: set[str]) -> str:
    lines = [f"tables: {escape_markdown(about.license)}"]
    if "images" in tables:
        none = "not stated, so none is included"
        lines.append(f"pictures: {escape_markdown(about.image_license) if about.image_license else none}")
    if tables & {"sentences", "texts"}:
        unsaid = "as of where they come from, see above"
        lines.append(f"sentences and texts: {escape_markdown(about.text_license) if about.text_license else unsaid}")
    return _bullets(lines)


_INTRODUCTION = (
    "A vision-language model turns an image into visual tokens, vectors that its language model reads like words. This "
    "dataset says in plain language what every visual token is like at every layer: the words in their sentences whose "
    "states are nearest to it (LatentLens), and, to compare, what the model's own vocabulary says (LogitLens, "
    "EmbeddingLens). It was made by LatentLens DAG after the paper "
    "[LatentLens](https://arxiv.org/abs/2602.00462). No model is needed to use it."
)
_INDEX_INTRODUCTION = (
    "The contextual states of a text corpus in a language model: what LatentLens compares visual tokens with. Each "
    "contextual layer is a Lance table with a unit vector per occurrence of a token in a sentence. Ask it with any "
    "state of the same language model what that state is like; only what a search needs is read. It was made by "
    "LatentLens DAG after the paper [LatentLens](https://arxiv.org/abs/2602.00462)."
)
_PICTURE = "The image with the lowest id, chosen by nobody: nearest answers on the patches, colors by verdict."
_MEASURED = (
    "*interpretable*, the measure of the paper: an answer fits the patch or its image. The first that holds of "
    "*concrete* (a word for what is there), *abstract* (a word that goes with it) and *global* (a word for what is "
    "elsewhere in the image) is a token's verdict. Each cell is share / chance / excess with their 95 % intervals, "
    "whose units are images: chance is the share that the same answers reach on patches of the same group in other "
    "images, excess is (share - chance) / (1 - chance). So many *effective tokens*, if they were independent, would "
    "make *interpretable* as sure. Padding is left out of all figures, attention sinks of verdicts; by patch group: "
    "table `interpretability`."
)
_WORDS = "Different words among a token's answers (mean, and 95 % interval over images):"
_SHARED = "(shared): answers only with the tokens that the index has, which are LatentLens's: table `candidates`"
_ABLATED = "% *interpretable* of all visual tokens, share / chance / excess with their 95 % intervals"
_MADE = (
    "Every visual token's state that enters a block was compared with the states of all kept occurrences at all "
    "contextual layers, exactly (of the vectors as stored: of unit length, in float16); equal cosines are in order of "
    "(contextual layer, key)."
)
_LIMITS = _bullets(
    [
        "An answer says what a state is near to, not what the model uses it for.",
        "`cosine` and `logit` are different quantities, and no lens's numbers can be compared with another's.",
        "LatentLens can only answer with words of the corpus; another corpus gives other words.",
        "Judging by annotated regions knows what was annotated: an answer that is right and unannotated counts as "
        "none. Read every share beside its chance.",
        "Forward passes vary with batch and machine: cosines that differ by less than 1e-3 may change places.",
    ]
)
_INDEX_LIMITS = _bullets(
    [
        "States must come from the same language model, at the input of a block; others give numbers without meaning.",
        "Answers can only be words of the corpus.",
        "Vectors are of unit length in float16; `norm` holds the length that they had.",
    ]
)
_CITATION = """```bibtex
@article{krojer2026latentlens,
  title  = {LatentLens: Revealing Highly Interpretable Visual Tokens in LLMs},
  author = {Krojer, Benno and others},
  year   = {2026},
  eprint = {2602.00462},
  archivePrefix = {arXiv},
  note   = {ICML 2026}
}
@software{latentlens_dag,
  title   = {LatentLens DAG},
  author  = {{The LatentLens DAG maintainers}},
  version = {VERSION},
  license = {Apache-2.0}
}
```"""


def citation() -> str:
    """The paper and this version of the software, as CITATION.cff has them."""
    return _CITATION.replace("VERSION", package_versions()["latentlens-dag"])
