"""Attention softmax(q kᵀ / √D) v without the matrix of scores: online softmax in base 2 (Dao 2023, FlashAttention-2).

_forward  One program computes BLOCK_M queries of one head, walking over the keys in blocks of BLOCK_N: first those that
          all of its queries may attend to, without a mask, then the diagonal's and the last, masked; where a mask is
          given, all of them masked. It keeps, per query, the largest score so far, Σ e^(s − largest), and the sum of
          values so weighted, which it rescales when the largest grows. Masks guard the last queries and keys, and the
          columns that pad D and E to powers of two. Scores, sums and y accumulate in float32 (float64 of float64); the
          weights are rounded to v's format for their product with v.
          For the gradient it writes, per query, L = log₂ Σ 2^s and Δ = Σₑ dyₑ yₑ, y being as accumulated.
Bytes: (M·(D + E) + S·(D + E)) · size per head, if L2 keeps the keys; flops: 2·M·S·(D + E), half of it where causal.
"""

import triton
import triton.language as tl

from .attention_backward import differentiate
from .launch import accumulator, empty, scheduled
from .scores import KEY, arguments, may_attend, schedules, suits

# (bytes of a number, larger of D and E, padded): (BLOCK_M, BLOCK_N, warps, stages) everywhere, on large chips, on others
TILES = {
    (2, 64): ([(16, 64, 4, 2), (64, 32, 4, 3)], [(128, 64, 8, 3), (128, 128, 8, 3)]),
    (2, 128): ([(16, 64, 4, 2), (128, 32, 8, 3)], [(64, 64, 4, 3), (128, 64, 8, 3)]),
    (2, 256): ([(16, 32, 4, 2)], [(64, 32, 4, 2)]),
    (4, 64): ([(16, 16, 4, 2), (32, 32, 4, 2)], []),
    (4, 128): ([(16, 32, 4, 2), (32, 16, 4, 2)], []),
    (4, 256): ([(32, 16, 4, 2)], []),
}


def attention(q, k, v, *, mask=None, causal=False):
    """softmax(q kᵀ / √D) v: q [B,H,M,D], k [B,H,S,D], v [B,H,S,E], mask bool [B or 1,H or 1,M,S] → [B,H,M,E].

    A query that may attend to no key gives 0, and so does one whose scores are all −∞.
    """
    y = empty((*q.shape[:3], v.shape[3]), q.dtype, q.device)
    attend(q, k, v, mask, causal, y=y)
    return y


def attention_vjp(q, k, v, dy, *, mask=None, causal=False):
    """dq, dk, dv, of a forward pass that keeps nothing but L and Δ."""
    dq, dk, dv = (empty(a.shape, a.dtype, a.device) for a in (q, k, v))
    L, delta = attend(q, k, v, mask, causal, dy=dy)
    differentiate(q, k, v, dy, mask, causal, L, delta, dq, dk, dv)
    return dq, dk, dv


def attend(q, k, v, mask, causal, y=None, dy=None):
    """Writes attention's output to y, of any strides, where it is given; returns L and Δ [B·H·M] where dy is."""
    (B, H, M, _), acc = q.shape, accumulator(q.dtype)
    L, delta = (None if dy is None else empty((B * H * M,), acc, q.device) for _ in range(2))
    _forward[lambda meta: (triton.cdiv(M, meta["BLOCK_M"]) * B, H)](
        **arguments(q, k, v, mask, causal, y=(y, "bhme"), dy=(dy, "bhme")), L=L, delta=delta
    )
    return L, delta


