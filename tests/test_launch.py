"""Launching kernels: the guard that is put round what they write, and the choice of a schedule."""

import pytest
import torch
import triton
import triton.language as tl
from triton import Config

from opspec.kernels import LANE, launch
from opspec.kernels.launch import OutOfBounds, Scheduled, copied, empty, forced, guarded, scheduled, wide

DEVICE = torch.device("cuda" if LANE == "gpu" else "cpu")
pytestmark = pytest.mark.skipif(LANE == "sanitizer", reason="the sanitizer guards memory itself")


@scheduled([Config({"BLOCK": 16}), Config({"BLOCK": 32}), Config({"BLOCK": 64})], key=("N",))
@triton.jit
def _write_blocks(Y, N, limit, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(Y + n, BLOCK + 0.0 * n, mask=n < limit)


def _write(y, limit):
    _write_blocks[lambda meta: (triton.cdiv(len(y), meta["BLOCK"]),)](y, len(y), limit)


def test_what_is_not_written_is_poisoned():
    with guarded():
        y = empty((8,), torch.float32, DEVICE)
        _write(y, 7)
    assert y[:7].isfinite().all() and y[7].isnan()


def test_a_write_beside_the_array_is_noticed():
    with pytest.raises(OutOfBounds, match=r"0 elements before and 1 after an array of 8"), guarded():
        _write(empty((8,), torch.float32, DEVICE), 9)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int32]
)
def test_every_width_has_a_poison(dtype):
    with guarded():
        y = empty((3, 2), dtype, DEVICE)
        assert y.shape == (3, 2) and y.data_ptr() % 16 == 0
        assert (y.isnan() if dtype.is_floating_point else y != 0).all()
        y.zero_()


@pytest.mark.parametrize("strides", [(5, 1), (1, 3), (10, 2)])
def test_a_copy_keeps_strides_and_lies_between_bands(strides):
    original = torch.arange(64.0).as_strided((3, 5), strides, 1)
    copy = copied(original, DEVICE)
    assert torch.equal(copy.cpu(), original) and copy.stride() == strides
    assert copy.data_ptr() % 64 == original.data_ptr() % 64
    memory = torch.empty(0, device=DEVICE).set_(copy.untyped_storage())
    assert memory[: launch.BAND].isnan().all() and memory[-launch.BAND :].isnan().all()


def test_every_schedule_is_picked_and_the_same_one_for_equal_calls():
    picked = {}
    for n in [*range(1, 65), *range(1, 65)]:
        with guarded():
            y = empty((n,), torch.float32, DEVICE)
            _write(y, n)
        assert picked.setdefault(n, float(y[0])) == float(y[0])
    assert set(picked.values()) == {16.0, 32.0, 64.0}


def test_a_schedule_can_be_forced():
    y = torch.empty(64, device=DEVICE)
    for config in _write_blocks.configs:
        with forced(_write_blocks, config):
            _write(y, 64)
        assert (y == config.kwargs["BLOCK"]).all()
    assert _write_blocks.forced is None


def test_a_recorder_takes_launches_in_place_of_a_machine(monkeypatch):
    seen = []
    monkeypatch.setattr(Scheduled, "recorder", lambda kernel, given, grid: seen.append((kernel.name, given["limit"])))
    _write(torch.empty(5, device="meta"), 3)
    assert seen == [("_write_blocks", 3)]


def test_wide_is_what_passes_32_bits():
    base = torch.empty(1, device="meta")
    assert not wide(base.as_strided((2, 2**30), (2**30, 1)), None)
    assert wide(base, base.as_strided((2, 2**30 + 1), (2**30, 1)))
    assert not wide(base.as_strided((2**20, 2**20), (0, 1)))


def test_products_are_ieee_unless_asked(monkeypatch):
    assert launch.dot_precision() == "ieee"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert launch.dot_precision() == "tf32"
