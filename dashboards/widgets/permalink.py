"""The address is the state: what one sees is what the query string says, so every view is a permalink.

Every run reads the address and writes it into the widgets; a widget that is changed writes the address. What a
newcomer gets wrong: two writes are two steps of the back button, so `go` takes all that changes together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")


def here(name: str, default: str | None = None) -> str | None:
    """What the address says of a name."""
    return st.query_params.get(name) or default


def number_here(name: str) -> int | None:
    """What the address says of a number; None where it says none."""
    text = here(name) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def go(**changes: object) -> None:
    """Change the address; None takes a name out of it."""
    merged = {**st.query_params.to_dict(), **changes}
    after = {name: str(value) for name, value in merged.items() if value not in (None, "")}
    if after != st.query_params.to_dict():
        st.query_params.from_dict(after)


def choice(
    label: str,
    name: str,
    options: Sequence[T],
    default: T,
    *,
    shown: Callable[[T], str] = str,
    wide: bool = False,
    leaves: Sequence[str] = (),
    **more: Any,
) -> T:
    """A choice that the address holds: buttons, or with `wide` a list to drop down; a change takes `leaves` out of it.

    An address that names no option gives the default.
    """
    texts = [str(option) for option in options]
    text = here(name, str(default))
    current = options[texts.index(text)] if text in texts else default
    key = f"choice-{name}"
    st.session_state[key] = current

    def changed() -> None:
        chosen = st.session_state[key]
        go(**{name: None if chosen == default else chosen, **dict.fromkeys(leaves)})

    if wide:
        chosen = st.selectbox(label, options, format_func=shown, key=key, on_change=changed, **more)
    else:
        chosen = st.segmented_control(
            label, options, format_func=shown, key=key, on_change=changed, required=True, **more
        )
    return current if chosen is None else chosen


def page(pages: int) -> int:
    """Which page of a gallery is shown, from 1; asks where there are several."""
    if pages == 1:
        return 1
    names = {number: f"page {number} of {pages}" for number in range(1, pages + 1)}
    how: dict[str, Any] = {"wide": True, "width": 140, "label_visibility": "collapsed"}
    return choice("Page", "page", tuple(names), 1, shown=names.__getitem__, **how)


def words(label: str, name: str, *, placeholder: str, **more: Any) -> str:
    """A field of text that the address holds."""
    key = f"words-{name}"
    st.session_state[key] = here(name, "")

    def changed() -> None:
        go(**{name: st.session_state[key].strip()})

    return st.text_input(label, key=key, on_change=changed, placeholder=placeholder, **more) or ""


def switch(label: str, name: str, default: bool = True, **more: Any) -> bool:
    """A switch that the address holds, as `yes` or `no` where it is not as by default."""
    key = f"switch-{name}"
    st.session_state[key] = here(name, "yes" if default else "no") == "yes"

    def changed() -> None:
        on = st.session_state[key]
        go(**{name: None if on == default else "yes" if on else "no"})

    return st.toggle(label, key=key, on_change=changed, **more)


def several(label: str, name: str, options: Sequence[T], **more: Any) -> list[T]:
    """Any of some options that the address holds, with commas between them; all where it names none."""
    wanted = set((here(name) or "").split(","))
    key = f"several-{name}"
    current = [option for option in options if str(option) in wanted]
    st.session_state[key] = current

    def changed() -> None:
        go(**{name: ",".join(str(option) for option in options if option in st.session_state[key])})

    st.pills(label, options, selection_mode="multi", key=key, on_change=changed, **more)
    return current or list(options)
