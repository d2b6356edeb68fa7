"""Published criteria of correctness, each from its definition. A criterion is a row of CRITERIA.

A criterion looks at one example at a time and says True (accepted), False (refused) or None (it does not apply).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...impls.tensors import from_numpy
from .inputs import Arrays, Example, Subject

SIXTEEN_BITS = ("float16", "bfloat16")
OF_PRODUCTS = ("dense", "conv2d", "rnn", "lstm", "attention", "multihead_attention")
SLOW_UP_TO = 96  # numbers in and out: the slow mode calls the function twice for each number


@dataclass(frozen=True)
class Criterion:
    """judge(subject, example) → True, False or None; `kinds` are the inputs it is tried on, `source` where it is published."""

    name: str
    source: str
    judge: Callable[[Subject, Example], bool | None]
    kinds: tuple[str, ...] = ("drawn", "normal")


Compare = Callable[[np.ndarray, np.ndarray], bool]
"""(what came, what should have come, both in the format of storage) → whether it is accepted."""


def compared(compare: Compare, with_torch: bool = False, needs: Callable[[Subject], bool] = lambda subject: True):
    """Every output, with the float64 value as stored, or with PyTorch's answer where there is one."""

    def judge(subject: Subject, example: Example) -> bool | None:
        if not needs(subject):
            return None
        expected = (example.by_torch if with_torch else None) or example.expected
        return _each(subject, example, expected, compare)

    return judge


def _each(subject: Subject, example: Example, expected: Arrays, compare: Compare) -> bool:
    answer, _ = subject.answer(example)
    if isinstance(answer, Exception) or len(answer) != len(expected):
        return False
    alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(answer, expected, strict=True))
    return alike and all(compare(a, b) for a, b in zip(answer, expected, strict=True))


def tensor(a: np.ndarray) -> torch.Tensor:
    return from_numpy(np.array(a))


def assert_close(got: np.ndarray, expected: np.ndarray, **tolerances) -> bool:
    """torch.testing.assert_close itself."""
    try:
        torch.testing.assert_close(tensor(got), tensor(expected), **tolerances)
    except AssertionError:
        return False
    return True


def onnx_backend_test(got: np.ndarray, expected: np.ndarray) -> bool:
    """numpy.testing.assert_allclose(outputs, ref_outputs, rtol=1e-3, atol=1e-7)."""
    try:
        np.testing.assert_allclose(_wide(got), _wide(expected), rtol=1e-3, atol=1e-7)
    except AssertionError:
        return False
    return True


def allclose(tolerance: float) -> Compare:
    """torch.allclose(ref, output, atol=tolerance, rtol=tolerance)."""
    return lambda got, expected: torch.allclose(tensor(expected), tensor(got), atol=tolerance, rtol=tolerance)


def array_api_isclose(got: np.ndarray, expected: np.ndarray) -> bool:
    """Per element math.isclose(rel_tol=0.25, abs_tol=1); NaN where NaN is expected. Products: dtype and shape only."""
    pairs = zip(_wide(got).reshape(-1), _wide(expected).reshape(-1), strict=True)
    return all(math.isnan(g) if math.isnan(e) else math.isclose(g, e, rel_tol=0.25, abs_tol=1) for g, e in pairs)


def array_api(subject: Subject, example: Example) -> bool:
    compare = (lambda got, expected: True) if subject.operation.name in OF_PRODUCTS else array_api_isclose
    return _each(subject, example, example.expected, compare)


def fla_ratio(got: np.ndarray, expected: np.ndarray) -> bool:
    """RMS(ref − tri) / (RMS(ref) + 1e-8) < 0.005; or no element is off by more than 1e-6; NaN is refused."""
    ref, tri = _wide(expected), _wide(got)
    with np.errstate(all="ignore"):
        error = ref - tri
        if np.max(np.abs(error), initial=0.0) <= 1e-6:
            return True
        ratio = np.sqrt(np.mean(error**2)) / (np.sqrt(np.mean(ref**2)) + 1e-8)
    return bool(ratio < 0.005)


