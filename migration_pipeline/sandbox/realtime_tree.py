"""The Realtime Database's data: one tree of JSON, with its rules for keys, arrays, empty nodes and order.

Rules as in Firebase's "Structure Your Database", "Retrieving Data" (ordering) and the REST reference.
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Json = Any
"""Whatever JSON can hold."""

_BAD_KEY = re.compile(r"[.#$/\[\]\x00-\x1f\x7f]")
_MAX_KEY_BYTES = 768
_MAX_INTEGER_KEY = 2**31


class InvalidData(ValueError):  # noqa: N818 - named as the server's answer
    """The database refuses this value, path or query."""


class Tree:
    """One namespace's data. Objects only: arrays are objects with integer keys, and show as arrays again."""

    def __init__(self) -> None:
        self._root: Json = None

    def get(self, path: Sequence[str]) -> Json:
        """The node as it is stored, `None` where there is none."""
        node = self._root
        for segment in path:
            if not isinstance(node, dict):
                return None
            node = node.get(segment)
        return node

    def write(self, changes: Mapping[tuple[str, ...], Json]) -> None:
        """Set all these nodes, or none where one value is invalid. `None` removes a node.

        Raises:
            InvalidData: a key or value that the database refuses, or one path inside another.
        """
        paths = sorted(changes)
        for path, other in pairwise(paths):
            if other[: len(path)] == path:
                raise InvalidData(f"Path '{'/'.join(path)}' is an ancestor of '{'/'.join(other)}'")
        for path in paths:
            check_path(path)
        stored = {path: _stored(value, self.get(path)) for path, value in changes.items()}
        for path, value in stored.items():
            self._root = _with(self._root, path, value)


def check_path(path: Sequence[str]) -> None:
    """Refuse keys that no node can have.

    Raises:
        InvalidData: naming the key.
    """
    for key in path:
        if _BAD_KEY.search(key) or not key or len(key.encode()) > _MAX_KEY_BYTES:
            raise InvalidData(f"Invalid key name: {key!r}")


def shown(node: Json) -> Json:
    """The node as clients see it.

    An object becomes an array where all keys are integers and the largest is below twice their number, as
    Firebase's clients do it; children come in key order.
    """
    if not isinstance(node, dict):
        return node
    numbers = [int(key) for key in node if _is_integer(key)]
    if len(numbers) == len(node) and min(numbers) >= 0 and max(numbers) < 2 * len(node):
        return [shown(node.get(str(number))) for number in range(max(numbers) + 1)]
    return {key: shown(node[key]) for key in sorted(node, key=key_order)}


def etag(node: Json) -> str:
    """Equal for equal data; a missing node has one of its own."""
    if node is None:
        return "null_etag"
    digest = hashlib.sha256(json.dumps(node, sort_keys=True).encode()).digest()
    return base64.b64encode(digest[:20]).decode()


def key_order(key: str) -> tuple[int, int, str]:
    """Keys that are 32-bit integers first, by number; the others by text."""
    return (0, int(key), "") if _is_integer(key) else (1, 0, key)


def select(node: Json, query: Mapping[str, str]) -> Json:
    """The children that a query asks for.

    Raises:
        InvalidData: the query is not one.
    """
    if not isinstance(node, dict):
        return node
    try:
        order_by = json.loads(query["orderBy"])
        bounds = {name: json.loads(query[name]) for name in ("equalTo", "startAt", "endAt") if name in query}
        limits = {name: int(query[name]) for name in ("limitToFirst", "limitToLast") if name in query}
    except (KeyError, ValueError):
        raise InvalidData("orderBy must be defined when other query parameters are defined, as valid JSON") from None
    if not isinstance(order_by, str):
        raise InvalidData("orderBy must be a valid JSON encoded path")
    rank, bound = _ranks(order_by)
    chosen = sorted(node, key=lambda key: (rank(key, node[key]), key_order(key)))
    if "equalTo" in bounds:
        chosen = [key for key in chosen if rank(key, node[key]) == bound(bounds["equalTo"])]
    if "startAt" in bounds:
        chosen = [key for key in chosen if rank(key, node[key]) >= bound(bounds["startAt"])]
    if "endAt" in bounds:
        chosen = [key for key in chosen if rank(key, node[key]) <= bound(bounds["endAt"])]
    if "limitToFirst" in limits:
        chosen = chosen[: limits["limitToFirst"]]
    if "limitToLast" in limits:
        chosen = chosen[-limits["limitToLast"] :]
    return {key: node[key] for key in chosen} or None


def _ranks(order_by: str) -> tuple[Callable[[str, Json], Any], Callable[[Json], Any]]:
    """How a child ranks, and how a bound does."""
    if order_by == "$key":
        return (lambda key, _: key_order(key)), (lambda bound: key_order(str(bound)))
    if order_by == "$value":
        return (lambda _, value: _value_order(value)), _value_order
    path = [segment for segment in order_by.split("/") if segment]

    def rank(_: str, value: Json) -> Any:  # noqa: ANN401 - of whatever kind the value is
        for segment in path:
            value = value.get(segment) if isinstance(value, dict) else None
        return _value_order(value)

    return rank, _value_order


def _value_order(value: Json) -> tuple[int, Any]:
    """Missing, false, true, numbers, texts, objects."""
    if isinstance(value, bool):
        return (2 if value else 1, 0)
    if isinstance(value, int | float):
        return (3, value)
    if isinstance(value, str):
        return (4, value)
    return (0, 0) if value is None else (5, 0)


def _is_integer(key: str) -> bool:
    return re.fullmatch(r"0|-?[1-9]\d{0,9}", key) is not None and abs(int(key)) < _MAX_INTEGER_KEY


def _stored(value: Json, old: Json) -> Json:
    """As stored: arrays as objects, nothing empty, server values filled in."""
    if isinstance(value, list):
        value = {str(number): item for number, item in enumerate(value)}
    if not isinstance(value, dict):
        return value
    if ".sv" in value:
        return _server_value(value[".sv"], old)
    inside = old if isinstance(old, dict) else {}
    for key in value:
        check_path([key])
    stored = {key: _stored(item, inside.get(key)) for key, item in value.items()}
    return {key: item for key, item in stored.items() if item is not None} or None


def _server_value(asked: Json, old: Json) -> Json:
    if asked == "timestamp":
        return time.time_ns() // 1_000_000
    if isinstance(asked, dict) and isinstance(asked.get("increment"), int | float):
        number = old if isinstance(old, int | float) and not isinstance(old, bool) else 0
        return number + asked["increment"]
    raise InvalidData("Invalid server value")


def _with(node: Json, path: Sequence[str], value: Json) -> Json:
    """The node with one descendant set; parents left without children vanish."""
    if not path:
        return value
    children = dict(node) if isinstance(node, dict) else {}
    child = _with(children.pop(path[0], None), path[1:], value)
    if child is None and not isinstance(node, dict):
        # Removing what is not there leaves a plain value in its place.
        return node
    if child is not None:
        children[path[0]] = child
    return children or None
