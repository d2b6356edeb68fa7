"""Tests of what another process finds out: it starts before the first test, and theirs come last, so that both cores work.

A worker of pytest-xdist, beside which others work already, starts it with the test, and such tests first.

@pytest.mark.beside("-m", "module", "--out={folder}/it", VARIABLE="1")    what Python is to run, in which environment
def test_it(beside):
    done = beside()    waits and shows what it wrote: a subprocess.CompletedProcess, with the folder besides
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .plugin import is_worker

MINUTES = 30
UNSET = ("TRITON_INTERPRET", "PYTEST_")  # what this process, or what started it, has set for itself
PROCESS: pytest.StashKey["Process"] = pytest.StashKey()


@dataclass(frozen=True)
class Done:
    """The exit code, all output, and the folder that the process was given."""

    code: int
    output: str
    folder: Path


def inherited() -> dict[str, str]:
    """The environment that this process was given."""
    return {k: v for k, v in os.environ.items() if not k.startswith(UNSET)}


class Process:
    """A Python process that writes into a folder of its own."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]):
        self.folder = Path(tempfile.mkdtemp(prefix="opspec"))
        with open(self.folder / "output", "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *(a.replace("{folder}", str(self.folder)) for a in arguments)],
                env=inherited() | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> Done:
        code = self.process.wait(timeout=60 * MINUTES)
        return Done(code, (self.folder / "output").read_text(), self.folder)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("beside") is not None, reverse=is_worker(config))


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly or is_worker(session.config):
        return
    for item in session.items:
        if item.get_closest_marker("beside") and not any(
            skip.args and skip.args[0] for skip in item.iter_markers("skipif")
        ):
            _start(item)


def _start(item: pytest.Item) -> None:
    mark = item.get_closest_marker("beside")
    assert mark is not None
    item.stash[PROCESS] = Process(mark.args, dict(mark.kwargs))


def pytest_sessionfinish(session: pytest.Session) -> None:
    for item in getattr(session, "items", ()):
        if PROCESS in item.stash:
            item.stash[PROCESS].end()


@pytest.fixture
def beside(request: pytest.FixtureRequest, capsys: Any) -> Callable[[], Done]:
    """Waits for the process of the test's mark, and shows what it wrote."""

    def finish() -> Done:
        if PROCESS not in request.node.stash:
            _start(request.node)
        done = request.node.stash[PROCESS].wait()
        with capsys.disabled():
            print(f"\n{done.output}", flush=True)
        return done

    return finish