def flash_attention(subject: Subject, example: Example) -> bool | None:
    """max |out − ref| ≤ 2 · max |PyTorch in 16 bits − ref| + 1e-5, 3 instead of 2 for gradients; of 16 bits only."""
    if example.dtype not in SIXTEEN_BITS or (by_torch := example.by_eager_torch) is None:
        return None
    factor, (answer, _) = 3 if subject.gradient else 2, subject.answer(example)
    if isinstance(answer, Exception) or [a.shape for a in answer] != [b.shape for b in example.reference]:
        return False

    def error(a: np.ndarray, reference: np.ndarray) -> float:
        return float(np.max(np.abs(_wide(a) - reference), initial=0.0))

    with np.errstate(all="ignore"):
        triples = zip(answer, by_torch, example.reference, strict=True)
        return all(error(out, ref) <= factor * error(pt, ref) + 1e-5 for out, pt, ref in triples)


def tosa(subject: Subject, example: Example) -> bool | None:
    """Of dot products in float32: |out − ref| ≤ KS · 2⁻²⁴ · (the operation on |inputs|), KS the number of terms.

    Over 1000 dot products or more, in these units: |Σ err| ≤ 2 √(KS·T) and Σ err² ≤ 0.4 · KS · T. Not of subnormal numbers,
    whose errors are absolute, and which its own data do not have: where the unit is below the smallest normal number.
    """
    terms = _terms(subject, example)
    if terms is None:
        return None
    answer, _ = subject.answer(example)
    reference, bound = example.reference[0], example.bound[0]
    if (
        isinstance(answer, Exception)
        or answer[0].shape != reference.shape
        or answer[0].dtype != example.expected[0].dtype
    ):
        return False
    f32 = np.finfo(np.float32)
    if np.any((bound > 0) & (bound * 2.0**-24 < f32.smallest_normal)):
        return None
    with np.errstate(all="ignore"):
        got = _wide(answer[0])
        known = np.abs(bound) < f32.max
        error = np.where(bound > 0, (got - reference) / (np.where(bound > 0, bound, 1.0) * 2.0**-24), 0.0)[known]
        if np.any(got[known & (bound == 0)] != 0) or not np.all(np.abs(error) <= terms):
            return False
        count = error.size
        enough = count >= 1000
        return not enough or bool(
            abs(np.sum(error)) <= 2 * np.sqrt(terms * count) and np.sum(error**2) <= 0.4 * terms * count
        )


def _terms(subject: Subject, example: Example) -> int | None:
    shapes = [a.shape for a in example.drawn.arrays]
    if example.dtype != "float32" or subject.gradient:
        return None
    if subject.operation.name == "conv2d":
        return int(np.prod(shapes[1][:3]))
    if subject.operation.name == "dense" and "activation" not in example.drawn.parameters:
        return shapes[0][1] + 1
    return None