@scheduled(schedules(TILES), KEY, suits=suits(TILES))
@triton.jit
def _forward(
    q, k, v, mask, y, dy, L, delta, B, H, M, S,
    stride_q_b, stride_q_h, stride_q_m, stride_q_d, stride_k_b, stride_k_h, stride_k_s, stride_k_d,
    stride_v_b, stride_v_h, stride_v_s, stride_v_e, stride_mask_b, stride_mask_h, stride_mask_m, stride_mask_s,
    stride_y_b, stride_y_h, stride_y_m, stride_y_e, stride_dy_b, stride_dy_h, stride_dy_m, stride_dy_e,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    SCALE: tl.constexpr, LOG2_E: tl.constexpr, CAUSAL: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tiles = tl.num_programs(0) // B
    tile = tl.program_id(0) % tiles
    if CAUSAL:
        tile = tiles - 1 - tile  # those with the most keys start first
    b, h = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1).to(tl.int64)
    q += b * stride_q_b + h * stride_q_h
    k += b * stride_k_b + h * stride_k_h
    v += b * stride_v_b + h * stride_v_h
    if mask is not None:
        mask += b * stride_mask_b + h * stride_mask_h

    first = tile * BLOCK_M
    m, n, d, e = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    in_m, in_d, in_e = m < M, (d < D)[None, :], (e < E)[None, :]
    if WIDE:
        m, n, d, e = m.to(tl.int64), n.to(tl.int64), d.to(tl.int64), e.to(tl.int64)
    q_tile = tl.load(q + m[:, None] * stride_q_m + d[None, :] * stride_q_d, mask=in_m[:, None] & in_d, other=0.0)
    k_tile_at = n[:, None] * stride_k_s + d[None, :] * stride_k_d
    v_tile_at = n[:, None] * stride_v_s + e[None, :] * stride_v_e
    step = tl.full((), BLOCK_N, tl.int64)
    acc = tl.full((BLOCK_M, BLOCK_E), 0.0, ACC)
    total = tl.full((BLOCK_M,), 0.0, ACC)
    largest = tl.full((BLOCK_M,), -float("inf"), ACC)
    free = 0 if mask is not None else (first + 1 if CAUSAL else S) // BLOCK_N * BLOCK_N
    end = tl.minimum(S, first + BLOCK_M) if CAUSAL else S
    for CHECKED in tl.static_range(1 if mask is not None else 0, 2):
        for start in range(free if CHECKED else 0, end if CHECKED else free, BLOCK_N):
            in_n = (start + n < S)[:, None]
            k_tile = tl.load(k + k_tile_at, mask=in_n & in_d if CHECKED else in_d, other=0.0)
            s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION, out_dtype=ACC)
            if CHECKED:
                may = may_attend(mask, m[:, None], start + n[None, :], M, S, stride_mask_m, stride_mask_s, CAUSAL)
                s = tl.where(may, s, -float("inf"))
            before, largest = largest, tl.maximum(largest, tl.max(s, axis=1))
            level = tl.where(largest == -float("inf"), 0.0, largest)  # no key so far: −∞ − 0, not −∞ − (−∞)
            p = tl.exp2((s - level[:, None]) * (SCALE * LOG2_E))
            shrink = tl.exp2((before - level) * (SCALE * LOG2_E))
            total = total * shrink + tl.sum(p, axis=1)
            acc = acc * shrink[:, None]
            v_tile = tl.load(v + v_tile_at, mask=in_n & in_e if CHECKED else in_e, other=0.0)
            acc = tl.dot(p.to(v_tile.dtype), v_tile, acc, input_precision=PRECISION, out_dtype=ACC)
            k += step * stride_k_s
            v += step * stride_v_s

    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    inside = in_m[:, None] & in_e
    if y is not None:
        y += b * stride_y_b + h * stride_y_h
        tl.store(y + m[:, None] * stride_y_m + e[None, :] * stride_y_e, acc.to(y.dtype.element_ty), mask=inside)
    if dy is not None:
        dy += b * stride_dy_b + h * stride_dy_h
        dy_tile = tl.load(dy + m[:, None] * stride_dy_m + e[None, :] * stride_dy_e, mask=inside, other=0.0).to(ACC)
        row = (b * H + h) * M + m
        tl.store(delta + row, tl.sum(dy_tile * acc, axis=1), mask=in_m)
        log = largest * (SCALE * LOG2_E) + tl.log2(total)
        tl.store(L + row, tl.where(total == 0.0, float("inf"), log), mask=in_m)  # no key: then e^(s − L) is 0
