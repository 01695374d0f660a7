"""The app's pages and its three requests: ask for a ticket, upload to the store with it, and tell that it is done."""

import base64
import binascii
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, abort, jsonify, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from examples.photo_app.photos import Photos
from migration_pipeline.uploads import NotConfirmed, Refused, StoreTrouble, Uploads, Wish

View = TypeVar("View", bound=Callable[..., Any])

_LARGEST_REQUEST = 64 * 1024  # files go to the store, never through the app
_RETRY_SECONDS = "2"


def create_app(uploads: Uploads, photos: Photos, *, secret: str) -> Flask:
    """The app.

    Args:
        uploads: issues tickets and confirms uploads.
        photos: the profiles' rows.
        secret: signs the cookie that says who is signed in.
    """
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secret,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        MAX_CONTENT_LENGTH=_LARGEST_REQUEST,
    )
    app.before_request(_refuse_foreign_pages)
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(StoreTrouble, _in_trouble)
    _add_pages(app, uploads, photos)
    _add_uploading(app, uploads, photos)
    return app


def _add_pages(app: Flask, uploads: Uploads, photos: Photos) -> None:
    @app.get("/")
    def home() -> str | Response:
        if "profile" not in session:
            return render_template("sign_in.html")
        return render_template("photos.html", profile=session["profile"], photos=photos.of(session["profile"]) or [])

    @app.post("/sign-in")
    def sign_in() -> Response:
        """An example needs no password; yours does."""
        profile = request.form.get("profile", "")
        if photos.of(profile) is None:
            abort(404)
        session["profile"] = profile
        return redirect(url_for("home"))

    @app.get("/photos/<photo_id>/file")
    @signed_in
    def file(profile: str, photo_id: str) -> Response:
        """The file itself, also where the public may not read the store."""
        reference = photos.reference(profile, photo_id)
        if reference is None:
            abort(404)
        return redirect(uploads.download_url(reference))


def _add_uploading(app: Flask, uploads: Uploads, photos: Photos) -> None:
    @app.post("/tickets")
    @signed_in
    def tickets(profile: str) -> Response:
        """What the page uploads one file with."""
        wish = _wish(_json())
        # The page does as the ticket says: so it need not know which store it is, nor when that changes.
        form = uploads.form_ticket(profile, wish) if _json().get("by") == "form" else None
        return jsonify((form or uploads.put_ticket(profile, wish)).as_json())

    @app.post("/photos")
    @signed_in
    def add(profile: str) -> tuple[Response, int]:
        """The page says that it has uploaded; the store is asked, and only then the reference is written."""
        reference = str(_json().get("reference", ""))
        try:
            confirmed = uploads.confirm(profile, reference)
        except NotConfirmed as reason:
            # Not where a row holds it already: a reference never loses its file.
            if reason.there and not photos.holds(profile, reference):
                uploads.discard(profile, reference)
            raise
        if not photos.add(profile, confirmed.reference):
            abort(404)
        return jsonify({"reference": confirmed.reference}), 201


def signed_in(view: View) -> View:
    """Give the view the profile that is signed in; 401 where none is."""

    @wraps(view)
    def with_profile(**arguments: str) -> Any:  # noqa: ANN401 - whatever the view gives
        if "profile" not in session:
            abort(401)
        return view(session["profile"], **arguments)

    return with_profile  # type: ignore[return-value] # the view without its first argument


def _refuse_foreign_pages() -> None:
    """Nobody else's page gets a ticket in the name of who is signed in here: browsers send `Origin` with every POST."""
    if request.method == "POST" and urlsplit(request.headers.get("Origin", "")).netloc != request.host:
        abort(403)


def _json() -> dict[str, Any]:
    body = request.get_json()
    return body if isinstance(body, dict) else abort(400)


def _wish(asked: dict[str, Any]) -> Wish:
    size, digest = asked.get("size"), asked.get("sha256")
    if not isinstance(size, int) or not isinstance(asked.get("content_type"), str):
        raise Refused("content_type and size must be said")
    try:
        sha256 = base64.b64decode(digest, validate=True) if digest else None
    except (binascii.Error, TypeError, ValueError):
        raise Refused("sha256 must be base64") from None
    return Wish(content_type=asked["content_type"], size=size, sha256=sha256)


def _refused(reason: Exception) -> tuple[Response, int]:
    return jsonify({"error": str(reason)}), 422


def _in_trouble(reason: Exception) -> tuple[Response, int, dict[str, str]]:
    return jsonify({"error": str(reason)}), 503, {"Retry-After": _RETRY_SECONDS}
