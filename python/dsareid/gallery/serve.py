"""`dsareid gallery serve`: a page to search a gallery with, for people who would rather look.

Starlette serves it: it is small, needs no build step, and talks to nobody else. The page loads nothing from
elsewhere and says so to the browser (Content-Security-Policy), which would refuse to. Pictures that are
dropped on it are read by the same guarded reader as files, and are gone with the answer.
"""

import base64
import csv
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsareid.data.images import read_image, read_image_bytes
from dsareid.gallery.add import parse_time
from dsareid.gallery.page import (
    Panel,
    Query,
    Search,
    show_page,
    show_panel,
    show_results,
    usable_rates,
)
from dsareid.gallery.search import GalleryFilter, check_model, check_some, find_rows, format_time
from dsareid.gallery.store import GalleryStore
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.templates import read_resource
from dsareid.inference.calibrate import Judge
from dsareid.inference.embedder import Embedder, embed
from dsareid.inference.pixels import as_pixels
from dsareid.inference.settings import Facts

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import FormData
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    from dsareid.gallery.requests import (
        Bounded,
        Handler,
        guarded,
        number_in,
        read_form,
        text_in,
        uploaded,
        whole_number_in,
        words_in,
    )
except ImportError as error:
    raise DSAError(f'gallery serve needs starlette: pip install "dsareid[serve]" ({error})') from error

MOST_ROWS = 200  # of an answer
_FRESH = 60.0  # seconds for which the list of cameras is not made anew
_THUMB = 128, 256  # width and height in which a row's picture is shown, at most
_PACKAGE = "dsareid.gallery"
_LOCAL = "127.0.0.1", "localhost"
MakeMap = Callable[[np.ndarray], np.ndarray]
"""A picture, uint8 [h, w, 3], to its IUV map, uint8 [h, w, 3]."""


class GalleryPage:
    """The page of an open gallery.

    Args:
        store: the gallery.
        embedder: the network that made its vectors.
        calibration: a folder of features that was calibrated, or None.
        make_map: for part images; None: the page says how to see them.

    Raises:
        DSAError: the network or the calibration is of another model than the gallery.
    """

    def __init__(
        self,
        store: GalleryStore,
        embedder: Embedder,
        calibration: Path | None = None,
        make_map: MakeMap | None = None,
    ):
        check_model(store, embedder)
        self.store, self.embedder, self.make_map = store, embedder, make_map
        self.judge = Judge.of(embedder.model, calibration)
        self._lock = threading.Lock()  # one question at a time to the network
        self._cameras: tuple[float, list[str]] = (-1.0, [])

    def application(self, hosts: list[str], password: str | None) -> Starlette:
        """The page as an ASGI application.

        Args:
            hosts: the names by which a browser may ask for it; others are refused (DNS rebinding).
            password: that the browser asks for, with any user name; None: none.
        """
        answers: dict[str, tuple[str, Handler]] = {
            "/": ("GET", self._page),
            "/search": ("POST", self._search),
            "/export.csv": ("POST", self._export),
            "/picture/{key}": ("GET", self._picture),
            "/panel/{key}": ("POST", self._panel),
            "/page.css": ("GET", _static("page.css", "text/css")),
            "/page.js": ("GET", _static("page.js", "text/javascript")),
        }
        routes = [
            Route(path, guarded(answer, password), methods=[method])
            for path, (method, answer) in answers.items()
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(Bounded)],
        )

    # ---- answers ----

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(self._show))

    def _show(self) -> str:
        if time.monotonic() > self._cameras[0]:
            found = {row["camera"] for row in self.store.rows("", ["camera"])} - {None}
            self._cameras = time.monotonic() + _FRESH, sorted(found)
        rows, cameras = self.store.count(), self._cameras[1]
        return show_page(
            self.store.name, self.store.info, rows, cameras, usable_rates(self.judge.calibration)
        )

    async def _search(self, request: Request) -> Response:
        search = await self._ask(request)
        return HTMLResponse(show_results(search))

    async def _export(self, request: Request) -> Response:
        search = await self._ask(request)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["rank", "distance", "score", "identity", "camera", "time", "track", "tags", "file"])
        for rank, row in enumerate(search.found, 1):
            score = "" if row.score is None else f"{row.score:.4f}"
            when = "" if row.time is None else format_time(row.time)
            known = [row.identity or "", row.camera or "", when, row.track or "", ";".join(row.tags)]
            table.writerow([rank, f"{row.distance:.6f}", score, *map(_plain_cell, [*known, row.file])])
        headers = {"content-disposition": 'attachment; filename="found.csv"'}
        return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)

    async def _picture(self, request: Request) -> Response:
        row = await run_in_threadpool(self._row, request.path_params["key"])
        content = await run_in_threadpool(_thumbnail, read_image, row["file"])
        return Response(content, media_type="image/jpeg")

    async def _panel(self, request: Request) -> Response:
        form = await read_form(request)
        query = await run_in_threadpool(self._query, form, await uploaded(form))
        row = await run_in_threadpool(self._row, request.path_params["key"])
        return HTMLResponse(await run_in_threadpool(self._show_panel, query, row))

    # ---- the work behind them ----

    async def _ask(self, request: Request) -> Search:
        form = await read_form(request)
        return await run_in_threadpool(self._find, form, await uploaded(form))

    def _find(self, form: FormData, upload: tuple[str, bytes] | None) -> Search:
        query = self._query(form, upload)
        count = whole_number_in(form, "count", 24, MOST_ROWS)
        only = GalleryFilter(
            cameras=[str(word) for word in form.getlist("camera")],
            people=words_in(form, "person"),
            tracks=words_in(form, "track"),
            tags=words_in(form, "tag"),
            after=parse_time(text_in(form, "after"), "after"),
            before=parse_time(text_in(form, "before"), "before"),
        )
        rate = text_in(form, "rate")
        judge = self.judge.within(number_in(rate, "rate") if rate else None)
        where = only.expression()
        check_some(self.store, where)
        wanted = count + bool(query.key)  # which finds itself
        found, beyond = find_rows(self.store, query.vector, wanted, where, judge, {})
        kept = [row for row in found if row.key != query.key][:count]
        doubt = judge.doubt([query.mean, *(row.mean for row in [*kept, beyond] if row)])
        return Search(query, kept, judge.limit, beyond, f"The calibration was {doubt}." if doubt else "")

    def _query(self, form: FormData, upload: tuple[str, bytes] | None) -> Query:
        """What is searched for: a row of the gallery, or the picture that was dropped."""
        if key := text_in(form, "key"):
            row = self._row(key)
            name, source = Path(row["file"]).name, f"picture/{key}"
            return Query(name, row["vector"], source, key, row["identity"], mean=row["mean"])
        if upload is None:
            raise DSAError("Drop a picture on the page first.")
        name, content = upload
        pixels = read_image_bytes(content, name)
        settings = self.embedder.settings
        with self._lock:
            vector = self.embedder([as_pixels(pixels, settings.height, settings.width)]).numpy()[0]
            empty = self.make_map is not None and not self.make_map(pixels)[..., 0].any()
        note = "Nobody is seen in this picture: what is found says nothing." if empty else ""
        shown = base64.b64encode(_thumbnail(lambda _: pixels, name)).decode()
        return Query(name, vector, f"data:image/jpeg;base64,{shown}", "", None, pixels, note)

    def _row(self, key: str) -> Any:
        row = self.store.get(key)
        if row is None:
            raise DSAError("This row is no longer in the gallery.")
        return row

    def _show_panel(self, query: Query, row: Any) -> str:
        pixels = [
            query.pixels if query.pixels is not None else read_image(self._row(query.key)["file"]),
            read_image(row["file"]),
        ]
        sheets = []
        if self.make_map is not None:
            from dsareid.densepose.pictures import draw_part_images
            from dsareid.densepose.textures import part_images

            with self._lock:
                drawn = [draw_part_images(*part_images(x, self.make_map(x), 32), 3) for x in pixels]
            sheets = [base64.b64encode(_as_jpeg(sheet)).decode() for sheet in drawn]
        return show_panel(Panel(query, row, sheets, self.embedder.settings))


