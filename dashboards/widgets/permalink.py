"""The address is the state: the query string says what a page shows, so every view is a permalink.

Every run reads the address and writes it into the widgets; a widget that is changed writes the address. Note: each
write is one step of the back button, so pass all changes that belong together to one `update`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import streamlit as st

from widgets.labels import escape_markdown

T = TypeVar("T")
EXPLORE = Path(__file__).parents[1] / "app_pages" / "explore.py"


def get(name: str, default: str | None = None) -> str | None:
    """The value of a name in the address."""
    return st.query_params.get(name) or default


def get_int(name: str) -> int | None:
    """The value of a name as a number; None if it is not one."""
    text = get(name) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def update(**changes: object) -> None:
    """Change the address; None or an empty text removes a name."""
    merged = {**st.query_params.to_dict(), **changes}
    after = {name: str(value) for name, value in merged.items() if value not in (None, "")}
    if after != st.query_params.to_dict():
        st.query_params.from_dict(after)


def open_in_explore(**changes: str | None) -> None:
    """Go to the page Explore, with this page's address and some changes; None removes a name.

    Streamlit goes there by a step on this page with the new address, to which the back button leads first: with the
    old address in it, too, that step shows what this page shows now.
    """
    merged = {**st.query_params.to_dict(), **changes}
    st.switch_page(EXPLORE, query_params={name: value for name, value in merged.items() if value is not None})


def choice(
    label: str,
    name: str,
    options: Sequence[T],
    default: T,
    *,
    format_func: Callable[[T], str] = str,
    dropdown: bool = False,
    width: int | None = None,
    label_visibility: Literal["visible", "hidden", "collapsed"] = "visible",
    clears: Sequence[str] = (),
) -> T:
    """A choice that the address holds, as buttons or as a `dropdown`; a change also removes `clears` from the address.

    An address that names no option gives the default. `width` is in pixels.
    """
    texts = [str(option) for option in options]
    text = get(name, str(default))
    current = options[texts.index(text)] if text in texts else default
    key = f"choice-{name}"
    st.session_state[key] = current

    def changed() -> None:
        chosen = st.session_state[key]
        update(**{name: None if chosen == default else chosen, **dict.fromkeys(clears)})

    looks: dict[str, Any] = {"label_visibility": label_visibility} | ({"width": width} if width else {})
    if dropdown:
        chosen = st.selectbox(label, options, format_func=format_func, key=key, on_change=changed, **looks)
    else:
        chosen = st.segmented_control(
            label, options, format_func=format_func, key=key, on_change=changed, required=True, **looks
        )
    return current if chosen is None else chosen


def page(pages: int) -> int:
    """The page of a gallery, from 1; asks if there are several."""
    if pages == 1:
        return 1
    return choice(
        "Page",
        "page",
        range(1, pages + 1),
        1,
        format_func=lambda number: f"page {number} of {pages}",
        dropdown=True,
        width=140,
        label_visibility="collapsed",
    )


def text_input(label: str, name: str, *, placeholder: str, width: int, max_chars: int | None = None) -> str:
    """A field of text that the address holds."""
    key = f"words-{name}"
    st.session_state[key] = get(name, "")

    def changed() -> None:
        update(**{name: st.session_state[key].strip()})

    field = st.text_input(label, key=key, on_change=changed, placeholder=placeholder, width=width, max_chars=max_chars)
    return field or ""


def toggle(label: str, name: str) -> bool:
    """A switch, on unless the address says `no`."""
    key = f"switch-{name}"
    st.session_state[key] = get(name, "yes") == "yes"

    def changed() -> None:
        update(**{name: None if st.session_state[key] else "no"})

    return st.toggle(label, key=key, on_change=changed)


def multi_choice(label: str, name: str, options: Sequence[T]) -> list[T]:
    """Any of some options that the address holds, comma-separated; all of them if it names none."""
    wanted = set((get(name) or "").split(","))
    key = f"several-{name}"
    current = [option for option in options if str(option) in wanted]
    st.session_state[key] = current

    def changed() -> None:
        update(**{name: ",".join(str(option) for option in options if option in st.session_state[key])})

    st.pills(
        label,
        options,
        selection_mode="multi",
        key=key,
        on_change=changed,
        format_func=lambda option: escape_markdown(str(option)),
    )
    return current or list(options)
