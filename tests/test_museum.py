"""The museum's backends and its page; the museum itself is no part of the default run."""

import pytest

from opspec import OPERATIONS
from opspec.impls import load
from opspec.tests.museum import museum
from opspec.tests.museum.museum import EXHIBITS, HERE, Exhibit, found, judged, page
from opspec.tests.properties import PROPERTIES

HERE_NOW = [e for e in EXHIBITS if not e.wheels and not e.why_not]


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda e: f"{e.release}-{e.issue}")
def test_an_exhibit_is_complete(exhibit):
    assert exhibit.defect and exhibit.issue
    if exhibit.why_not:
        assert not exhibit.backend and not exhibit.cells
    else:
        assert (HERE / "backends" / f"{exhibit.backend}.py").is_file() and exhibit.cells
    assert all(op in OPERATIONS and property_ in PROPERTIES for op, property_ in exhibit.cells)
    assert all("==" in wheel or wheel == "onnx" for wheel in exhibit.wheels + exhibit.sound)


def test_a_sound_release_passes_where_the_defect_would_show():
    """NumPy as installed, through the backend of its defect."""
    (exhibit,) = (e for e in EXHIBITS if e.release.startswith("numpy"))
    cells = judged(exhibit, ())
    assert [c["verdict"] for c in cells] == ["pass"] and found(exhibit, cells)[0] == "not found"


def test_the_defect_of_pytorch_is_found():
    (exhibit,) = (e for e in HERE_NOW if ("multihead_attention", "forward") in e.cells)
    verdict, what = found(exhibit, judged(exhibit, ()))
    assert verdict == "found" and "NaN, expected a finite number" in what and "mask=" in what


def test_a_backend_that_cannot_be_imported_finds_nothing():
    with pytest.raises(RuntimeError, match=r"no report|cannot be imported"):
        judged(Exhibit("x", "x", "x", backend="no_such_library", cells=(("dense", "forward"),)), ())


def test_found_means_that_every_cell_failed():
    exhibit = Exhibit("x 1", "wrong", "x#1", backend="x", cells=(("dense", "forward"), ("softmax", "forward")))
    fail = {
        "op": "dense",
        "property": "forward",
        "verdict": "fail",
        "reason": "a | b",
        "counterexample": {"case": "N=1"},
    }
    sound = {**fail, "op": "softmax", "verdict": "pass"}
    assert found(exhibit, [fail, {**sound, "verdict": "fail"}])[0] == "found"
    assert found(exhibit, [fail, sound])[0] == "not found"
    assert found(exhibit, [fail, {**sound, "verdict": "inconclusive"}])[0] == "not found"


def test_a_sound_release_that_is_refused_is_told(monkeypatch):
    def report(exhibit, wheels):
        return [
            {
                "op": "dense",
                "property": "forward",
                "verdict": "fail",
                "reason": "value",
                "counterexample": {"case": "N=1"},
            }
        ]

    monkeypatch.setattr(museum, "judged", report)
    exhibit = Exhibit("x 1", "wrong", "x#1", ("x==1",), "x", (("dense", "forward"),), sound=("x==2",))
    assert museum.visit(exhibit) == ("a sound release was refused", "x==2: value")


def test_the_page_counts_what_can_be_reached():
    exhibits = [Exhibit(f"x {n}", "wrong", "x#1") for n in range(3)]
    text = "\n".join(page(exhibits, [("found", "by a"), ("not reachable", "no"), ("not found", "b")]))
    assert "Found: 1 of the 2 that could be installed and reached." in text
    assert "| x 0 | wrong | x#1 | found | by a |" in text


def test_backends_are_plugins():
    module = load(str(HERE / "backends" / "numpy_bottom_up.py"))
    assert module.operations == ("dense",) and module.name.startswith("numpy ")
