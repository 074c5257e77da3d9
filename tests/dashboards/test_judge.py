"""The page Judge, run without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.browse.judging import item_answers
from latentlens_dag.dataset.human_judgements import HumanJudgement, JudgingFolder
from tests.dashboards.test_pages import APP, _html, _opened
from tests.helpers.small_dataset import LAYERS, image_id


@pytest.fixture
def own(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, which the pages open."""
    copied = tmp_path / "home"
    shutil.copytree(home, copied, ignore=shutil.ignore_patterns("judging"))
    monkeypatch.setenv("LATENTLENS_BROWSE", str(copied))
    monkeypatch.syspath_prepend(str(APP.parent))
    return copied


def _judge(**params: str) -> AppTest:
    return _opened(AppTest.from_file(str(APP), default_timeout=30), "judge", study="one", **params)


def _press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def _kept(home: Path) -> list[HumanJudgement]:
    return JudgingFolder(home / "judging").read("one").judgements


def test_the_page_says_first_what_the_verdicts_mean(own: Path) -> None:
    shown = " ".join(one.value for one in _judge().markdown)
    assert "**Concrete**: a word names what one sees in the crop." in shown and "**None**" in shown
    assert not (own / "judging").exists()


def test_nothing_on_the_page_tells_lens_layer_image_or_verdict(own: Path) -> None:
    for item in range(1, 9):
        app = _judge(person="ab", item=str(item))
        texts = [one.value for kind in (app.markdown, app.caption, app.info) for one in kind]
        shown = (_html(app).partition('<div class="ll-seen">')[2] + " ".join(texts)).lower()
        for told in ("latentlens", "logitlens", "embeddinglens", ".png", "cosine", "judged concrete", " layer 8"):
            assert told not in shown
        assert '<p class="ll-sentence"' not in shown and "ll-outline" in shown


def test_each_verdict_is_one_line_in_the_persons_file_and_the_next_item_comes(own: Path) -> None:
    app = _judge(person="AB")
    for verdict in ("Concrete", "Abstract", "Global", "None"):
        _press(app, verdict)
    assert app.query_params["item"] == ["5"] or app.query_params["item"] == "5"
    assert [(one.person, one.verdict) for one in _kept(own)] == [
        ("ab", verdict) for verdict in ("concrete", "abstract", "global", "none")
    ]
    assert {(one.lens, one.visual_layer) for one in _kept(own)} <= {
        (lens, layer) for lens in ("latentlens", "logitlens", "embeddinglens") for layer in LAYERS
    }
    again = _judge(person="ab")  # another window goes on where this one is
    assert "Item 5 of 20; 4 judged by ab" in again.get("progress")[0].proto.text


def test_going_back_and_choosing_again_replaces_a_judgement_and_skipping_takes_it_back(own: Path) -> None:
    app = _judge(person="ab")
    _press(_press(_press(app, "None"), "Back"), "Concrete")
    _press(_press(app, "Back"), "Withdraw")
    _press(app, "Skip")
    assert [one.verdict for one in _kept(own)] == ["none", "concrete", "skipped", "skipped"]
    assert len({one.item for one in _kept(own)[:3]}) == 1
    assert "Item 3 of 20; 0 judged by ab" in app.get("progress")[0].proto.text


def test_a_key_that_is_pressed_again_while_the_next_item_is_drawn_judges_neither(own: Path) -> None:
    app = _judge(person="ab")
    _press(app, "Concrete")
    app.query_params["item"] = "1"
    app.run()
    stale = next(button for button in app.button if button.label == "None")
    app.query_params["item"] = "2"  # the address is that of the next item, and the button still that of the first
    stale.click().run()
    assert [one.verdict for one in _kept(own)] == ["concrete"]