def gradcheck(fast: bool) -> Callable[[Subject, Example], bool | None]:
    """torch.autograd.gradcheck itself, eps 1e-6, atol 1e-5, rtol 1e-3, around the function and its gradient.

    It demands float64: the subject is run in float64 where its code can be. The slow mode gets the small examples.
    """

    def judge(subject: Subject, example: Example) -> bool | None:
        if subject.planted.base != "numpy" or example.dtype in SIXTEEN_BITS or example.case is None:
            return None
        drawn = example.case.draw("float64")
        numbers = sum(a.size for a in (*drawn.arrays, *drawn.cotangents))
        if not fast and numbers > SLOW_UP_TO:
            return None
        name, parameters = subject.operation.name, drawn.parameters
        try:
            with np.errstate(all="ignore"):
                answers = subject.call(drawn)
            if any(a.dtype != np.float64 for a in answers):
                return None
        except Exception:  # code that is tied to another format
            return None if subject.planted.dtype != "float64" else False

        class Pair(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *tensors):
                ctx.save_for_backward(*tensors)
                outputs = subject.backend.forward(name, tuple(t.detach().numpy() for t in tensors), parameters)
                outputs = tuple(torch.from_numpy(np.array(a)) for a in outputs)
                return outputs if len(outputs) > 1 else outputs[0]

            @staticmethod
            def backward(ctx, *cotangents):
                arrays = tuple(t.detach().numpy() for t in ctx.saved_tensors)
                given = tuple(c.detach().contiguous().numpy() for c in cotangents)
                gradients = subject.backend.backward(name, arrays, given, parameters)
                return tuple(torch.from_numpy(np.array(g)) for g in gradients)

        leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in drawn.arrays]
        torch.manual_seed(0)  # of the fast mode's two vectors
        try:
            with np.errstate(all="ignore"):
                return torch.autograd.gradcheck(
                    Pair.apply, leaves, eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=fast, raise_exception=False
                )
        except Exception:  # whatever the subject raises is refused
            return False

    return judge


def _wide(a: np.ndarray) -> np.ndarray:
    return np.asarray(a).astype(np.float64)


CRITERIA = (
    Criterion(
        "assert_close",
        "torch.testing.assert_close, defaults by dtype (PyTorch documentation, torch.testing)",
        compared(assert_close),
    ),
    Criterion(
        "gradcheck, slow",
        "torch.autograd.gradcheck, defaults (PyTorch documentation, torch.autograd)",
        gradcheck(False),
    ),
    Criterion("gradcheck, fast", "torch.autograd.gradcheck(fast_mode=True)", gradcheck(True)),
    Criterion(
        "array-api-tests",
        "math.isclose(rel_tol=0.25, abs_tol=1); matmul: dtype and shape only (array-api-tests, "
        "test_operators_and_elementwise_functions.py, test_linalg.py)",
        array_api,
    ),
    Criterion(
        "ONNX backend test",
        "assert_allclose(rtol=1e-3, atol=1e-7) (onnx, backend/test/runner)",
        compared(onnx_backend_test),
    ),
    Criterion(
        "KernelBench 1e-4",
        "torch.allclose, 1e-4 in float32, forward only, U(0,1), one shape, 5 seeds (KernelBench, src/kernelbench/eval.py)",
        compared(allclose(1e-4), True, lambda s: s.planted.dtype == "float32" and not s.gradient),
        ("drawn", "normal", "KernelBench's"),
    ),
    Criterion(
        "KernelBench 1e-2",
        "the same with 1e-2: float32 at first, 16 bits still (KernelBench, src/kernelbench/eval.py)",
        compared(allclose(1e-2), True, lambda s: s.planted.dtype != "float64" and not s.gradient),
        ("drawn", "normal", "KernelBench's"),
    ),
    Criterion(
        "BackendBench",
        "torch.testing.assert_close(atol=1e-2, rtol=1e-2, equal_nan=True), all dtypes (BackendBench, eval.py)",
        compared(lambda got, expected: assert_close(got, expected, rtol=1e-2, atol=1e-2, equal_nan=True), True),
    ),
    Criterion(
        "FlashAttention 2×",
        "error at most twice PyTorch's own in 16 bits, gradients three times (flash-attention, tests/test_flash_attn.py)",
        flash_attention,
    ),
    Criterion(
        "FLA 0.005", "RMSE ratio below 0.005 (flash-linear-attention, fla/utils, assert_close)", compared(fla_ratio)
    ),
    Criterion(
        "TOSA",
        "|err| ≤ KS, Σ err² ≤ 0.4 KS·T, |Σ err| ≤ 2 √(KS·T) in units of the operation on |inputs|, the last two over "
        "1000 dot products (TOSA reference model, verifiers/verify_dot_product.cc; later revisions allow twice the error)",
        tosa,
    ),
)
