"""Every field of every component, with changes to it and the assets whose definitions must then be others.

An asset's definition is its code version, what it is made from, its partitions and, of a source, the version of its
content. What follows by content alone is not named: a step whose input is read anew is stale by its data.
"""

from dataclasses import dataclass, field
from typing import Any

COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40
TEXTS_OF_THE_HUB = {"hub": "user/texts", "config": "en", "split": "train", "column": "said", "revision": COMMIT}
PICTURES_OF_THE_HUB = {**TEXTS_OF_THE_HUB, "column": "picture"}
PICTURES = {"source": {"folder": "pictures"}, "regions": {"masks": "regions.parquet"}, "batches": 2}
FRAMED = {"source": {"parquet": "frames.parquet", "column": "front", "name": "title"}}
MODEL = {"path": "model"}

IMAGES: dict[str, dict[str, Any]] = {
    "Corpus text": {"source": {"lines": "corpus.txt"}, "shards": 2},
    "Corpus again": {"source": {"lines": "corpus.txt"}, "shards": 2},
    "ImageSet pictures": PICTURES,
    "ImageSet more": PICTURES,
    "ImageSet framed": FRAMED,
    "Index words": {"language_model": MODEL, "corpus": "text", "layers": [1, 2], "contexts_per_token": 5},
    "Index others": {"language_model": MODEL, "corpus": "again", "layers": [1]},
    "Study tiny": {
        "vlm": MODEL,
        "index": "words",
        "images": "pictures",
        "layers": [0, 1, 2],
        "top_k": 3,
        "judge": {"regions": {}},
    },
}
TEXTS: dict[str, dict[str, Any]] = {
    "Corpus text": {"source": {"csv": "texts.csv", "column": "said"}, "shards": 1},
    "Corpus packed": {"source": {"package": "latentlens_dag", "file": "demo/captions.txt"}},
    "TextSet sayings": {"source": {"csv": "texts.csv", "column": "said"}, "batches": 2},
    "TextSet more": {"source": {"csv": "texts.csv", "column": "said"}, "batches": 2},
    "TextSet packed": {"source": {"package": "latentlens_dag", "file": "demo/captions.txt"}},
    "Index words": {"language_model": MODEL, "corpus": "text", "layers": [1], "sampling": "first"},
    "Study said": {"language_model": MODEL, "texts": "sayings", "index": "words", "layers": [0, 1], "top_k": 2},
}
ONLINE: dict[str, dict[str, Any]] = {
    "Corpus web": {"source": TEXTS_OF_THE_HUB},
    "TextSet web": {"source": TEXTS_OF_THE_HUB},
    "ImageSet web": {"source": PICTURES_OF_THE_HUB},
    "Index web": {"language_model": {"hub": "user/model", "revision": COMMIT}, "corpus": "web", "layers": [1]},
    "Study web": {
        "vlm": {"hub": "user/model", "revision": COMMIT},
        "index": "web",
        "images": "web",
        "layers": [0],
    },
}
RELEASED: dict[str, dict[str, Any]] = {
    **IMAGES,
    "Study second": {
        "vlm": MODEL,
        "index": "words",
        "images": "pictures",
        "layers": [0],
        "lenses": ["embeddinglens"],
        "top_k": 1,
    },
    "Release out": {"studies": ["tiny"], "repo_id": "user/out", "license": "mit"},
    "Release words": {"index": "words", "repo_id": "user/words", "license": "mit"},
}
CONNECTED: dict[str, dict[str, Any]] = {
    **IMAGES,
    "ImageSet pictures": {**PICTURES, "captions": {"jsonl": "captions.jsonl"}},
    "ImageSet more": {**PICTURES, "captions": {"jsonl": "captions.jsonl"}},
    "ImageSet framed": {**FRAMED, "captions": {"column": "title"}},
    "VisionFeatures seen": {"vision_encoder": MODEL, "images": "pictures"},
    "VisionFeatures pooled": {"vision_encoder": MODEL, "images": "pictures", "pool": 2},
    "Connector clip": {"language_model": MODEL, "features": "seen", "steps": 4, "checkpoints": [0]},
    "Study last": {"vlm": {"connector": "clip"}, "index": "words", "images": "pictures", "layers": [0]},
    "Study first": {"vlm": {"connector": "clip", "step": 0}, "index": "words", "images": "pictures", "layers": [0]},
}
BASES = {"images": IMAGES, "texts": TEXTS, "online": ONLINE, "released": RELEASED, "connected": CONNECTED}
"""Projects by name: components with their fields. What is on the Hub, or trained, is loaded and never built."""


