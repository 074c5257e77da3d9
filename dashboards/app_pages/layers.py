"""Layers: how much of each is interpretable, where its answers come from, and the norms of its states."""

from __future__ import annotations

from itertools import combinations, cycle, product
from typing import Any

import polars as pl
import streamlit as st
from widgets import permalink
from widgets.ablation import corpus_ablation
from widgets.charts import COLORS, DRIFT_COLORS, PALETTE, SOURCE_COLORS, Clicks, heat_map, histograms
from widgets.curves import lines
from widgets.difference_examples import difference_examples
from widgets.distinct_words import distinct_words
from widgets.examples import POINT, current_point, examples, pick
from widgets.geometry import NO_STATISTICS, directions_view, layer_clicks, statistics_of
from widgets.labels import answer_count, lens_name, shared_note, signed_interval
from widgets.sources import browser_data, choose_study

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.browse.difference_examples import Counted
from latentlens_dag.browse.geometry import SOURCES, alignment_cells, has_null
from latentlens_dag.schema import LATENTLENS, LENSES
from latentlens_dag.study.interpretability import MEASURES

GROUPS = ("all", "object", "background")
MEANINGS = {
    "interpretable": "Interpretable, the measure of the paper: one of the answers names what lies in the patch "
    "(concrete), what goes with it (abstract), or what is elsewhere in the image (global).",
    "concrete": "Concrete: one of the answers names what lies in the patch.",
    "abstract": "Abstract: one of the answers names what goes with what lies in the patch, and none names it.",
    "global": "Global: the answers that fit at all name what is elsewhere in the image.",
}
COMPARISONS = {
    "lenses": "Above 0, the lens that is named first has more.",
    "layers": "Above 0, the layer has more than the study's first one.",
}
SIGNIFICANT = 0.05
_INTERVALS = [f"{name}{end}" for name in ("", "chance_", "excess_") for end in ("low", "high")]
_FIGURES = ["lens", "visual_layer", "share", "chance", "excess", *_INTERVALS, "tokens", "images", "effective_tokens"]
OF_ANSWERS = {
    "share": ("the tokens", "Share of answers", "share of each visual layer's answers; a row sums to 100 %"),
    "null_share": ("the null", "Share of answers", "answers to the same states with their dimensions shuffled"),
    "difference": ("the difference", "Difference (points)", "the tokens' share minus the null's, in percentage points"),
}


def layers_page(data: BrowserData, study: StudyFacts) -> None:
    """One kind of summary of a study, and examples of the point that was clicked."""
    draw = {"interpretability": interpretability, "differences": differences, "contextual layers": contextual_layers}
    draw |= {"size of the index": corpus_ablation, "norms and drift": states, "directions": directions_view}
    draw |= {"similarity": similarity, "distinct words": distinct_words}
    what = permalink.choice("Show", "show", list(draw), "interpretability", format_func=str.capitalize, clears=POINT)
    if group := draw[what](data, study):
        examples(data, study, group)


# A view returns the group of patches of which a click shows examples; None where it shows none, or others.


def interpretability(data: BrowserData, study: StudyFacts) -> str | None:
    """The curves of all lenses, with their intervals and chance. Returns the group of patches."""
    sql = "FROM interpretability WHERE study = $study ORDER BY lens, visual_layer"
    shares = data.dataset(study.name).collect(sql, study=study.name)
    if shares.is_empty():
        st.info("This study has no judgements, so it is not known how much of it is interpretable.")
        return None
    if "measure" not in shares.columns:
        st.info("An older version judged this study. `latentlens-dag build` judges it again; no model runs for that.")
        return None
    if note := data.dataset(study.name).note:
        st.caption(note)
    ks = shares["k"].unique().sort(descending=True).to_list()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        group = permalink.choice("Patches", "group", GROUPS, "all")
        measure = permalink.choice("Measure", "measure", MEASURES, MEASURES[0])
        k = permalink.choice("Judged by", "k", ks, ks[0], format_func=answer_count)
    shown = (pl.col("patch_group") == group) & (pl.col("measure") == measure) & pl.col("k").eq_missing(k)
    curves(shares.filter(shown), study, measure)
    return group


def curves(shares: pl.DataFrame, study: StudyFacts, measure: str) -> None:
    """One curve for each lens, and its figures."""
    shown = shares.with_columns(pl.col("lens").map_elements(lens_name, return_dtype=pl.String))
    by_name = {lens_name(lens): lens for lens in study.lenses}

    def picked(point: dict[str, Any]) -> None:
        pick(lens=by_name.get(point["lens"]), layer=point["visual_layer"])

    st.markdown(f"**Share of visual tokens that are {measure}**, with 95 % intervals over images; dashed: chance")
    st.caption(
        f"{MEANINGS[measure]} Chance: the same answers against patches of the same group in other images. "
        f"{shared_note(study.lenses)}"
    )
    point = current_point()
    chosen = None
    if point.keys() == {"lens", "layer"}:
        chosen = {"visual_layer": point["layer"], "lens": lens_name(point["lens"])}
    lines(
        shown,
        "visual_layer",
        "share",
        "lens",
        y_title="Share of visual tokens",
        band=("low", "high"),
        chance="chance",
        chance_band=("chance_low", "chance_high"),
        number_format=".0%",
        clicks=Clicks("curves", picked, chosen),
    )
    with st.expander("Figures"):
        st.dataframe(shown.select(_FIGURES), hide_index=True)
        st.caption(
            "Excess is (share - chance) / (1 - chance). Effective tokens: as many independent tokens would give an "
            "interval as narrow."
        )


