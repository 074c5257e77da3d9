"""Results of methods, cached in the object that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from threading import Lock
from typing import Any, TypeVar, cast

from cachetools import LRUCache, cachedmethod
from cachetools.keys import hashkey

Method = TypeVar("Method", bound=Callable[..., Any])


class MethodCache:
    """A base for objects that keep the last results of their `cached` methods; may be used by several threads."""

    def __init__(self, results: int) -> None:
        """Keep so many results of all its methods together."""
        self.cache: LRUCache[Any, Any] = LRUCache(results)
        self.cache_lock = Lock()


def cached(method: Method) -> Method:
    """Let a method of a `MethodCache` compute each result once; its arguments must be hashable.

    An error is not cached. Two threads may compute the same result, rather than wait for each other.
    """
    key = lambda _, *values, **named: hashkey(method.__name__, *values, **named)  # noqa: E731
    decorate = cachedmethod(attrgetter("cache"), key, attrgetter("cache_lock"))
    return cast(Method, decorate(method))