@dataclass(frozen=True)
class Change:
    """An edit of a project, and what it must change."""

    base: str
    edits: dict[str, Any]
    """Path of a field, as `Corpus text.shards`, -> its value; None takes it away. A path of a component renames it."""
    changed: set[str] = field(default_factory=set)
    """Patterns of the assets whose definitions are others, are new, or are gone. Each must match one."""
    before: dict[str, Any] = field(default_factory=dict)
    """Edits that come first, on both sides."""


def _of_layers(study: str, *parts: str) -> set[str]:
    return {f"study/{study}/{part}/V*" for part in parts}


def _index(name: str, *parts: str) -> set[str]:
    return {f"index/{name}/{part}" for part in parts}


def _study(name: str, *parts: str) -> set[str]:
    return {f"study/{name}/{part}" for part in parts}


_LENSES = ("latentlens", "logitlens", "embeddinglens")
_SEEN = {*_of_layers("tiny", "visual"), "study/tiny/visual_tokens"}
_SAID = {*_of_layers("said", "visual"), *_study("said", "visual_tokens", "text_tokens")}
_TRUTH = {"study/tiny/patch_truth"}
_JUDGED = _TRUTH | {"study/tiny/chance_patches"} | _of_layers("tiny", "judgements")
_ASKED = {"study/tiny/model_checks"} | _SEEN
_BY_BATCH = _SEEN | _JUDGED | _of_layers("tiny", *_LENSES)
_SHARES = _study("tiny", "interpretability", "lens_differences")
_COUNTED = _study("tiny", "layer_alignment", "diversity", "state_statistics")  # of tokens that show something
_SUMMARIES = _SHARES | _study("tiny", "layer_alignment", "diversity", "state_statistics", "sinks", "catalog")
_SAID_BY_BATCH = (
    _SAID
    | _of_layers("said", *_LENSES)
    | _study("said", "layer_alignment", "diversity", "state_statistics", "sinks", "catalog")
)
_SHARED = _of_layers("tiny", "logitlens_shared", "embeddinglens_shared")
_BOTH = _SHARED | _of_layers("tiny", "judgements") | _study("tiny", "candidates", "diversity", "catalog")
_READS_INDEX = {"model_checks", "latentlens/V*", "layer_alignment", "state_statistics", "catalog"}

_READ_OF_STEP = (
    _ASKED | _of_layers("tiny", "logitlens", "embeddinglens") | {"study/tiny/study_connectors"}
)  # what reads the model
_OF_THE_MODEL = _READ_OF_STEP | {"study/tiny/vlm", "study/tiny/catalog"}
_LAST = {"Study tiny.vlm": {"connector": "clip"}}

# Where a source of texts stands, what reads its fields, and what it is in those paths.
_TEXTS_READ = {
    "Corpus text": {"corpus/text/sentences", "corpus/text/order"},
    "TextSet sayings": {"texts/sayings/texts"},
}
_WEB_READ = {"Corpus web": {"corpus/web/sentences"}, "TextSet web": {"texts/web/texts"}}


def _source_of(owner: str) -> str:
    kind, name = owner.split()
    return {"Corpus": "corpus", "TextSet": "texts", "ImageSet": "images"}[kind] + f"/{name}/source"


def _texts_from(source: dict[str, Any], content: bool = True, read: bool = True) -> list[Change]:
    """A corpus and a text set that come from elsewhere: whether that is another content, and is read otherwise."""
    return [
        Change(
            "texts",
            {f"{owner}.source": source},
            ({_source_of(owner)} if content else set()) | (fields if read else set()),
        )
        for owner, fields in _TEXTS_READ.items()
    ]


