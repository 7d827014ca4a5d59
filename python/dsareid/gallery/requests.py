"""Requests to the page of a gallery: guarded, of bounded size, and their fields as Python values."""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsareid.ground.errors import DSAError

MOST_BYTES = 16 << 20  # of a picture
_FIELDS = 1 << 16  # bytes of the other fields
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


def guarded(answer: Handler, password: str | None) -> Handler:
    """An answer behind the password; what goes wrong is a page that says so, and nothing is stored."""

    async def answered(request: Request) -> Response:
        if password is not None and not _knows(request, password):
            headers = {"www-authenticate": 'Basic realm="gallery", charset="UTF-8"', **_HEADERS}
            return PlainTextResponse("The password is missing or wrong.", 401, headers)
        # A form of another site must not ask in this one's name.
        site = request.headers.get("sec-fetch-site", "same-origin")
        if request.method == "POST" and site not in ("same-origin", "none"):
            return PlainTextResponse("Not from another site.", 403, _HEADERS)
        try:
            response = await answer(request)
        except DSAError as error:
            response = PlainTextResponse(str(error), 400)
        except _TooLarge:
            response = PlainTextResponse(f"A picture may have {MOST_BYTES >> 20} MB at most.", 413)
        response.headers.update(_HEADERS)
        return response

    return answered


def _knows(request: Request, password: str) -> bool:
    kind, _, content = request.headers.get("authorization", "").partition(" ")
    try:
        _, _, given = base64.b64decode(content, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return kind.lower() == "basic" and secrets.compare_digest(given, password.encode())


class _TooLarge(Exception):
    pass


class Bounded:
    """Ends requests whose body is too large, whatever they say of its length."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BYTES + _FIELDS:
                raise _TooLarge
            return message

        await self.app(scope, bounded, send)


async def read_form(request: Request) -> FormData:
    """The fields of a form, one of them a file."""
    return await request.form(max_files=1, max_fields=1000, max_part_size=_FIELDS)


async def uploaded(form: FormData) -> tuple[str, bytes] | None:
    """The name and content of the picture in a form; it is closed, so nothing of it stays."""
    upload = form.get("picture")
    if not isinstance(upload, UploadFile):
        return None
    try:
        content = await upload.read()
    finally:
        await upload.close()
    if len(content) > MOST_BYTES:
        raise _TooLarge
    return (Path(upload.filename or "the picture").name, content) if content else None


def text_in(form: FormData, name: str) -> str:
    """The text of a field; "" if it is missing."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def words_in(form: FormData, name: str) -> list[str]:
    """The words of a field, between commas."""
    return [word for word in map(str.strip, text_in(form, name).split(",")) if word]


def whole_number_in(form: FormData, name: str, default: int, most: int) -> int:
    """The number in a field, the default if it is empty. DSAError if it is none from 1 to `most`."""
    text = text_in(form, name)
    if text and not (text.isdecimal() and len(text) < 6 and 1 <= int(text) <= most):
        raise DSAError(f"{name} must be a whole number from 1 to {most}, not {text[:20]!r}")
    return int(text) if text else default


def number_in(text: str, name: str) -> float:
    """The number in a text. DSAError if it is none."""
    try:
        return float(text)
    except ValueError as error:
        raise DSAError(f"{name} must be a number, not {text[:20]!r}") from error