@pytest.mark.parametrize(("label", "item"), [("Back", 4), ("Next", 6)])
def test_back_and_next_go_one_from_the_item_of_the_address_also_while_it_is_drawn(
    own: Path, label: str, item: int
) -> None:
    app = _judge(person="ab")
    _press(_press(_press(app, "Concrete"), "Concrete"), "Back")
    button = next(button for button in app.button if button.label == label)
    app.query_params["item"] = "5"  # the button is still that of the second
    button.click().run()
    assert f"Item {item} of 20" in app.get("progress")[0].proto.text


def test_another_person_or_another_sample_begins_at_its_beginning(own: Path) -> None:
    app = _press(_press(_judge(person="ab"), "Concrete"), "None")
    next(field for field in app.text_input if field.label == "Your initials").set_value("cd").run()
    assert "Item 1 of 20; 0 judged by cd" in app.get("progress")[0].proto.text
    _press(app, "Concrete")
    next(field for field in app.text_input if field.label == "Seed").set_value("8").run()
    assert "Item 1 of 20" in app.get("progress")[0].proto.text


def test_two_people_see_the_same_items_and_their_agreement(own: Path) -> None:
    apps = {person: _judge(person=person) for person in ("ab", "cd")}
    for verdicts in (("Concrete", "Concrete"), ("None", "None"), ("Global", "None")):
        for app, verdict in zip(apps.values(), verdicts, strict=True):
            _press(app, verdict)
    mine, theirs = ([one.item for one in _kept(own) if one.person == person] for person in apps)
    assert mine == theirs
    shown = _judge(show="agreement")
    pairs = shown.dataframe[0].value
    assert list(zip(pairs["one"], pairs["other"], strict=True)) == [
        ("ab", "cd"),
        ("ab", "regions (machine)"),
        ("cd", "regions (machine)"),
    ]
    assert pairs["common"].tolist() == [3, 3, 3] and pairs["percent"][0] == pytest.approx(200 / 3)
    # Of three items: one said concrete, none, global; the other concrete, none, none: (2/3 - 3/9) / (1 - 3/9).
    assert pairs["kappa"][0] == pytest.approx(0.5)


def test_the_words_that_were_shown_are_kept_with_the_judgement(own: Path) -> None:
    from latentlens_dag.browse.browser_data import open_browser_data

    _press(_judge(person="ab", lens="latentlens", layers="8"), "None")
    (kept,) = _kept(own)
    assert kept.sentences and kept.lens == "latentlens" and kept.visual_layer == 8
    words = [row["word"] for row in item_answers(open_browser_data(own), "one", kept.item)]
    assert list(kept.answers) == words


def test_a_sentence_with_markup_is_text_here_too(own: Path) -> None:
    shown = ""
    for item in range(1, 17):
        shown += _html(_judge(person="ab", lens="latentlens", layers="8", item=str(item)))
    assert "&lt;img src=x onerror" in shown and "<img src=x" not in shown


def test_a_name_that_leads_elsewhere_is_one_message(own: Path) -> None:
    app = _judge(person="../../x")
    assert "cannot be used as a name" in app.error[0].value and not app.exception
    assert not (own / "judging").exists()


@pytest.mark.parametrize("source", ["catalog", "in the way"])
def test_where_nothing_can_be_kept_the_page_says_so_and_offers_the_judgements_as_a_file(
    own: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "catalog":
        monkeypatch.setenv("LATENTLENS_BROWSE", str(own / "warehouse" / "study" / "one" / "catalog.duckdb"))
    else:
        (own / "judging").write_text("a file")
    app = _press(_judge(person="ab"), "Concrete")
    assert "as long as this page is open" in app.warning[0].value
    assert any("Judgements of this session: CSV" in one.label for one in app.get("download_button"))
    next(group for group in app.button_group if group.label == "Show").set_value("agreement").run()
    assert app.dataframe[0].value["other"].tolist() == ["regions (machine)"]
    assert not list(own.rglob("*.jsonl"))


def test_an_item_that_is_not_there_ends_the_sample(own: Path) -> None:
    assert "0 of 20 items judged" in _judge(person="ab", item="99").success[0].value
    assert image_id("dog") not in _html(_judge(person="ab"))
