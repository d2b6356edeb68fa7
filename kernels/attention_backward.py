"""The gradient of attention from L and Δ, each of its parts owned by one program, so that nothing is added atomically.

With p = e^(s − L) recomputed, dv = pᵀ dy, ds = p ⊙ (dy vᵀ − Δ), dk = dsᵀ q / √D and dq = ds k / √D (Dao 2023,
FlashAttention-2, §3.1).

_of_keys     One program computes dk and dv of BLOCK_N keys of one head, walking over the queries in blocks of BLOCK_M:
             first the diagonal's, masked, then those that may attend to all of its keys; where a mask is given, all of
             them masked. A query that is not there has L = ∞, hence p = 0. Flops: 4·M·S·(D + E), half where causal.
_of_queries  One program computes dq of BLOCK_M queries, walking over the keys as _forward does. Flops: 2·M·S·(2·D + E).
Masks guard the last queries and keys, and the columns that pad D and E to powers of two. Accumulators: float32 (float64
of float64); p and ds are rounded to the arrays' format for their products. Bytes: (M + S)·(D + E) · size per head and
kernel, if L2 keeps what programs share, and the gradients'.
"""

import triton
import triton.language as tl

from .launch import scheduled
from .scores import KEY, arguments, may_attend, schedules, suits

TILES_OF_KEYS = {  # as in attention.py
    (2, 64): ([(32, 64, 4, 2)], [(64, 128, 8, 2)]),
    (2, 128): ([(16, 64, 8, 2)], [(32, 128, 8, 3)]),
    (2, 256): ([(16, 32, 8, 2)], []),
    (4, 64): ([(16, 16, 4, 2)], []),
    (4, 128): ([(16, 16, 8, 2)], []),
    (4, 256): ([], [(16, 16, 8, 2)], [(16, 16, 4, 2)]),
}
TILES_OF_QUERIES = {
    (2, 64): ([(64, 32, 4, 2), (128, 64, 8, 2)], []),
    (2, 128): ([(64, 32, 4, 2)], [(64, 64, 4, 2)]),
    (2, 256): ([(16, 32, 4, 2)], [(64, 32, 8, 2)]),
    (4, 64): ([(32, 32, 4, 2)], []),
    (4, 128): ([(16, 16, 8, 2)], []),
    (4, 256): ([(16, 16, 4, 2)], []),
}


def differentiate(q, k, v, dy, mask, causal, L, delta, dq, dk, dv):
    """Writes the gradients to dq, dk, dv, of any strides."""
    B, H, M, _ = q.shape
    S = k.shape[2]
    common = dict(L=L, delta=delta)
    _of_keys[lambda meta: (triton.cdiv(S, meta["BLOCK_N"]) * B, H)](
        **arguments(q, k, v, mask, causal, dy=(dy, "bhme"), dk=(dk, "bhsd"), dv=(dv, "bhse")), **common
    )
    _of_queries[lambda meta: (triton.cdiv(M, meta["BLOCK_M"]) * B, H)](
        **arguments(q, k, v, mask, causal, dy=(dy, "bhme"), dq=(dq, "bhmd")), **common
    )


