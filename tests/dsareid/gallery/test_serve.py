"""The page of a gallery: asked without a browser, and clicked through in one."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import make_run
from tiny_market import make_data

pytest.importorskip("milvus_lite")
pytest.importorskip("starlette")

from starlette.testclient import TestClient  # noqa: E402

import dsareid  # noqa: E402
from dsareid.commands.gallery_serve import PASSWORD  # noqa: E402
from dsareid.commands.main import main  # noqa: E402
from dsareid.gallery import requests, serve  # noqa: E402
from dsareid.gallery.add import add_rows  # noqa: E402
from dsareid.gallery.page import alike_by_part  # noqa: E402
from dsareid.gallery.rows import GalleryRow  # noqa: E402
from dsareid.gallery.serve import GalleryPage, serve_gallery  # noqa: E402
from dsareid.gallery.store import GalleryStore  # noqa: E402
from dsareid.ground.errors import DSAError  # noqa: E402
from dsareid.inference.calibrate import calibrate  # noqa: E402
from dsareid.inference.embedder import embed  # noqa: E402
from dsareid.inference.feature_folder import open_features  # noqa: E402

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, its calibrated features of a data set, and a gallery of them."""
    base = tmp_path_factory.mktemp("serve")
    data, run = make_data(base / "market"), make_run(base / "run")
    dsareid.extract(run, data, base / "features", device="cpu")
    calibrate(base / "features")
    add_rows(base / "g.db", base / "features", tags=["red", "night"])
    return run, data, base / "features", base / "g.db"


@pytest.fixture(scope="module")
def page(world):
    run, _, features, gallery = world
    with GalleryStore(gallery) as store:
        yield GalleryPage(store, embed(run, "cpu"), features, make_map=halves)