def _texts_of_the_hub(name: str, value: str | None, source: bool = True) -> list[Change]:
    return [
        Change("online", {f"{owner}.source.{name}": value}, fields | ({_source_of(owner)} if source else set()))
        for owner, fields in _WEB_READ.items()
    ]


def _pictures_of_the_hub(name: str, value: str | None, source: bool = True) -> list[Change]:
    changed = {"images/web/originals"} | ({"images/web/source"} if source else set())
    return [Change("online", {f"ImageSet web.source.{name}": value}, changed)]


_OUT, _WORDS = {"release/out/dataset"}, {"release/words/dataset"}


def _release(field: str, value: object, before: object = None, changed: set[str] = _OUT) -> Change:
    """A field of the release of results, which had another value or none before."""
    path = f"Release out.{field}"
    return Change("released", {path: value}, changed, {} if before is None else {path: before})


_MODELS = {"connector/clip/checkpoint/S*"}
_TRAINED = _MODELS | {"connector/clip/losses"}
_CAPTIONS = {"images/pictures/captions"}


_OF_PATCHES = {"jsonl": "captions.jsonl", "patches": "patches", "grid": [1, 2]}


def _read_of(study: str) -> set[str]:
    """What of a study of layer 0 reads its model."""
    parts = ("model_checks", "visual_tokens", "study_connectors", "visual/V00", "logitlens/V00", "embeddinglens/V00")
    return _study(study, *parts)


def _connector(field: str, value: object, changed: set[str] = _TRAINED) -> Change:
    return Change("connected", {f"Connector clip.{field}": value}, changed)


