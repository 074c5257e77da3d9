"""What the demo can support and what not, in sentences that follow from its figures.

The model's card, the card of the demo's release and README have the same sentences; `tests/demo` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentlens_dag.demo.measure import FRESH, UNTRAINED
from latentlens_dag.inputs.regions import OBJECT
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.study.interpretability import ALL

Rows = Sequence[Mapping[str, Any]]


def support(shares: Rows, alignment: Rows, fresh: Mapping[str, Any], object_accuracy: float) -> list[str]:
    """The sentences, in order.

    Args:
        shares: INTERPRETABILITY of the demo study.
        alignment: LAYER_ALIGNMENT of the demo study.
        fresh: what `measure` gave.
        object_accuracy: of the vision encoder by itself, on patches of held-out scenes, in 0..1.
    """
    trained, untrained = (fresh[study][LATENTLENS][ALL] for study in (FRESH, UNTRAINED))
    return [
        f"What is read was learned: on {fresh['scenes']} fresh scenes LatentLens has a concrete word for "
        f"{_percent(trained['mean'])} % of the patches, and for {_percent(untrained['mean'])} % with an untrained "
        f"connector (chance {_percent(untrained['mean_chance'])} %).",
        *_leap(alignment),
        f"The connector is lexical: before the first block EmbeddingLens has a concrete word for "
        f"{_percent(_first_layer(shares))} % of the patches on objects, so what the connector gives lies near the "
        "embeddings of the right words.",
        f"The vision encoder was trained with labels of the patches; by itself it names {_percent(object_accuracy)} % "
        "of those on objects.",
        "So the demo shows that the method finds what is there, and compares lenses in this model; it says nothing on "
        "models whose encoder never saw labels, or whose connector gives no words.",
    ]


def _leap(alignment: Rows) -> list[str]:
    of_layer = {(row["visual_layer"], row["contextual_layer"]): row for row in alignment}
    last = max(layer for layer, _ in of_layer)

    def percents(name: str) -> list[str]:
        shares = {place: row[name] for place, row in of_layer.items()}
        places = (shares[0, 1], shares[0, 2] + shares[0, 3], shares[last, 1], shares[last, last])
        return [_percent(share) for share in places]

    first, next_two, still, own = percents("share")
    null = percents("null_share")
    return [
        "There is no mid-layer leap to be seen, as the paper found it in large models: of the answers for visual "
        f"tokens at layer 0, {first} % come from contextual layer 1 and {next_two} % from the layers 2 and 3 (of those "
        f"to states that mean nothing, {null[0]} and {null[1]} %); at layer {last} still {still} % come from layer 1, "
        f"and {own} % from layer {last} ({null[2]} and {null[3]} %)."
    ]


def _first_layer(shares: Rows) -> float:
    most = max(row["k"] for row in shares)
    place = {"visual_layer": 0, "lens": "embeddinglens", "patch_group": OBJECT, "measure": "concrete", "k": most}
    (share,) = [row["share"] for row in shares if all(row[name] == value for name, value in place.items())]
    return float(share)


def choices_table(figures: Mapping[str, Any]) -> str:
    """Markdown: a row for each of `measure.CHOICES`, from what `measure_choices` gave; % and, in brackets, chance."""
    lines = [
        "| contexts per token | `unique` | all patches: interpretable | on objects: interpretable | concrete "
        "| distinct words |",
        "|---|---|---|---|---|---|",
    ]
    for row in figures["choices"]:
        cells = [
            _with_chance(row[group], measure)
            for group, measure in ((ALL, "interpretable"), (OBJECT, "interpretable"), (OBJECT, "concrete"))
        ]
        head = f"| {row['contexts_per_token']} | {row['unique']} |"
        lines.append(f"{head} {' | '.join(cells)} | {row['distinct_words']:.2f} |")
    return "\n".join(lines)


def _with_chance(figures: Mapping[str, float], measure: str) -> str:
    return f"{_percent(figures[measure])} ({_percent(figures[f'{measure}_chance'])})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