def halves(pixels):
    """A map of two parts."""
    iuv = np.zeros((*pixels.shape[:2], 3), np.uint8)
    iuv[: len(iuv) // 2, :, 0], iuv[len(iuv) // 2 :, :, 0] = 1, 2
    iuv[..., 1] = np.linspace(0, 255, iuv.shape[1], dtype=np.uint8)
    iuv[..., 2] = np.linspace(0, 255, iuv.shape[0], dtype=np.uint8)[:, None]
    return iuv


@pytest.fixture
def client(page):
    return TestClient(page.application(["testserver"], None))


def keys(html):
    return re.findall(r'class="again" data-key="(\w+)"', html)


def upload(picture):
    return {"picture": (picture.name, picture.read_bytes(), "image/png")}


def ask(client, picture=None, path="/search", **fields):
    files = {"picture": ("", b"")} if picture is None else upload(picture)
    return client.post(path, data=fields, files=files)


# ---- what it shows ----


def test_the_page(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "rows in" in answer.text
    assert re.findall(r'name="camera" value="(\w+)"', answer.text) == ["1", "2", "3"]
    assert "0.1 (1 in 10 pairs)" in answer.text
    for path in ("/page.css", "/page.js"):
        assert client.get(path).status_code == 200 and path in answer.text


def test_it_finds_what_a_search_finds(client, world):
    run, data, features, _ = world
    picture = sorted((data / "query").glob("*.png"))[0]
    found = keys(ask(client, picture, count="6").text)
    plain = dsareid.inference.search.search(run, picture, features, count=6, device="cpu")[0]
    with_keys = [client.get(f"/picture/{key}").status_code for key in found]
    assert with_keys == [200] * 6
    table = list(csv.DictReader(io.StringIO(ask(client, picture, "/export.csv", count="6").text)))
    assert [Path(row["file"]) for row in table] == [match.file for match in plain.matches]
    assert [float(row["distance"]) for row in table] == pytest.approx(
        [m.distance for m in plain.matches], abs=1e-5
    )
    assert table[0]["tags"] == "red;night" and float(table[0]["score"]) > 0


def test_a_row_is_searched_with_by_a_click(client, world):
    _, data, _, _ = world
    first = keys(ask(client, sorted((data / "query").glob("*.png"))[0]).text)
    again = ask(client, key=first[0], count="5").text
    assert first[0] not in keys(again) and len(keys(again)) == 5
    assert len(keys(ask(client, key=first[0], count="1").text)) == 1


def test_filters(client, world):
    _, data, features, _ = world
    picture = sorted((data / "query").glob("*.png"))[0]
    opened = open_features(features)
    count = {camera: sum(x.camera == camera for x in opened.labels) for camera in ("1", "3")}
    assert len(keys(ask(client, picture, camera=["1", "3"], count="100").text)) == sum(count.values())
    assert len(keys(ask(client, picture, person="5, 6", count="100").text)) == 10
    assert len(keys(ask(client, picture, tag="red, night", count="100").text)) == len(opened)
    for fields in ({"tag": "blue"}, {"after": "2026-01-01T00:00"}, {"track": "7"}):
        answer = ask(client, picture, **fields)
        assert answer.status_code == 400 and "no row is left" in answer.text


def test_unknown(client, page, world, monkeypatch):
    _, data, _, _ = world
    picture = sorted((data / "query").glob("*.png"))[0]
    fitted = page.judge.calibration
    limit = fitted.threshold(0.1)
    rows = csv.DictReader(io.StringIO(ask(client, picture, "/export.csv", rate="0.1").text))
    assert all(float(row["distance"]) < limit for row in rows)
    rows = keys(ask(client, picture, rate="0.1").text)
    assert len(rows) < len(keys(ask(client, picture, count="100").text))
    nobody = fitted.model_copy(update={"distances": [x * 1e-9 for x in fitted.distances]})
    monkeypatch.setattr(page, "judge", dataclasses.replace(page.judge, calibration=nobody))
    first = client.post("/search", data={"rate": "0.1", "camera": "1"}, files=upload(picture)).text
    assert "Unknown: nobody is nearer than" in first and "the nearest is at" in first and not keys(first)


def test_learned_from_tracks_but_rows_are_pictures(client, page, world, monkeypatch):
    _, data, _, _ = world
    picture = sorted((data / "query").glob("*.png"))[0]
    said = "The calibration was learned from tracks, but some of these distances are of single pictures"
    assert said not in ask(client, picture).text
    monkeypatch.setattr(page, "judge", dataclasses.replace(page.judge, tracks=True))
    assert said in ask(client, picture).text


def test_why(client, world):
    _, data, _, _ = world
    picture = sorted((data / "query").glob("*.png"))[0]
    key = keys(ask(client, picture).text)[1]
    panel = ask(client, picture, f"/panel/{key}").text
    assert panel.count("<meter") == 9 and panel.count('class="sheet"') == 2
    for name in ("torso", "upper legs", "whole picture"):
        assert name in panel
    assert ask(client, path=f"/panel/{key}", key=key).text.count(">1.00<") == 9  # a row beside itself


def test_parts_are_those_of_the_feature(world):
    run, data, _, _ = world
    embedder = embed(run, "cpu")
    one, other = embedder(sorted((data / "query").glob("*.png"))[:2]).numpy()
    found = dict(alike_by_part(one, other, embedder.settings))
    assert found["whole picture"] == pytest.approx(float(one[:256] @ other[:256]), abs=1e-5)
    part = slice(256, 256 + 32)  # the first of the eight: the torso
    norms = np.linalg.norm(one[part]) * np.linalg.norm(other[part])
    assert found["torso"] == pytest.approx(float(one[part] @ other[part] / norms), abs=1e-5)
    local = make_local(embedder.settings)
    assert len(alike_by_part(one[:256], other[:256], local)) == 8
    assert alike_by_part(one, other, local.model_copy(update={"branches": "global"})) == []


def make_local(settings):
    return settings.model_copy(update={"branches": "local"})


def test_a_picture_without_a_person(page, client, world, monkeypatch):
    picture = sorted((world[1] / "query").glob("*.png"))[0]
    assert "Nobody is seen" not in ask(client, picture).text
    monkeypatch.setattr(page, "make_map", lambda pixels: np.zeros_like(pixels))
    assert "Nobody is seen in this picture" in ask(client, picture).text


# ---- what it refuses ----


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no picture", "not readable as an image"),
        (b"", "Drop a picture on the page first"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not readable as an image"),
    ],
)
def test_what_is_no_picture(client, content, message):
    answer = client.post("/search", files={"picture": ("a.png", content)})
    assert answer.status_code == 400 and message in answer.text


def test_a_bomb_and_a_flood(client, monkeypatch):
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")  # a few kB
    answer = client.post("/search", files={"picture": ("bomb.png", bomb.getvalue())})
    assert answer.status_code == 400 and "claims to be of 9000 x 9000 pixels" in answer.text
    monkeypatch.setattr(requests, "MOST_BYTES", 1 << 16)
    for size in (1 << 17, 1 << 20):  # within the bound of the body, and beyond it
        answer = client.post("/search", files={"picture": ("big.png", os.urandom(size))})
        assert answer.status_code == 413


def test_uploads_leave_nothing(client, monkeypatch):
    """A large one passes through a temporary file, which is closed with the answer, and gone with that."""
    opened, make = [], tempfile.SpooledTemporaryFile

    def keeping(*arguments, **settings):
        opened.append(make(*arguments, **settings))
        return opened[-1]

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", keeping)
    large = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1200, 900, 3), dtype=np.uint8)).save(
        large, "PNG"
    )
    assert len(large.getvalue()) > 1 << 20
    for content, status in ((large.getvalue(), 200), (os.urandom(3 << 20), 400)):
        assert client.post("/search", files={"picture": ("large.png", content)}).status_code == status
    assert len(opened) == 2 and all(file.closed for file in opened)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"count": "0"}, "count must be a whole number from 1 to 200"),
        ({"count": "9999"}, "count must be a whole number from 1 to 200"),
        ({"count": "9" * 5000}, "count must be a whole number from 1 to 200"),
        ({"rate": "much"}, "rate must be a number"),
        ({"rate": "1e-9"}, "too few to say"),
        ({"after": "soon"}, "after must be a date"),
        ({"key": "0" * 32}, "no longer in the gallery"),
        ({"key": '" or key != "'}, "no longer in the gallery"),
        ({"person": "a\x01b"}, "must not hold control characters"),
    ],
)
def test_wrong_fields(client, world, fields, message):
    picture = sorted((world[1] / "query").glob("*.png"))[0]
    answer = ask(client, picture, **fields)
    assert answer.status_code == 400 and message in answer.text