def differences(data: BrowserData, study: StudyFacts) -> None:
    """The differences of lenses, or of layers, on the same patches; and the patches of the one that was clicked."""
    dataset = data.dataset(study.name)
    sql = "FROM lens_differences WHERE study = $study ORDER BY visual_layer"
    found = dataset.collect(sql, study=study.name) if "lens_differences" in dataset.tables else pl.DataFrame()
    if found.is_empty():
        st.info(
            "There are no differences here: the study has no judgements, or an older version made this. "
            "In a home that has the judgements, `latentlens-dag build` computes them."
        )
        return
    ks = found["k"].unique().sort(descending=True).to_list()
    kinds = [kind for kind in COMPARISONS if kind in found["comparison"]]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = permalink.choice("Compare", "comparison", kinds, kinds[0], format_func=str.capitalize, clears=POINT)
        group = permalink.choice("Patches", "group", GROUPS, "all")
        measures = [measure for measure in MEASURES if measure in found["measure"]]
        measure = permalink.choice("Measure", "measure", measures, measures[0])
        k = permalink.choice("Judged by", "k", ks, ks[0], format_func=answer_count)
    of_answers = found.filter(pl.col("comparison") == kind, pl.col("patch_group") == group, pl.col("k") == k)
    difference_curves(of_answers.filter(pl.col("measure") == measure), study, kind, measure)
    difference_examples(data, study, kind, Counted(measure, k == 1, group))


def difference_curves(found: pl.DataFrame, study: StudyFacts, kind: str, measure: str) -> None:
    """One curve for each pair of lenses, or for each lens."""
    pairs = list(combinations(study.lenses, 2)) if kind == "lenses" else []
    if len(pairs) > len(PALETTE):
        one = permalink.choice("Pairs with", "with", study.lenses, study.lenses[0], format_func=lens_name)
        pairs = [pair for pair in pairs if one in pair]
        found = found.filter((pl.col("lens") == one) | (pl.col("other_lens") == one))
    names = [pair_name(*pair) for pair in pairs]
    colors = dict(zip(names, cycle(PALETTE), strict=False)) or COLORS

    def picked(point: dict[str, Any]) -> None:
        of_name = {pair_name(*pair): pair for pair in product(study.lenses, repeat=2)}
        lens, other = of_name.get(point["pair"], (None, None))
        pick(lens=lens, layer=point["visual_layer"], other=other if other != lens else None)

    st.markdown(f"**{kind.capitalize()} compared: difference of the shares that are {measure}**, with 95 % intervals")
    st.caption(
        f"{MEANINGS[measure]} {COMPARISONS[kind]} Both are judged on the same patches. Dots: p at most {SIGNIFICANT}, "
        f"adjusted over all layers and {'pairs of lenses' if kind == 'lenses' else 'lenses'} (Benjamini and Hochberg); "
        f"crosses: larger p. {shared_note(study.lenses)}"
    )
    point = current_point()
    chosen = None
    if point.keys() in ({"lens", "layer"}, {"lens", "layer", "other"}):
        pair = pair_name(point["lens"], point.get("other", point["lens"]))
        chosen = {"visual_layer": point["layer"], "pair": pair}
    lines(
        found.with_columns(
            pair=pl.struct("lens", "other_lens").map_elements(lambda row: pair_name(*row.values()), pl.String),
            unsure=pl.col("adjusted_p_value") > SIGNIFICANT,
            interval=pl.struct("low", "high").map_elements(signed_interval, pl.String),
            p=pl.col("adjusted_p_value").round_sig_figs(2),
        ),
        "visual_layer",
        "difference",
        "pair",
        y_title="Difference (percentage points)",
        band=("low", "high"),
        number_format="+.1~%",
        colors=colors,
        zero=True,
        crosses="unsure",
        notes={"interval": "95 % interval", "p": "Adjusted p", "images": "Images", "tokens": "Patches"},
        clicks=Clicks(f"differences-{kind}", picked, chosen),
    )


def pair_name(lens: str, other: str) -> str:
    """LatentLens − LogitLens; of layers of one lens, only its name."""
    return lens_name(lens) if lens == other else f"{lens_name(lens)} \N{MINUS SIGN} {lens_name(other)}"


