"""Every block of code of the site and of the README runs, page by page, in order, as a reader would run it.

A page has a folder of its own with what docs_world.py makes, one Python namespace for its ```python
blocks and one shell for its ```sh blocks. What the networks and data sets are made smaller by is in
docs_commands.py. A block that cannot run here is in NOT_RUN, by how its first line begins, with the reason;
all others must run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import docs_commands as commands
import docs_world as world
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# By how its first line begins, the block that is not run, and why.
NOT_RUN = {
    "make demo": "installs 6 GB, and make test would run this very test",
    "cmake -S . -B build/cmake": "a build of all kernels; tests/csrc/test_cmake.py does it",
    "python examples/guide_resnet18.py": "ten epochs at full width; tests/examples runs the three loops",
    "make gpu PYTHON=python3": "needs a GPU; tests/scripts/test_gpu.py runs its steps without",
    "pip install setuptools": "installs from the network; .ci/run installs the package too",
    "dsareid gallery serve": "runs until it is ended; tests/dsareid/gallery/test_serve.py clicks through it",
    "make visit-kit": "downloads; tests/scripts/test_visit_kit.py does the rest",
}


class Block(NamedTuple):
    """A fenced block of code."""

    language: str  # python or sh
    line: int  # in the page, of its first line of code
    code: str

    @property
    def first(self) -> str:
        return self.code.split("\n")[0].strip()


def blocks(page: Path) -> list[Block]:
    """The ```python and ```sh blocks of a page, also indented ones (in lists and in tabs)."""
    text, found = page.read_text(), []
    for match in re.finditer(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, flags=re.M | re.S):
        indent, language, code = match.groups()
        if language in ("python", "sh"):
            code = re.sub(rf"^{indent}", "", code, flags=re.M)
            found.append(Block(language, text[: match.start()].count("\n") + 2, code))
    return found


class Shell:
    """One bash session; a command that fails ends it."""

    def __init__(self, folder: Path, search: str):
        self.folder, self.log = folder, folder / ".log"
        read, write = os.pipe()
        environment = os.environ | {"PATH": search}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["bash", "-e"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[write],
                text=True,
            )
        os.close(write)
        self.write, self.done = write, os.fdopen(read)

    def run(self, code: str) -> str | None:
        """What was printed where the code fails, or None."""
        before, script = self.log.stat().st_size, self.folder / ".block.sh"
        script.write_text(code)
        try:
            self.process.stdin.write(f". {script} < /dev/null\necho done >&{self.write}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return "the shell has ended"
        return None if self.done.readline() else self.log.read_text()[before:]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.done.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the prepared names, and PATH with the commands."""
    base = tmp_path_factory.mktemp("pages")
    (base / "world").mkdir()
    world.make_world(base / "world")
    command = [sys.executable, Path(commands.__file__), base / "socket"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    commands.write_commands(base / "bin", base / "socket")
    yield base / "world", f"{base / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    server.kill()
    server.wait()
    server.stdout.close()


def to_run(page: Path) -> list[Block]:
    return [block for block in blocks(page) if not block.first.startswith(tuple(NOT_RUN))]


@pytest.mark.documents
@pytest.mark.parametrize("page", list(filter(to_run, PAGES)), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page, prepared, tmp_path, monkeypatch):
    source, search = prepared
    folder = tmp_path / "reader"
    shutil.copytree(source, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", search)
    monkeypatch.syspath_prepend(str(folder / "examples"))
    namespace = {"__name__": "__page__", **world.given()}
    shell = Shell(folder, search)
    try:
        for block in to_run(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.language == "sh":
                said = shell.run(block.code)
                assert said is None, f"{where}\n{block.code}\n{said}"
            else:
                # Behind empty lines, so that a traceback shows the page's own.
                exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
    finally:
        shell.close()


def test_what_is_not_run_is_there():
    first = {block.first for page in PAGES for block in blocks(page)}
    assert not [x for x in NOT_RUN if not any(line.startswith(x) for line in first)], (
        "entries of NOT_RUN that no block begins with"
    )


def test_blocks_are_found_and_failures_seen(tmp_path):
    page = tmp_path / "page.md"
    listed = "1. list\n\n    ```sh\n    cd /\n    false\n    ```\n"
    page.write_text(f"text\n```python\na = 1\n```\n{listed}```\nout\n```\n")
    assert blocks(page) == [Block("python", 3, "a = 1\n"), Block("sh", 8, "cd /\nfalse\n")]
    shell = Shell(tmp_path, os.environ["PATH"])
    assert shell.run("x=3\ncd /") is None
    assert shell.run('test $x = 3 && test "$PWD" = /') is None
    assert "No such file" in shell.run("ls /nowhere-at-all\necho on")
    shell.close()