def test_words_are_shown_as_words(page, world):
    """A name of a file or a person is no HTML, and no formula of a spreadsheet."""
    run, data, _, _ = world
    client = TestClient(page.application(["testserver"], None))
    picture = sorted((data / "query").glob("*.png"))[0]
    evil = "<img src=x onerror=alert(1)>.png"
    answer = client.post("/search", files={"picture": (evil, picture.read_bytes())})
    assert "<img src=x" not in answer.text and "&lt;img src=x" in answer.text
    picture = data / "query" / "0005_c3s1_000009_00.png"
    evil = GalleryRow("0" * 32, "s", str(picture), np.zeros(512, np.float32), "<b>anna</b>", "<i>1</i>")
    page.store.put([evil._replace(tags=["<script>"], track="<u>7</u>")])
    try:
        answers = [ask(client, key="0" * 32, count="100").text, client.get("/").text]
        answers += [ask(client, picture, count="100").text, ask(client, picture, f"/panel/{'0' * 32}").text]
        assert "&lt;b&gt;anna" in answers[2]
        for answer in answers:
            assert not re.search(r"<b>anna|<i>1|<u>7|<script>", answer)
    finally:
        page.store.remove(f'key in ["{"0" * 32}"]')
    assert (
        serve._plain_cell("=1+1") == "'=1+1"
        and serve._plain_cell("") == ""
        and serve._plain_cell("a=b") == "a=b"
    )


def test_password_host_and_other_sites(page):
    guarded = TestClient(page.application(["testserver"], "se cret"))
    for path in ("/", "/page.js", "/picture/x"):
        assert guarded.get(path).status_code == 401
    for wrong in (("me", "secret"), ("se cret", ""), ("", "")):
        assert guarded.get("/", auth=wrong).status_code == 401
    assert guarded.get("/", headers={"authorization": "Basic %%%"}).status_code == 401
    assert guarded.get("/", auth=("anybody", "se cret")).status_code == 200
    free = TestClient(page.application(["testserver"], None))
    assert free.get("/", headers={"host": "evil.example"}).status_code == 400
    assert free.post("/search", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert free.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link to the page
    headers = free.get("/").headers
    assert (
        "default-src 'self'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"
    )


def test_what_cannot_be_served(world, tmp_path, capsys):
    run, _, features, gallery = world
    other = make_run(tmp_path / "other", seed=5)
    with pytest.raises(DSAError, match="others can reach this page: give it a password"):
        serve_gallery(gallery, run, host="0.0.0.0")
    with pytest.raises(DSAError, match="no such gallery"):
        serve_gallery(tmp_path / "missing.db", run)
    shutil.copytree(gallery, tmp_path / "port.db")
    with pytest.raises(DSAError, match="`port=99999` of 127.0.0.1 cannot be used"):
        serve_gallery(tmp_path / "port.db", run, port=99999)
    (tmp_path / "empty").write_text("\n")
    arguments = [
        "gallery",
        "serve",
        str(gallery),
        "--model",
        str(run),
        "--password-file",
        str(tmp_path / "empty"),
    ]
    assert main(arguments) == 1 and "expected a password, but the file is empty" in capsys.readouterr().err
    shutil.copytree(gallery, tmp_path / "copy.db")
    with GalleryStore(tmp_path / "copy.db") as store, pytest.raises(DSAError, match="cannot be compared"):
        GalleryPage(store, embed(other, "cpu"))


# ---- in a process of its own ----


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    """The address of a served copy of the gallery, and the copy."""
    run, _, features, gallery = world
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(gallery, folder / "g.db")
    command = [sys.executable, "-m", "dsareid", "gallery", "serve", str(folder / "g.db"), "--model", str(run)]
    options = ["--port", "0", "--calibration", str(features), "--device", "cpu"]
    environment = {**os.environ, PASSWORD: "open"}
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, *options], stderr=file, env=environment)
    until = time.monotonic() + 120
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    yield found[0], folder / "g.db"
    process.send_signal(signal.SIGTERM)  # as systemd and docker end it
    assert process.wait(30) == 130
    assert not (folder / "g.db.served").exists()