def contextual_layers(data: BrowserData, study: StudyFacts) -> str | None:
    """The contextual layers that the answers of each visual layer, and all answers together, come from.

    Only the tokens' own answers have examples: those of the null are in no table of a study.
    """
    sql = "FROM layer_alignment WHERE study = $study ORDER BY visual_layer, contextual_layer"
    alignment = data.dataset(study.name).collect(sql, study=study.name)
    if alignment.is_empty():
        st.info("This study has no answers of LatentLens, the only lens with contextual layers.")
        return None
    kind = "share"
    if has_null(alignment):
        kind = permalink.choice(
            "Answers of",
            "answers",
            list(OF_ANSWERS),
            "share",
            format_func=lambda name: OF_ANSWERS[name][0],
            clears=POINT,
        )
    _, title, what = OF_ANSWERS[kind]
    st.markdown(f"**Where LatentLens's answers come from**: {what}")
    if has_null(alignment):
        tokens = int(alignment.select(pl.col("null_tokens").max()).item())
        st.caption(
            f"The null: the answers to states that mean nothing, those of up to {tokens:,} tokens of each layer, each "
            "with its dimensions in a random order of its own. Where the tokens' share is close to the null's, it says "
            "something about the index, not about the tokens."
            + ("" if kind == "share" else " Cells can be clicked where the answers of the tokens are shown.")
        )

    def picked(point: dict[str, Any]) -> None:
        if point["visual_layer"] != "all":
            pick(lens=LATENTLENS, layer=point["visual_layer"], context=point["contextual_layer"])

    point = current_point()
    chosen = None
    if point.keys() == {"lens", "layer", "context"}:
        chosen = {"visual_layer": str(point["layer"]), "contextual_layer": point["context"]}
    heat_map(
        alignment_cells(alignment),
        "contextual_layer",
        "visual_layer",
        kind,
        x_title="Contextual layer",
        y_title="Visual layer",
        title=title,
        order=[*map(str, study.visual_layers), "all"],
        signed=kind == "difference",
        notes={"share": "Tokens", "null_share": "Null"} if has_null(alignment) else {},
        clicks=Clicks(f"alignment-{kind}", picked, chosen) if kind == "share" else None,
    )
    return "all" if kind == "share" else None


def states(data: BrowserData, study: StudyFacts) -> str | None:
    """The norms of the states, and their drift from layer to layer."""
    found = statistics_of(data, study)
    if found.is_empty():
        st.info(NO_STATISTICS.format("norms of the states"))
        return None
    layered = found.filter(pl.col("source") != "connector").with_columns(
        pl.col("source").replace_strict(SOURCES, default=None), pl.col("layer").cast(pl.Int32)
    )
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**Norm of the states**: mean, and the band of 5 to 95 % of the tokens")
        lines(
            layered,
            "layer",
            "norm_mean",
            "source",
            x_title="Layer",
            y_title="Norm (log scale)",
            band=("norm_low", "norm_high"),
            number_format="~s",
            colors=SOURCE_COLORS,
            log_scale=True,
            notes={"norm_p99": "99 % are below", "norm_max": "Largest norm"} if "norm_max" in found.columns else {},
            clicks=layer_clicks("norms"),
        )
    with right:
        st.markdown("**Drift**: mean cosine of a visual token's state with its own state at another layer")
        lines(
            drift(found),
            "layer",
            "cosine",
            "with",
            y_title="Mean cosine",
            number_format=".2f",
            colors=DRIFT_COLORS,
            clicks=layer_clicks("drift"),
        )
    for row in found.filter(pl.col("source") == "connector").iter_rows(named=True):
        st.caption(
            f"The outputs of the connector have a mean norm of {row['norm_mean']:.3g}, and a mean cosine of "
            f"{row['cosine_to_first']:.2f} with layer {study.visual_layers[0]}."
        )
    return "all"


def drift(found: pl.DataFrame) -> pl.DataFrame:
    """The two cosines of each visual layer, one below the other."""
    names = {"cosine_to_previous": "the layer before", "cosine_to_first": "the first layer"}
    visual = found.filter(pl.col("source") == "visual").select("layer", *names)
    long = visual.unpivot(list(names), index="layer", variable_name="with", value_name="cosine")
    return long.with_columns(pl.col("with").replace(names)).drop_nulls("cosine")


def similarity(data: BrowserData, study: StudyFacts) -> str | None:
    """Histograms of the nearest answers' similarity, layer by layer."""
    lens = permalink.choice("Lens", "lens", study.lenses, study.lenses[0], format_func=lens_name)
    found = data.collect(study.name, "similarity_histogram", lens=lens)
    if found.is_empty():
        st.info("This lens has no answers here.")
        return None
    name = LENSES[lens].score.capitalize() if lens in LENSES else "Score"
    st.markdown(f"**{name} of the nearest answer**: share of each visual layer's tokens")

    def picked(point: dict[str, Any]) -> None:
        pick(lens=lens, layer=point["visual_layer"], low=point["low"], high=point["high"])

    point = current_point()
    chosen = None
    if point.get("lens") == lens and "low" in point:
        chosen = {"visual_layer": point.get("layer"), "low": point["low"], "high": point.get("high")}
    clicks = Clicks(f"histograms-{lens}", picked, chosen)
    histograms(found, "visual_layer", x_title=name, facet_title="Visual layer", clicks=clicks)
    return "all"


data = browser_data()
layers_page(data, choose_study(data))
