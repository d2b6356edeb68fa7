"""The pytest interface: options, parametrisation, header, the conformance matrix and the reports."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ..impls import SHIPPED, Backend, UnknownBackend, load
from ..spec import DTYPES, OPERATIONS
from .conformance import BAD_INPUT, BrokenBackend, Cell, Result, Runner, cells
from .properties import PROPERTIES
from .report import Report, environment, explain, matrix

PROFILES = {"quick": 30, "ci": 125, "thorough": 2000}
DEFAULT_PROFILE = "ci"
CONFORMANCE = Path(__file__).with_name("test_conformance.py")
SUITE: pytest.StashKey["Suite"] = pytest.StashKey()


class Suite:
    """What one session of pytest judges: its backends and cells, and the report they go to."""

    def __init__(self, config: pytest.Config):
        self.chosen = bool(config.getoption("impl"))
        self.seed = int(config.getoption("hypothesis_seed"))
        self.backends: list[Backend | BrokenBackend] = []
        for name in config.getoption("impl") or SHIPPED:
            try:
                backend = load(name)
            except UnknownBackend as error:
                raise pytest.UsageError(str(error)) from None
            except Exception as error:  # a failing import is a red cell, whatever it raised
                self.backends.append(BrokenBackend.of(name, error))
                continue
            if not backend.operations:
                raise pytest.UsageError(f"backend {name!r} defines none of the operations: {', '.join(OPERATIONS)}")
            self.backends.append(backend)
        operations = _known(config, "op", OPERATIONS)
        dtypes = _known(config, "dtype", DTYPES)
        properties = _known(config, "property", [*PROPERTIES, BAD_INPUT])
        self.cells = list(cells(self.backends, operations, dtypes, properties))
        if self.chosen and not self.cells:
            raise pytest.UsageError("no backend given supports these operations in these dtypes")
        self.runner = Runner(self.seed, config.getoption("case"))
        self.report = Report(environment(config, self.seed), [Path(p) for p in config.getoption("conformance_report")])

    def judge(self, cell: Cell | BrokenBackend) -> Result:
        result = self.runner.run(cell)
        self.report.add(result)
        return result


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("opspec", "conformance of implementations to opspec's specifications")
    group.addoption(
        "--impl",
        action="append",
        default=[],
        metavar="NAME",
        help="backend to judge, and nothing else: a shipped one ("
        + ", ".join(SHIPPED)
        + "), a dotted module or a path to a .py file; repeatable",
    )
    group.addoption("--op", action="append", default=[], metavar="OPERATION", help="only this operation; repeatable")
    group.addoption("--dtype", action="append", default=[], metavar="DTYPE", help="only this dtype; repeatable")
    group.addoption(
        "--property", action="append", default=[], metavar="PROPERTY", help="only this property; repeatable"
    )
    group.addoption(
        "--case",
        metavar="WORDS",
        help="judge this one case, as a failure prints it; needs --impl, --op, --dtype and --property",
    )
    group.addoption(
        "--conformance-report",
        action="append",
        default=[],
        metavar="FILE",
        help="write the matrix to a .json, .html or .md file; repeatable",
    )


@pytest.hookimpl(tryfirst=True)  # before Hypothesis's own, which loads the profile
def pytest_configure(config: pytest.Config) -> None:
    for path in config.getoption("conformance_report"):
        if Path(path).suffix not in Report.WRITERS:
            raise pytest.UsageError(f"--conformance-report: {path!r} must end in one of {', '.join(Report.WRITERS)}")
        if not Path(path).absolute().parent.is_dir():
            raise pytest.UsageError(f"--conformance-report: no such directory: {Path(path).absolute().parent}")
    if config.getoption("case") and not all(len(config.getoption(o)) == 1 for o in ("impl", "op", "dtype", "property")):
        raise pytest.UsageError("--case needs exactly one each of --impl, --op, --dtype and --property")
    for name, examples in PROFILES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
    profile = config.getoption("--hypothesis-profile") or DEFAULT_PROFILE
    try:
        settings.load_profile(profile)
    except Exception:
        raise pytest.UsageError(
            f"--hypothesis-profile: unknown profile {profile!r}; known: {', '.join(PROFILES)}"
        ) from None
    config.option.hypothesis_profile = profile
    if config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))
    suite = Suite(config)
    if "torch" in sys.modules:
        # Examples are tiny: more threads than one cost more than they give, on a busy machine a hundred times more.
        sys.modules["torch"].set_num_threads(1)
    config.stash[SUITE] = suite
    if suite.chosen:
        config.args[:] = [str(CONFORMANCE)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        suite = metafunc.config.stash[SUITE]
        metafunc.parametrize("cell", suite.cells, ids=[str(c) for c in suite.cells])


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> Suite:
    return pytestconfig.stash[SUITE]


def pytest_report_header(config: pytest.Config) -> list[str]:
    suite = config.stash[SUITE]
    lines = [
        f"opspec: {len(suite.cells)} cells, profile {config.option.hypothesis_profile}, "
        f"seed {suite.seed} (repeat with --hypothesis-seed={suite.seed})"
    ]
    for backend in suite.backends:
        if isinstance(backend, BrokenBackend):
            lines.append(f"opspec backend {backend.name}: cannot be imported: {backend.reason}")
        else:
            lines.append(f"opspec backend {backend.name}: {', '.join(backend.operations)}" + _missing(backend))
    lines += [
        f"opspec {key}: {value}" for key, value in suite.report.environment.items() if key in ("device", "versions")
    ]
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    suite = config.stash.get(SUITE, None)
    if suite and suite.report.results:
        terminalreporter.ensure_newline()
        terminalreporter.section("conformance")
        matrix(suite.report.results, terminalreporter._tw._file)
        for path in suite.report.paths:
            terminalreporter.write_line(f"report: {path}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    suite = session.config.stash.get(SUITE, None)
    if suite:
        suite.report.write()


def conclude(result: Result) -> None:
    """A cell's verdict as pytest's outcome."""
    if result.verdict == "unsupported":
        pytest.skip(result.reason)
    if result.verdict == "known":
        pytest.xfail(result.reason)
    if result.verdict != "pass":
        pytest.fail(explain(result), pytrace=False)


def _missing(backend: Backend) -> str:
    missing = [name for name in OPERATIONS if name not in backend.operations]
    without = [name for name in backend.operations if backend.gradient(name) is None]
    words = [f"not defined: {', '.join(missing)}"] if missing else []
    words += [f"no gradient: {', '.join(without)}"] if without else []
    return f" ({'; '.join(words)})" if words else ""


def _known(config: pytest.Config, option: str, known: Sequence[str] | dict) -> list[str]:
    chosen = config.getoption(option)
    for name in chosen:
        if name not in known:
            raise pytest.UsageError(f"--{option}: unknown {option} {name!r}; known: {', '.join(known)}")
    return chosen
