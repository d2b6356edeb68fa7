"""Layouts: how the numbers of a case lie in memory. What lies between and around them is poison."""

import numpy as np

LAYOUTS = ("plain", "transposed", "reversed", "sliced", "cropped", "offset", "broadcast", "mixed", "packed", "shared")
TOGETHER = LAYOUTS[-2:]  # of several arrays, not of each
BAND = 64  # poisoned elements before and behind each array


def lay_out(array: np.ndarray, layout: str, rng: np.random.Generator) -> np.ndarray:
    """The same numbers in a memory layout, with NaN (True for masks) in whatever lies between and around them.

    "transposed" leaves one array in three as it is, as a weight may be transposed alone; "reversed" is half the time a view
    of an array of its shape, with nothing around it, for which it must not be taken; "cropped" is a part of an array that
    is larger along all axes or all but the last; "broadcast" has axes of stride 0, along which it repeats the first numbers;
    "mixed" has its axes in any order in memory, any of them backwards or with gaps, each array in its own way.
    """
    poison = _poison(array)
    if array.ndim == 0 or layout in ("plain", *TOGETHER):
        return plain(array)
    if layout == "transposed":
        if rng.random() < 1 / 3:
            return plain(array)
        return _guarded(array.T.shape, array.dtype, poison, array.T).T
    if layout == "reversed":
        flip = (slice(None, None, -1),) * array.ndim
        if rng.random() < 0.5:
            return array[flip].copy()[flip]
        return _guarded(array.shape, array.dtype, poison, array[flip])[flip]
    if layout == "sliced":
        wide = _guarded((*array.shape[:-1], 2 * array.shape[-1]), array.dtype, poison)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "cropped":
        return _cropped(array, poison, rng)
    if layout == "broadcast":
        return _broadcast(array, poison, rng)
    if layout == "mixed":
        return _mixed(array, poison, rng)
    return _guarded(array.shape, array.dtype, poison, array, shift=1)


def lay_out_together(arrays: list[np.ndarray], layout: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Arrays that are "packed" lie beside one another in one buffer, where they differ in their last axis only, as the
    projections of a query, key and value may; those that are "shared" are one, or two, of all that have its shape."""
    if layout == "shared":
        first: dict[tuple[tuple[int, ...], int], np.ndarray] = {}
        most: dict[tuple[int, ...], int] = {}  # of each shape: all are one half the time
        numbers = (int(rng.integers(most.setdefault(a.shape, int(rng.integers(1, 3))))) for a in arrays)
        return [first.setdefault((a.shape, number), a) for a, number in zip(arrays, numbers, strict=True)]
    groups: dict[tuple[int, ...], list[int]] = {}
    for n, array in enumerate(arrays):
        if array.ndim > 1:
            groups.setdefault(array.shape[:-1], []).append(n)
    together = list(arrays)
    for members in groups.values():
        buffer = plain(np.concatenate([arrays[n] for n in members], axis=-1))
        parts = np.split(buffer, np.cumsum([arrays[n].shape[-1] for n in members])[:-1], axis=-1)
        for n, part in zip(members, parts, strict=True):
            together[n] = part
    return together


def plain(array: np.ndarray) -> np.ndarray:
    """A copy in C order, with poison before and behind it."""
    return _guarded(array.shape, array.dtype, _poison(array), array)


def _poison(array: np.ndarray) -> float | bool:
    return True if array.dtype == bool else np.nan


def _cropped(array: np.ndarray, poison, rng: np.random.Generator) -> np.ndarray:
    """One to six elements are left out of every axis; of the last, half the time, none."""
    before, behind = rng.integers(0, 4, (2, array.ndim))
    behind += before + behind == 0
    if array.ndim > 1 and rng.random() < 0.5:
        before[-1] = behind[-1] = 0
    wide = _guarded(tuple(int(n) for n in array.shape + before + behind), array.dtype, poison)
    crop = wide[tuple(slice(int(b), int(b) + n) for b, n in zip(before, array.shape, strict=True))]
    crop[...] = array
    return crop


def _broadcast(array: np.ndarray, poison, rng: np.random.Generator) -> np.ndarray:
    """Any axes but, mostly, the last. Writable, as what a library's expand returns is: some exchange protocols refuse
    what is not."""
    repeated = rng.random(array.ndim) < 0.5
    repeated[-1] &= array.ndim == 1 or rng.random() < 0.5
    repeated[rng.integers(max(1, array.ndim - 1))] |= not np.any(repeated)
    first = array[tuple(slice(0, 1) if r else slice(None) for r in repeated)]
    first = _guarded(first.shape, array.dtype, poison, first)
    strides = (0 if r else stride for r, stride in zip(repeated, first.strides, strict=True))
    return np.lib.stride_tricks.as_strided(first, array.shape, tuple(strides))


def _mixed(array: np.ndarray, poison, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(array.ndim)
    shape = np.array(array.shape)[order]
    gaps = rng.integers(1, 4, array.ndim) * (rng.random(array.ndim) < 0.5) + 1  # steps of 1 to 4, 1 half the time
    if int(np.prod(shape * gaps)) > 16 * array.size:
        gaps[:-1] = 1
    steps = np.where(rng.random(array.ndim) < 0.25, -gaps, gaps)
    view = tuple(slice(None, None, step) for step in steps)
    wide = _guarded(tuple(int(n) for n in shape * gaps), array.dtype, poison)[view]
    laid = wide.transpose(np.argsort(order))
    laid[...] = array
    return laid


def _guarded(shape, dtype, poison, values=None, shift: int = 0) -> np.ndarray:
    """A C-ordered array inside a buffer whose ends are poisoned; `shift` moves it off the alignment."""
    size = int(np.prod(shape))
    buffer = np.full(size + 2 * BAND, poison, dtype)
    array = buffer[BAND + shift : BAND + shift + size].reshape(shape)
    if values is not None:
        array[...] = values
    return array
