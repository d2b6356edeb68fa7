"""What is kept of the oracle's answers."""

import numpy as np

from opspec import OPERATIONS, Arithmetic
from opspec.spec import certified
from opspec.tests import oracle
from opspec.tests.cases import Case
from opspec.tests.latest import Latest


def test_the_oldest_make_room_and_nothing_is_kept_beyond_it():
    latest = Latest(10)
    for key, size in (("a", 4), ("b", 6), ("a", 4), ("c", 5), ("d", 11)):
        assert latest.keep(key, key.upper(), size) == key.upper()
        assert latest.bytes <= 10
    assert [latest.get(key) for key in "abcd"] == ["A", None, "C", None]


def test_a_truth_is_certified_once_for_all_arithmetics_and_again_where_it_must_be_nearer(monkeypatch):
    calls = []
    monkeypatch.setattr(oracle, "_truths", Latest(10**6))
    monkeypatch.setattr(oracle, "certify", lambda *given: calls.append(given) or certified.certify(*given))
    op = OPERATIONS["dense"]
    drawn = Case.parse(op, "N=3 I=4 O=2 seed=77").draw("float32")

    def tolerance_in(*names, arrays=drawn.arrays, **parameters):
        (y,) = oracle.expect(op.function, arrays, parameters, Arithmetic(*names), op.outputs)
        return float(np.max(y.tolerance)), len(calls)

    coarse, once = tolerance_in("float16")
    fine, still = tolerance_in("float32")
    assert fine < coarse and (once, still) == (1, 1)
    assert tolerance_in("float64")[1] == 2
    assert tolerance_in("float32", activation="relu")[1] == 3
    assert tolerance_in("float32", arrays=(-drawn.arrays[0], *drawn.arrays[1:]))[1] == 4
