"""The site builds without network, with no dead link, and asks no other server for anything."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.documents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site. A dead link or a name that the API reference does not find fails the build."""
    folder = tmp_path_factory.mktemp("site")
    trees = tmp_path_factory.mktemp("trees")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", trees, "docs", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site):
    loads = re.compile(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="?((?:https?:)?//[^">\s]+)')
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text()), page


def test_links_lead_into_the_site(site):
    """Also those to a place in a page."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        for link in re.findall(r'<a\b[^>]*href="?([^">\s]+)', text):
            if re.match(r"https?:|mailto:", link):
                continue
            path, _, place = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page, link)
            if place and target.suffix == ".html" and place != "__skip":
                assert re.search(rf'id="?{re.escape(place)}["\s>]', target.read_text()), (page, link)


def test_pictures_are_small(site):
    for picture in site.rglob("*.png"):
        large = ("report.png", "loader.png")  # of the README
        assert picture.stat().st_size < 150_000 or picture.name in large or "_static" in picture.parts, (
            picture
        )


def test_every_name_of_the_reference_is_found(site):
    for source in (ROOT / "docs/api").glob("*.md"):
        page = (site / "api" / source.with_suffix(".html").name).read_text()
        found = re.findall(
            r"^\.\. auto(\w+):: ([\w.]+)\n(?:   :members: ?(.*))?", source.read_text(), flags=re.M
        )
        assert found
        for kind, name, members in found:
            names = [name] if kind != "module" else [f"{name}.{x.strip()}" for x in members.split(",") if x]
            for member in names:
                assert f'id="{member}"' in page or f'id="{kept_in(member)}"' in page, (source.name, member)


def kept_in(name: str) -> str:
    """Where a name is defined: it may be documented by another."""
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    return f"{getattr(found, '__module__', module)}.{getattr(found, '__qualname__', attribute)}"


def test_operations_are_documented(site):
    import dsa_ext

    page = (site / "api/operations.html").read_text()
    for name in dsa_ext.__all__:
        there = f'id="dsa_ext.{name}"' in page or f'id="module-dsa_ext.{name}"' in page
        assert there or name.endswith("_ERROR"), name