# ---- files and pictures ----


def _static(name: str, kind: str) -> Handler:
    async def answer(request: Request) -> Response:
        return Response(read_resource(_PACKAGE, name), media_type=kind)

    return answer


def _thumbnail(read: Callable[[Any], np.ndarray], source: object) -> bytes:
    image = Image.fromarray(read(source))
    image.thumbnail(_THUMB, Image.Resampling.LANCZOS)
    return _as_jpeg(image)


def _as_jpeg(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.convert("RGB").save(content, "JPEG", quality=88)
    return content.getvalue()


def _plain_cell(text: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text[:1] else text


# ---- the server ----


def serve_gallery(
    gallery: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
    parts: bool = False,
    device: str = "auto",
    trust: bool = False,
    facts: Facts | None = None,
) -> None:
    """Serve the page until it is interrupted. Other commands may use a folder meanwhile, through this one.

    Args:
        gallery: a path that ends in .db, or an address http://HOST:PORT/NAME.
        model, device, trust, facts: of the network that made the gallery's vectors, as for embed().
        host, port: where the page is.
        password: that browsers ask for; needed if others than this machine can reach the page.
        calibration: a folder of features that was calibrated.
        parts: whether to estimate maps for part images; its weights may have to be downloaded once.

    Raises:
        DSAError: as GalleryStore, embed() and GalleryPage; a page for others without a password, or a port
            that is taken.
    """
    if host not in _LOCAL and not password:
        raise DSAError(f"`host={host}`: others can reach this page: give it a password")
    with GalleryStore(gallery) as store:
        if store.through is not None:
            raise DSAError(f"{store.name}: served already, by process {store.through}")
        embedder = embed(model, device, trust=trust, facts=facts, remembered=store.info.facts)
        page = GalleryPage(
            store,
            embedder,
            None if calibration is None else Path(calibration),
            _map_maker(device) if parts else None,
        )
        try:
            listening = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            raise DSAError(f"`port={port}` of {host} cannot be used: {error}") from error
        store.share()
        port = listening.getsockname()[1]
        hosts = ["*"] if host not in _LOCAL else list(_LOCAL)
        settings = uvicorn.Config(page.application(hosts, password), log_level="error", lifespan="off")
        logger.info(f"{store.name}: http://{host}:{port} shows it; Ctrl-C ends that")
        # uvicorn ends itself, and then raises the signal again: what follows here must still be done.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        uvicorn.Server(settings).run(sockets=[listening])


def _map_maker(device: str) -> MakeMap:
    from dsareid.densepose import load_estimator

    estimator = load_estimator(device=device, people="one")
    return lambda pixels: estimator(pixels).iuv