def test_other_commands_go_through_it(served, world, tmp_path, capsys):
    _, gallery = served
    _, data, features, _ = world
    rows = len(open_features(features))
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(sorted((data / "query").glob("*.png"))[0], new / "0005_c3s1_000009_00.png")
    arguments = ["gallery", "add", str(gallery), str(new), "--model", str(world[0]), "--device", "cpu"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "served by process" in captured.err and f"1 added; {rows + 1:,} rows" in captured.out
    assert main(["gallery", "remove", str(gallery), "--file", str(new / "0005_c3s1_000009_00.png")]) == 0
    assert main(["gallery", "info", str(gallery)]) == 0 and f"{rows:,} rows" in capsys.readouterr().out


def test_it_is_served_once(served, world, capsys):
    _, gallery = served
    assert main(["gallery", "serve", str(gallery), "--model", str(world[0])]) == 1
    assert "served already, by process" in capsys.readouterr().err


def test_clicked_through_in_a_browser(served, world, tmp_path):
    """Drop a picture, filter, search with a row, see why, save the list; nothing is asked of anybody else."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    address, _ = served
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        wait = WebDriverWait(browser, 60)

        def shown(selector):
            return browser.find_elements(By.CSS_SELECTOR, selector)

        browser.get(address.replace("//", "//me:open@"))
        browser.get(address)  # a page whose own address has a password may not ask by script
        picture = sorted((world[1] / "query").glob("*.png"))[0]
        browser.find_element(By.ID, "picture").send_keys(str(picture))
        wait.until(lambda _: shown(".found li"))
        everybody = len(shown(".found li"))
        assert shown("h2")[0].text == picture.name and everybody > 10

        shown("input[name=camera][value='3']")[0].click()
        browser.find_element(By.ID, "search").click()
        wait.until(lambda _: len(shown(".found li")) < everybody)
        assert all("camera 3" in row.text for row in shown(".found li"))
        shown("input[name=camera][value='3']")[0].click()

        browser.find_element(By.ID, "search").click()
        wait.until(lambda _: len(shown(".found li")) == everybody)
        second = shown(".again")[1]
        key = second.get_attribute("data-key")
        second.click()
        wait.until(lambda _: shown("h2")[0].text != picture.name)
        assert key not in [row.get_attribute("data-key") for row in shown(".again")]

        shown(".why")[0].click()
        wait.until(lambda _: len(shown("#panel meter")) == 9)
        assert "Start it with --parts" in browser.find_element(By.ID, "panel").text
        browser.find_element(By.ID, "close").click()

        shown("input[name=camera][value='2']")[0].click()  # not asked yet: the list that is shown is saved
        listed = len(shown(".found li"))
        browser.find_element(By.ID, "export").click()
        wait.until(lambda _: (tmp_path / "found.csv").exists())
        time.sleep(0.2)
        assert len((tmp_path / "found.csv").read_text().splitlines()) == 1 + listed

        shown("input[name=camera][value='2']")[0].click()
        browser.find_element(By.NAME, "tag").send_keys("nowhere")
        browser.find_element(By.ID, "search").click()
        wait.until(lambda _: shown(".wrong"))
        assert "no row is left" in shown(".wrong")[0].text

        asked = set()
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
        elsewhere = [url for url in asked if not url.startswith((f"{address}/", "data:", f"blob:{address}"))]
        assert [url for url in elsewhere if "@" not in url] == [] and len(asked) > 10
        wrong = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert all("400" in entry["message"] for entry in wrong), (
            wrong
        )  # but for the filter that leaves nobody
    finally:
        browser.quit()
