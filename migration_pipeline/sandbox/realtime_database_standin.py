"""A stand-in for Firebase's Realtime Database: its REST protocol, in memory, without streaming and without rules.

`python -m migration_pipeline.sandbox.realtime_database_standin PORT` listens on 127.0.0.1 only. Each request is
handled in one turn of the event loop, so it is atomic. Namespaces (`?ns=`) are databases of their own.
"""

import json
import random
import sys
import time
from collections import defaultdict

from aiohttp import web

from migration_pipeline.sandbox.realtime_tree import InvalidData, Json, Tree, check_path, etag, select, shown

_MOST_BYTES = 256 * 1024 * 1024  # of one write: Firebase's "Realtime Database limits"
_SUFFIX = ".json"
_QUERY = {"orderBy", "equalTo", "startAt", "endAt", "limitToFirst", "limitToLast"}
_PUSH_CHARACTERS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"


class Service:
    """The REST calls, over the trees."""

    def __init__(self) -> None:
        self._trees: dict[str, Tree] = defaultdict(Tree)

    async def answer(self, request: web.Request) -> web.Response:
        """One request of any method."""
        # Read first: from here on nothing waits, and no other request comes in between.
        text = await request.text()
        try:
            return self._answer(request, text)
        except InvalidData as error:
            return _json({"error": str(error)}, status=400)

    def _answer(self, request: web.Request, text: str) -> web.Response:
        if not request.path.endswith(_SUFFIX):
            return _json({"error": "append .json to your request URL to use the REST API"}, status=404)
        path = _segments(request.path.removesuffix(_SUFFIX))
        check_path(path)
        tree = self._trees[request.query.get("ns") or request.host.split(".")[0]]
        method = request.headers.get("X-HTTP-Method-Override", request.method)
        condition = request.headers.get("if-match")
        if condition is not None:
            if method not in ("PUT", "DELETE"):
                raise InvalidData("if-match is not supported for this method")
            if condition != etag(tree.get(path)):
                return _json(shown(tree.get(path)), status=412, etag=etag(tree.get(path)))
        if method == "GET":
            return _read(request, tree.get(path))
        said = _write(tree, path, method, text)
        wants_etag = condition is not None or _asks_for_etag(request)
        return _written(request, said, etag(tree.get(path)) if wants_etag else None)


def _write(tree: Tree, path: tuple[str, ...], method: str, text: str) -> Json:
    """Change the tree, and return what the answer says."""
    match method:
        case "PUT":
            tree.write({path: _parsed(text)})
            return shown(tree.get(path))
        case "DELETE":
            tree.write({path: None})
            return None
        case "PATCH":
            changes = _parsed(text)
            if not isinstance(changes, dict):
                raise InvalidData("Invalid data; couldn't parse JSON object")
            tree.write({(*path, *_segments(key)): value for key, value in changes.items()})
            return changes
        case "POST":
            key = _push_key()
            tree.write({(*path, key): _parsed(text)})
            return {"name": key}
        case _:
            raise InvalidData("Method not supported")


def _read(request: web.Request, node: Json) -> web.Response:
    tag, query = etag(node), request.query
    if request.headers.get("if-none-match") == tag:
        return web.Response(status=304, headers={"ETag": tag})
    if query.get("shallow") == "true":
        if _QUERY & set(query):
            raise InvalidData("Mixing 'shallow' and querying parameters is not supported")
        return _json(dict.fromkeys(node, True) if isinstance(node, dict) else node)
    if _QUERY & set(query):
        found = select(node, query)
        # A query's answer stays an object, its children may be arrays.
        return _json({key: shown(child) for key, child in found.items()} if isinstance(found, dict) else found)
    asked = _asks_for_etag(request) or "if-none-match" in request.headers
    return _json(shown(node), etag=tag if asked else None)


def _written(request: web.Request, said: Json, tag: str | None) -> web.Response:
    if request.query.get("print") == "silent":
        return web.Response(status=204, headers={"ETag": tag} if tag else {})
    return _json(said, etag=tag)


def _segments(path: str) -> tuple[str, ...]:
    return tuple(segment for segment in path.split("/") if segment)


def _asks_for_etag(request: web.Request) -> bool:
    return request.headers.get("X-Firebase-ETag", "").lower() == "true"


def _parsed(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidData("Invalid data; couldn't parse JSON object, array, or value.") from None


def _json(value: Json, *, status: int = 200, etag: str | None = None) -> web.Response:
    return web.Response(
        text=json.dumps(value, ensure_ascii=False),
        status=status,
        content_type="application/json",
        headers={"ETag": etag} if etag else {},
    )


def _push_key() -> str:
    """Ascending with time: 48 bits of milliseconds and 72 random ones, six bits a character."""
    now, digits = time.time_ns() // 1_000_000, ""
    for _ in range(8):
        now, digit = divmod(now, 64)
        digits = _PUSH_CHARACTERS[digit] + digits
    return digits + "".join(random.choices(_PUSH_CHARACTERS, k=12))  # noqa: S311 - names, not secrets


def application() -> web.Application:
    """The server's application."""
    app = web.Application(client_max_size=_MOST_BYTES)
    app.router.add_route("*", "/{path:.*}", Service().answer)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