CHANGES: dict[str, list[Change]] = {
    "Corpus.name": [
        Change(
            "images",
            {"Corpus text": "Corpus renamed", "Index words.corpus": "renamed"},
            {"corpus/text/*", "corpus/renamed/*", *_index("words", "candidates", "occurrences")},
        )
    ],
    "Corpus.source": [
        Change(
            "images",
            {"Corpus text.source": {"csv": "texts.csv", "column": "said"}},
            {"corpus/text/source", "corpus/text/sentences"},
        )
    ],
    "Corpus.shards": [
        Change(
            "images",
            {"Corpus text.shards": 3},
            {
                "corpus/text/shards",
                *_index("words", "candidates", "selection", "occurrences", "contextual/*", "table/*"),
            },
        )
    ],
    "ImageSet.name": [
        Change(
            "images",
            {"ImageSet pictures": "ImageSet renamed", "Study tiny.images": "renamed"},
            {"images/pictures/*", "images/renamed/*", "study/tiny/catalog"} | _SEEN | _TRUTH | _COUNTED,
        )
    ],
    "ImageSet.source": [
        Change(
            "images",
            {"ImageSet more.source": {"parquet": "frames.parquet", "column": "front", "name": "title"}},
            {"images/more/source", "images/more/names", "images/more/originals", "images/more/pictures"},
        )
    ],
    "ImageSet.regions": [
        Change("images", {"ImageSet more.regions": None}, {"images/more/regions*", "images/more/pictures"}),
        Change(
            "images",
            {"ImageSet pictures.regions": None},
            {"images/pictures/regions*", "images/pictures/pictures", "study/tiny/catalog"},
            {"Study tiny.judge": "none"},
        ),
    ],
    "ImageSet.batches": [
        Change(
            "images",
            {"ImageSet pictures.batches": 3},
            {"images/pictures/pictures", "images/pictures/regions"} | _BY_BATCH | _SUMMARIES,
        )
    ],
    "ImageSet.captions": [
        Change("connected", {"ImageSet more.captions": None}, {"images/more/captions*", "images/more/pictures"}),
        Change(
            "images",
            {"ImageSet more.captions": {"jsonl": "captions.jsonl"}},
            {"images/more/captions*", "images/more/pictures"},
        ),
    ],
    "CaptionsSource.folder": [
        Change(
            "connected",
            {"ImageSet pictures.captions": {"folder": "pictures"}},
            _CAPTIONS | {"images/pictures/captions_source"},
        )
    ],
    "CaptionsSource.jsonl": [Change("connected", {"ImageSet pictures.captions.jsonl": "HERE/captions.jsonl"})],
    "CaptionsSource.parquet": [
        Change(
            "connected",
            {"ImageSet pictures.captions": {"parquet": "captions.parquet"}},
            _CAPTIONS | {"images/pictures/captions_source"},
        )
    ],
    "CaptionsSource.name": [
        Change("connected", {"ImageSet pictures.captions.name": "file_name"}),
        Change("connected", {"ImageSet pictures.captions.name": "other"}, _CAPTIONS),
    ],
    "CaptionsSource.column": [
        Change("connected", {"ImageSet pictures.captions.column": "other"}, _CAPTIONS),
        Change("connected", {"ImageSet framed.captions.column": "subtitle"}, {"images/framed/captions"}),
    ],
    "CaptionsSource.patches": [Change("connected", {"ImageSet more.captions": _OF_PATCHES}, {"images/more/captions"})],
    "CaptionsSource.grid": [
        Change(
            "connected",
            {"ImageSet more.captions": {**_OF_PATCHES, "grid": [2, 2]}},
            {"images/more/captions"},
            {"ImageSet more.captions": _OF_PATCHES},
        )
    ],
    "VisionFeatures.name": [
        Change(
            "connected",
            {"VisionFeatures pooled": "VisionFeatures renamed"},
            {"features/pooled/*", "features/renamed/*"},
        )
    ],
    "VisionFeatures.vision_encoder": [
        Change(
            "connected", {"VisionFeatures pooled.vision_encoder": {"path": "noted"}}, {"features/pooled/vision_encoder"}
        )
    ],
    "VisionFeatures.images": [
        Change("connected", {"VisionFeatures pooled.images": "more"}, {"features/pooled/features"})
    ],
    "VisionFeatures.layer": [
        Change("connected", {"VisionFeatures pooled.layer": -1}, {"features/pooled/features"}),
        Change("connected", {"VisionFeatures seen.layer": -1}, {"features/seen/features", "connector/clip/frozen"}),
    ],
    "VisionFeatures.pool": [Change("connected", {"VisionFeatures pooled.pool": 1}, {"features/pooled/features"})],
    "Connector.name": [
        Change(
            "connected",
            {
                "Connector clip": "Connector renamed",
                "Study last.vlm": {"connector": "renamed"},
                "Study first.vlm": {"connector": "renamed", "step": 0},
            },
            {"connector/clip/*", "connector/renamed/*"} | _read_of("last") | _read_of("first"),
        )
    ],
    "Connector.language_model": [_connector("language_model", {"path": "noted"}, {"connector/clip/language_model"})],
    "Connector.features": [_connector("features", "pooled", _TRAINED | {"connector/clip/frozen"})],
    "Connector.steps": [
        Change(
            "connected",
            {"Connector clip.steps": 5},
            _TRAINED | _read_of("last"),
        )
    ],
    "Connector.checkpoints": [_connector("checkpoints", [0, 2], {"connector/clip/checkpoint/S000002"})],
    "Connector.images": [_connector("images", 3)],
    "Connector.kind": [_connector("kind", "linear")],
    "Connector.seed": [_connector("seed", 1)],
    "Connector.tokens": [_connector("tokens", 500)],
    "Connector.learning_rate": [_connector("learning_rate", 0.001)],
    "Connector.warmup": [_connector("warmup", 2)],
    "Connector.output_scale": [_connector("output_scale", 3.0)],
    "Connector.fixed_size": [_connector("fixed_size", True)],
    "Connector.finished_scale": [
        Change(
            "connected",
            {"Connector clip.finished_scale": 1.5},
            _TRAINED,
            {"Connector clip.fixed_size": True},
        )
    ],
    "Connector.whitening": [_connector("whitening", 0.0)],
    "Connector.kept": [_connector("kept", {"whole": 1})],
    "Connector.whole_steps": [_connector("whole_steps", 0.5)],
    "Connector.dtype": [_connector("dtype", "bfloat16"), _connector("dtype", "auto", set())],
    "TextSet.name": [
        Change(
            "texts",
            {"TextSet sayings": "TextSet renamed", "Study said.texts": "renamed"},
            {"texts/sayings/*", "texts/renamed/*", "study/said/catalog"} | _SAID,
        )
    ],
    "TextSet.source": [
        Change(
            "texts",
            {"TextSet sayings.source": {"lines": "corpus.txt"}},
            {"texts/sayings/source", "texts/sayings/texts"},
        )
    ],
    "TextSet.batches": [Change("texts", {"TextSet sayings.batches": 3}, {"texts/sayings/texts"} | _SAID_BY_BATCH)],
    "Index.name": [
        Change(
            "images",
            {"Index words": "Index renamed", "Study tiny.index": "renamed"},
            {"index/words/*", "index/renamed/*"} | _study("tiny", *_READS_INDEX),
        )
    ],
    "Index.language_model": [
        # The folder's name is what `shape.json`, beside the occurrences, calls the model.
        Change("images", {"Index words.language_model": {"path": "copied/model"}}),
        Change("images", {"Index words.language_model": {"path": "copy"}}, {"index/words/occurrences"}),
    ],
    "Index.corpus": [Change("images", {"Index words.corpus": "again"}, _index("words", "candidates", "occurrences"))],
    "Index.layers": [
        Change(
            "images",
            {"Index words.layers": [1]},
            _index("words", "occurrences", "contextual/L02", "table/L02")
            | _of_layers("tiny", "latentlens")
            | _study("tiny", "layer_alignment", "state_statistics"),
        ),
        Change("images", {"Index words.layers": [2, 1]}),
        Change("images", {"Index words.layers": "auto"}),  # of a model of three blocks
    ],
    "Index.contexts_per_token": [
        Change("images", {"Index words.contexts_per_token": 2}, _index("words", "candidates", "selection")),
        Change(
            "released",
            {"Index words.contexts_per_token": 2},
            _index("words", "candidates", "selection") | _OUT | _WORDS,
        ),
    ],
    "Index.sampling": [
        Change("images", {"Index words.sampling": "first"}, {"index/words/candidates", "corpus/text/order"})
    ],
    "Index.fraction": [Change("images", {"Index words.fraction": 0.5}, {"index/words/candidates"})],
    "Index.min_position": [Change("images", {"Index words.min_position": 2}, {"index/words/candidates"})],
    "Index.dedup": [
        Change(
            "images",
            {"Index words.dedup": "sentence"},
            _index("words", "candidates", "contextual/*") | {"study/tiny/model_checks"},
        )
    ],
    "Index.sinks": [Change("images", {"Index words.sinks": "include"}, _index("words", "table/*"))],
    "Index.dtype": [
        Change("images", {"Index words.dtype": "bfloat16"}, _index("words", "contextual/*")),
        Change("images", {"Index words.dtype": "auto"}),
    ],
    "Study.name": [Change("images", {"Study tiny": "Study renamed"}, {"study/tiny/*", "study/renamed/*"})],
    "Study.enabled": [
        Change("images", {"Study tiny.enabled": False}, {"study/tiny/*"}),
        Change("images", {"Study tiny.enabled": True}),
        Change("released", {"Study tiny.enabled": False}, {"study/tiny/*", "release/out/*"}),
    ],
    "Study.vlm": [
        Change("images", {"Study tiny.vlm": {"path": "copy"}}),
        Change("images", {"Study tiny.vlm": {"path": "noted"}}, {"study/tiny/vlm"}),
    ],
    "Study.images": [
        Change("images", {"Study tiny.images": "more"}, {"study/tiny/catalog"} | _SEEN | _TRUTH | _COUNTED),
    ],
    "Study.language_model": [
        Change("texts", {"Study said.language_model": {"path": "copy"}}),
        Change("texts", {"Study said.language_model": {"path": "noted"}}, {"study/said/language_model"}),
    ],
    "Study.texts": [Change("texts", {"Study said.texts": "more"}, {"study/said/catalog"} | _SAID)],
    "Study.index": [Change("images", {"Study tiny.index": "others"}, _study("tiny", *_READS_INDEX))],
    "Study.layers": [
        Change("images", {"Study tiny.layers": [0, 2]}, {"study/tiny/*/V01"} | _SUMMARIES),
        Change("images", {"Study tiny.layers": [2, 1, 0]}),
        Change("images", {"Study tiny.layers": "auto"}),
    ],
    "Study.lenses": [
        Change(
            "images",
            {"Study tiny.lenses": ["latentlens", "embeddinglens"]},
            {"study/tiny/logitlens/*", *_of_layers("tiny", "judgements"), *_study("tiny", "diversity", "catalog")},
        ),
        Change("images", {"Study tiny.lenses": ["logitlens", "embeddinglens", "latentlens"]}),
    ],
    "Study.candidates": [
        Change("images", {"Study tiny.candidates": "all"}),
        Change("images", {"Study tiny.candidates": ["all"]}),
        Change("images", {"Study tiny.candidates": ["all", "shared"]}, _BOTH),
        Change(
            "images",
            {"Study tiny.candidates": "shared"},
            {"study/tiny/logitlens/*", "study/tiny/embeddinglens/*", *_BOTH},
        ),
        Change(
            "images",
            {"Study tiny.candidates": ["shared", "all"]},
            set(),
            {"Study tiny.candidates": ["all", "shared"]},
        ),
    ],
    "Study.top_k": [
        Change(
            "images",
            {"Study tiny.top_k": 2},
            _of_layers("tiny", *_LENSES) | _SHARES | {"study/tiny/layer_alignment"},
        )
    ],
    # The table of tokens comes from the pass that is asked the question, though no question is in it.
    "Study.prompt": [
        Change("images", {"Study tiny.prompt": "What?"}, _ASKED),
        Change("released", {"Study tiny.prompt": "What?"}, _ASKED | _OUT),
        Change("images", {"Study tiny.prompt": {}}),
    ],
    "PromptParts.before": [
        Change("images", {"Study tiny.prompt": {"before": "Look."}}, _ASKED),
        Change("released", {"Study tiny.prompt": {"before": "Look."}}, _ASKED | _OUT),
        Change("images", {"Study tiny.prompt": {"before": "See."}}, _ASKED, {"Study tiny.prompt": {"before": "Look."}}),
    ],
    "PromptParts.after": [
        Change("images", {"Study tiny.prompt": {"after": "What?"}}, _ASKED),
        Change("images", {"Study tiny.prompt": {"after": "What?"}}, set(), {"Study tiny.prompt": "What?"}),
        Change("images", {"Study tiny.prompt": {"after": ""}}, _ASKED, {"Study tiny.prompt": {}}),
    ],
    "PromptParts.system": [
        Change("images", {"Study tiny.prompt": {"system": "Look."}}, _ASKED),
        Change("images", {"Study tiny.prompt": {"system": "See."}}, _ASKED, {"Study tiny.prompt": {"system": "Look."}}),
        Change(
            "images",
            {"Study tiny.prompt": {"system": "Look."}},
            _ASKED,
            {"Study tiny.prompt": {"before": "Look."}},
        ),
    ],
    "Study.dtype": [
        Change(
            "images",
            {"Study tiny.dtype": "bfloat16"},
            {"study/tiny/model_checks"} | _SEEN | _of_layers("tiny", "logitlens", "embeddinglens"),
        ),
        Change("images", {"Study tiny.dtype": "auto"}),
    ],
    "Study.unique": [
        Change(
            "images",
            {"Study tiny.unique": "word"},
            _of_layers("tiny", *_LENSES) | {"study/tiny/layer_alignment"},
        ),
        Change("released", {"Study second.unique": "word"}, _of_layers("second", "embeddinglens")),
    ],
    "Study.judge": [
        Change(
            "images",
            {"Study tiny.judge": "none"},
            _JUDGED | _SHARES | _study("tiny", "model_checks", "catalog"),
        )
    ],
    "Study.corpus_ablation": [
        Change(
            "images",
            {"Study tiny.corpus_ablation": [0.4, 1.0]},
            _of_layers("tiny", "ablation_neighbors") | _study("tiny", "corpus_ablation", "catalog"),
        ),
        Change(
            "images",
            {"Study tiny.corpus_ablation": [0.4, 0.9]},
            _of_layers("tiny", "ablation_neighbors") | _study("tiny", "corpus_ablation"),
            {"Study tiny.corpus_ablation": [0.4, 1.0]},
        ),
        Change(
            "images",
            {"Study tiny.corpus_ablation": [0.4]},
            _study("tiny", "corpus_ablation"),
            {"Study tiny.corpus_ablation": [0.4, 1.0]},
        ),
    ],
    "Judge.regions": [
        Change(
            "images",
            {"Study tiny.judge": {"regions": {}}},
            _JUDGED | _SHARES | _study("tiny", "model_checks", "catalog"),
            {"Study tiny.judge": "none"},
        )
    ],
    "Study.captions": [
        Change(
            "images",
            {"Study tiny.captions": True},
            _study("tiny", "captions", "caption_objects", "caption_scores", "catalog"),
        ),
        Change("images", {"Study tiny.captions": False}),
    ],
    "Study.connector": [
        Change("images", {"Study tiny.connector": True}, _study("tiny", "visual/connector", "state_statistics"))
    ],
    "Release.name": [
        Change("released", {"Release out": "Release renamed"}, {"release/out/*", "release/renamed/*"}),
    ],
    "Release.studies": [
        _release("studies", ["tiny", "second"]),
    ],
    "Release.index": [
        Change("released", {"Release words.index": "others"}, _WORDS),
    ],
    "Release.repo_id": [_release("repo_id", "user/other", changed={"release/out/*"})],
    "Release.title": [_release("title", "Another"), _release("title", "Out", changed=set())],
    "Release.description": [_release("description", "What it is.")],
    "Release.license": [_release("license", "cc-by-4.0")],
    "Release.image_license": [_release("image_license", "drawn here")],
    "Release.images": [
        Change("released", {"Release out.images": "none"}),  # as it is without a licence
        Change("released", {"Release out.images": "none"}, _OUT, {"Release out.image_license": "drawn here"}),
        Change("released", {"Release out.images": "thumbnails"}, before={"Release out.image_license": "drawn here"}),
    ],
    "Release.text_license": [_release("text_license", "written here")],
    "Release.sentences": [
        _release("sentences", "cited"),
        _release("sentences", "all", changed=set()),
        Change("released", {"Release words.sentences": "cited"}, _WORDS),
    ],
    "Release.vectors": [Change("released", {"Release words.vectors": True}, _WORDS)],
    "CorpusSource.lines": [
        *_texts_from({"lines": "corpus.txt"}),
        Change("images", {"Corpus text.source.lines": "copied/corpus.txt"}),
        Change("images", {"Corpus text.source.lines": "HERE/corpus.txt"}),
        Change("images", {"Corpus text.source.lines": "fewer.txt"}, {"corpus/text/source"}),
    ],
    "CorpusSource.csv": [
        *_texts_from({"csv": "copied/texts.csv", "column": "said"}, content=False, read=False),
        *_texts_from({"csv": "others.csv", "column": "said"}, read=False),
    ],
    "CorpusSource.jsonl": _texts_from({"jsonl": "texts.jsonl", "column": "said"}),
    "CorpusSource.parquet": _texts_from({"parquet": "texts.parquet", "column": "said"}),
    "CorpusSource.package": _texts_from({"package": "latentlens_dag", "file": "demo/captions.txt"}),
    "CorpusSource.file": [
        Change("texts", {"Corpus packed.source.file": "demo/copies.txt"}, {"corpus/packed/source"}),
        Change("texts", {"TextSet packed.source.file": "demo/copies.txt"}, {"texts/packed/source"}),
    ],
    "CorpusSource.column": [
        *_texts_from({"csv": "texts.csv", "column": "meant"}, content=False),
        *_texts_of_the_hub("column", "meant", source=False),
    ],
    "CorpusSource.hub": _texts_of_the_hub("hub", "user/other"),
    "CorpusSource.config": [*_texts_of_the_hub("config", "de"), *_texts_of_the_hub("config", None)],
    "CorpusSource.split": _texts_of_the_hub("split", "test"),
    "CorpusSource.revision": _texts_of_the_hub("revision", OTHER_COMMIT),
    "ImageSource.folder": [
        Change("images", {"ImageSet pictures.source.folder": "copied/pictures"}),
        Change("images", {"ImageSet pictures.source.folder": "HERE/pictures"}),
        Change("images", {"ImageSet pictures.source.folder": "named"}, {"images/pictures/source"}),
    ],
    "ImageSource.parquet": [
        Change("images", {"ImageSet framed.source.parquet": "copied/frames.parquet"}),
        Change("images", {"ImageSet framed.source.parquet": "fewer.parquet"}, {"images/framed/source"}),
    ],
    "ImageSource.column": [
        Change("images", {"ImageSet framed.source.column": "back"}, {"images/framed/originals"}),
        *_pictures_of_the_hub("column", "other", source=False),
    ],
    "ImageSource.name": [
        Change("images", {"ImageSet framed.source.name": "subtitle"}, {"images/framed/originals"}),
        Change("images", {"ImageSet framed.source.name": None}, {"images/framed/originals"}),
    ],
    "ImageSource.hub": _pictures_of_the_hub("hub", "user/other"),
    "ImageSource.config": [*_pictures_of_the_hub("config", "de"), *_pictures_of_the_hub("config", None)],
    "ImageSource.split": _pictures_of_the_hub("split", "test"),
    "ImageSource.revision": _pictures_of_the_hub("revision", OTHER_COMMIT),
    "RegionSource.masks": [
        Change("images", {"ImageSet pictures.regions.masks": "copied/regions.parquet"}),
        Change("images", {"ImageSet pictures.regions.masks": "other.parquet"}, {"images/pictures/regions_source"}),
    ],
    "ModelSource.path": [
        Change(base, {f"{owner}.path": "HERE/model"})
        for base, owner in (
            ("images", "Index words.language_model"),
            ("texts", "Study said.language_model"),
        )
    ],
    "ModelSource.hub": [
        Change(
            "online",
            {"Index web.language_model.hub": "user/other"},
            _index("web", "language_model", "occurrences"),
        ),
    ],
    "ModelSource.revision": [
        Change("online", {"Index web.language_model.revision": OTHER_COMMIT}, {"index/web/language_model"}),
    ],
    "ModelSource.trust_remote_code": [
        Change("images", {"Index others.language_model.trust_remote_code": True}, {"index/others/language_model"}),
        Change("online", {"Index web.language_model.trust_remote_code": True}, {"index/web/language_model"}),
    ],
    "VlmSource.path": [Change("images", {"Study tiny.vlm.path": "HERE/model"})],
    "VlmSource.hub": [Change("online", {"Study web.vlm.hub": "user/other"}, {"study/web/vlm"})],
    "VlmSource.revision": [Change("online", {"Study web.vlm.revision": OTHER_COMMIT}, {"study/web/vlm"})],
    "VlmSource.trust_remote_code": [Change("online", {"Study web.vlm.trust_remote_code": True}, {"study/web/vlm"})],
    "VlmSource.connector": [
        Change("connected", {"Study tiny.vlm": {"connector": "clip"}}, _OF_THE_MODEL),
        Change("connected", {"Study last.vlm": {"connector": "clip", "step": 4}}),
    ],
    "VlmSource.step": [
        Change("connected", {"Study tiny.vlm": {"connector": "clip", "step": 0}}, _READ_OF_STEP, _LAST),
        Change("connected", {"Study tiny.vlm": {"connector": "clip", "step": 4}}, before=_LAST),
    ],
}
"""Component or source and field -> its changes."""