@scheduled(schedules(TILES_OF_KEYS), KEY, suits=suits(TILES_OF_KEYS))
@triton.jit
def _of_keys(
    q, k, v, mask, dy, L, delta, dk, dv, B, H, M, S,
    stride_q_b, stride_q_h, stride_q_m, stride_q_d, stride_k_b, stride_k_h, stride_k_s, stride_k_d,
    stride_v_b, stride_v_h, stride_v_s, stride_v_e, stride_mask_b, stride_mask_h, stride_mask_m, stride_mask_s,
    stride_dy_b, stride_dy_h, stride_dy_m, stride_dy_e,
    stride_dk_b, stride_dk_h, stride_dk_s, stride_dk_d, stride_dv_b, stride_dv_h, stride_dv_s, stride_dv_e,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    SCALE: tl.constexpr, LOG2_E: tl.constexpr, CAUSAL: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tiles = tl.num_programs(0) // B
    tile = tl.program_id(0) % tiles
    b, h = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1).to(tl.int64)
    q += b * stride_q_b + h * stride_q_h
    k += b * stride_k_b + h * stride_k_h
    v += b * stride_v_b + h * stride_v_h
    dy += b * stride_dy_b + h * stride_dy_h
    L += (b * H + h) * M
    delta += (b * H + h) * M
    if mask is not None:
        mask += b * stride_mask_b + h * stride_mask_h

    first = tile * BLOCK_N
    m, n, d, e = tl.arange(0, BLOCK_M), first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    in_n, in_d, in_e = (n < S)[:, None], (d < D)[None, :], (e < E)[None, :]
    if WIDE:
        m, n, d, e = m.to(tl.int64), n.to(tl.int64), d.to(tl.int64), e.to(tl.int64)
    k_tile = tl.load(k + n[:, None] * stride_k_s + d[None, :] * stride_k_d, mask=in_n & in_d, other=0.0)
    v_tile = tl.load(v + n[:, None] * stride_v_s + e[None, :] * stride_v_e, mask=in_n & in_e, other=0.0)
    q_tile_at = m[:, None] * stride_q_m + d[None, :] * stride_q_d
    dy_tile_at = m[:, None] * stride_dy_m + e[None, :] * stride_dy_e
    step = tl.full((), BLOCK_M, tl.int64)
    dk_tile = tl.full((BLOCK_N, BLOCK_D), 0.0, ACC)
    dv_tile = tl.full((BLOCK_N, BLOCK_E), 0.0, ACC)
    begin = first // BLOCK_M * BLOCK_M if CAUSAL else 0
    free = tl.minimum(M, (first + BLOCK_N + BLOCK_M - 2) // BLOCK_M * BLOCK_M) if CAUSAL and mask is None else M
    if CAUSAL:
        blocks = (first // BLOCK_M).to(tl.int64)
        q += blocks * step * stride_q_m
        dy += blocks * step * stride_dy_m
    for FREE in tl.static_range(0 if CAUSAL or mask is not None else 1, 2 if mask is None else 1):
        for start in range((free if CAUSAL else 0) if FREE else begin, M if FREE else free, BLOCK_M):
            in_m = start + m < M
            q_tile = tl.load(q + q_tile_at, mask=in_m[:, None] & in_d, other=0.0)
            dy_tile = tl.load(dy + dy_tile_at, mask=in_m[:, None] & in_e, other=0.0)
            log = tl.load(L + start + m, mask=in_m, other=float("inf"))
            inner = tl.load(delta + start + m, mask=in_m, other=0.0)
            s = tl.dot(k_tile, tl.trans(q_tile), input_precision=PRECISION, out_dtype=ACC)
            p = tl.exp2(s * (SCALE * LOG2_E) - log[None, :])
            if not FREE:
                may = may_attend(mask, start + m[None, :], n[:, None], M, S, stride_mask_m, stride_mask_s, CAUSAL)
                p = tl.where(may, p, 0.0)
            dv_tile = tl.dot(p.to(dy_tile.dtype), dy_tile, dv_tile, input_precision=PRECISION, out_dtype=ACC)
            dp = tl.dot(v_tile, tl.trans(dy_tile), input_precision=PRECISION, out_dtype=ACC)
            ds = (p * (dp - inner[None, :])).to(q_tile.dtype)
            dk_tile = tl.dot(ds, q_tile, dk_tile, input_precision=PRECISION, out_dtype=ACC)
            q += step * stride_q_m
            dy += step * stride_dy_m

    dk += b * stride_dk_b + h * stride_dk_h
    dk_at = dk + n[:, None] * stride_dk_s + d[None, :] * stride_dk_d
    tl.store(dk_at, (dk_tile * SCALE).to(dk.dtype.element_ty), mask=in_n & in_d)
    dv += b * stride_dv_b + h * stride_dv_h
    dv_at = dv + n[:, None] * stride_dv_s + e[None, :] * stride_dv_e
    tl.store(dv_at, dv_tile.to(dv.dtype.element_ty), mask=in_n & in_e)


@scheduled(schedules(TILES_OF_QUERIES), KEY, suits=suits(TILES_OF_QUERIES))
@triton.jit
def _of_queries(
    q, k, v, mask, dy, L, delta, dq, B, H, M, S,
    stride_q_b, stride_q_h, stride_q_m, stride_q_d, stride_k_b, stride_k_h, stride_k_s, stride_k_d,
    stride_v_b, stride_v_h, stride_v_s, stride_v_e, stride_mask_b, stride_mask_h, stride_mask_m, stride_mask_s,
    stride_dy_b, stride_dy_h, stride_dy_m, stride_dy_e, stride_dq_b, stride_dq_h, stride_dq_m, stride_dq_d,
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
    dy += b * stride_dy_b + h * stride_dy_h
    if mask is not None:
        mask += b * stride_mask_b + h * stride_mask_h

    first = tile * BLOCK_M
    m, n, d, e = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    in_m, in_d, in_e = m < M, (d < D)[None, :], (e < E)[None, :]
    if WIDE:
        m, n, d, e = m.to(tl.int64), n.to(tl.int64), d.to(tl.int64), e.to(tl.int64)
    q_tile = tl.load(q + m[:, None] * stride_q_m + d[None, :] * stride_q_d, mask=in_m[:, None] & in_d, other=0.0)
    dy_tile = tl.load(dy + m[:, None] * stride_dy_m + e[None, :] * stride_dy_e, mask=in_m[:, None] & in_e, other=0.0)
    k_tile_at = n[:, None] * stride_k_s + d[None, :] * stride_k_d
    v_tile_at = n[:, None] * stride_v_s + e[None, :] * stride_v_e
    step = tl.full((), BLOCK_N, tl.int64)
    row = (b * H + h) * M + m
    log = tl.load(L + row, mask=in_m, other=float("inf"))
    inner = tl.load(delta + row, mask=in_m, other=0.0)
    dq_tile = tl.full((BLOCK_M, BLOCK_D), 0.0, ACC)
    free = 0 if mask is not None else (first + 1 if CAUSAL else S) // BLOCK_N * BLOCK_N
    end = tl.minimum(S, first + BLOCK_M) if CAUSAL else S
    for CHECKED in tl.static_range(1 if mask is not None else 0, 2):
        for start in range(free if CHECKED else 0, end if CHECKED else free, BLOCK_N):
            in_n = (start + n < S)[:, None]
            k_tile = tl.load(k + k_tile_at, mask=in_n & in_d if CHECKED else in_d, other=0.0)
            v_tile = tl.load(v + v_tile_at, mask=in_n & in_e if CHECKED else in_e, other=0.0)
            s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION, out_dtype=ACC)
            p = tl.exp2(s * (SCALE * LOG2_E) - log[:, None])
            if CHECKED:
                may = may_attend(mask, m[:, None], start + n[None, :], M, S, stride_mask_m, stride_mask_s, CAUSAL)
                p = tl.where(may, p, 0.0)
            dp = tl.dot(dy_tile, tl.trans(v_tile), input_precision=PRECISION, out_dtype=ACC)
            ds = (p * (dp - inner[:, None])).to(k_tile.dtype)
            dq_tile = tl.dot(ds, k_tile, dq_tile, input_precision=PRECISION, out_dtype=ACC)
            k += step * stride_k_s
            v += step * stride_v_s
    dq += b * stride_dq_b + h * stride_dq_h
    dq_at = dq + m[:, None] * stride_dq_m + d[None, :] * stride_dq_d
    tl.store(dq_at, (dq_tile * SCALE).to(dq.dtype.element_ty), mask=in_m[:, None] & in_d)
