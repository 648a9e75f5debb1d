"""Compiled loops over voxels. They release the GIL and start no threads: `in_slices` shares the work among threads."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.imaging.compiled import compiled

_FASTMATH = {"contract", "nsz"}
"""Products and sums may be fused, and a zero has no sign; nothing is put into another order."""

_TIE = np.float32(1e-6)


def in_slices(work: Callable[[int, int], None], count: int, threads: int | None = None) -> None:
    """Call `work(first, last)` on shares of `count` slices, on several threads at once.

    The result must not depend on the shares. Four shares a thread, so that none waits long for the last.
    """
    threads = min(threads or default_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    edges = np.linspace(0, count, min(count, 4 * threads) + 1).round().astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, edges[:-1], edges[1:]):
            pass


def default_threads() -> int:
    """Return how many threads to use: one a core, but one in a worker process, whose siblings have the other cores."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@compiled(_FASTMATH)
def _blend(source, first, row, weights, target):  # type: ignore[no-untyped-def]
    """target[i] = sum over t of weights[t] * source[first + t, row, i].

    Five rows at a time, so that sums stay in registers. Whole arrays with indices, and no slices of them:
    only then does the compiler know that a row is contiguous, and vectorises.
    """
    taps, length = weights.size, target.size
    target[:] = 0
    t = 0
    while t + 5 <= taps:
        w0, w1, w2, w3, w4 = weights[t], weights[t + 1], weights[t + 2], weights[t + 3], weights[t + 4]
        k = first + t
        r0, r1, r2 = source[k, row], source[k + 1, row], source[k + 2, row]
        r3, r4 = source[k + 3, row], source[k + 4, row]
        for i in range(length):
            target[i] += (
                w0 * np.float32(r0[i])
                + w1 * np.float32(r1[i])
                + w2 * np.float32(r2[i])
                + w3 * np.float32(r3[i])
                + w4 * np.float32(r4[i])
            )
        t += 5
    while t < taps:
        w0, r0 = weights[t], source[first + t, row]
        for i in range(length):
            target[i] += w0 * np.float32(r0[i])
        t += 1


@compiled(_FASTMATH)
def _transpose(source, target):  # type: ignore[no-untyped-def]
    rows, columns = source.shape
    for row in range(0, rows, 16):
        for column in range(0, columns, 16):
            for i in range(row, min(row + 16, rows)):
                for j in range(column, min(column + 16, columns)):
                    target[j, i] = source[i, j]


@compiled(_FASTMATH)
def filter_slices(source, out, first, last, along_d, along_h, along_w, per_step, inter):  # type: ignore[no-untyped-def]
    """Make the slices `first` to before `last` of `out` (D', H', W') from `source` (D, H, W).

    Each `along` is (begin (n',), weights (n', taps)): out[j] = sum over t of weights[j, t] * in[begin[j] + t].
    With `per_step` above 0 the result is (value - inter) * per_step, rounded and clipped to int16.
    """
    _, rows, columns = source.shape
    new_rows, new_columns = out.shape[1:]
    plane = np.empty((rows, 1, columns), np.float32)
    short = np.empty((new_rows, columns), np.float32)
    turned = np.empty((columns, 1, new_rows), np.float32)
    narrow = np.empty((new_columns, new_rows), np.float32)
    done = np.empty((new_rows, new_columns), np.float32)
    for d in range(first, last):
        for h in range(rows):
            _blend(source, along_d[0][d], h, along_d[1][d], plane[h, 0])
        for h in range(new_rows):
            _blend(plane, along_h[0][h], 0, along_h[1][h], short[h])
        _transpose(short, turned[:, 0])
        for w in range(new_columns):
            _blend(turned, along_w[0][w], 0, along_w[1][w], narrow[w])
        _transpose(narrow, done)
        _put(done, out[d], per_step, inter)


@compiled(_FASTMATH)
def _put(values, target, per_step, inter):  # type: ignore[no-untyped-def]
    """Copy a slice; with a step, as whole numbers of steps that fit into int16."""
    for h in range(values.shape[0]):
        for w in range(values.shape[1]):
            value = values[h, w]
            if per_step > 0:
                value = min(max(np.rint((value - inter) * per_step), np.float32(-32768)), np.float32(32767))
            target[h, w] = value


@compiled(_FASTMATH)
def _agree(source, d, e, h, g, code):  # type: ignore[no-untyped-def]
    """Write to `code`, column by column, the class on which four rows agree, or 256."""
    r0, r1, r2, r3 = source[d, h], source[d, g], source[e, h], source[e, g]
    for i in range(code.size):
        same = (r0[i] == r1[i]) & (r0[i] == r2[i]) & (r0[i] == r3[i])
        code[i] = r0[i] if same else 256


@compiled(_FASTMATH)
def vote_slices(source, out, first, last, along_d, along_h, along_w):  # type: ignore[no-untyped-def]
    """Make slices of the label with the largest linear weight among the eight corners; of equals the first corner's.

    Each `along` is (lower index, upper index, share of the upper one).
    """
    code = np.empty(source.shape[2], np.uint16)
    votes = np.zeros(256, np.float32)
    for d in range(first, last):
        d0, d1, fd = along_d[0][d], along_d[1][d], along_d[2][d]
        for h in range(out.shape[1]):
            h0, h1, fh = along_h[0][h], along_h[1][h], along_h[2][h]
            _agree(source, d0, d1, h0, h1, code)
            target = out[d, h]
            for w in range(target.size):
                a, b = along_w[0][w], along_w[1][w]
                if code[a] == code[b] and code[a] < 256:
                    target[w] = code[a]
                else:
                    target[w] = _elect(source, (d0, d1), (h0, h1), (a, b), fd, fh, along_w[2][w], votes)


@compiled(_FASTMATH)
def _elect(source, ds, hs, ws, fd, fh, fw, votes):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    winner, most = 0, np.float32(-1)
    for i in range(2):
        for j in range(2):
            weight = (fd if i else one - fd) * (fh if j else one - fh)
            votes[source[ds[i], hs[j], ws[0]]] += weight * (one - fw)
            votes[source[ds[i], hs[j], ws[1]]] += weight * fw
    for i in range(8):
        label = source[ds[i >> 2], hs[(i >> 1) & 1], ws[i & 1]]
        got = votes[label]
        if got > most + _TIE:  # sums of equal votes can differ in the last bit
            winner, most = label, got
    for i in range(8):
        votes[source[ds[i >> 2], hs[(i >> 1) & 1], ws[i & 1]]] = 0
    return winner


@compiled(_FASTMATH)
def strongest_slices(logits, out, first, last):  # type: ignore[no-untyped-def]
    """Write the index of the largest of K logits (K, D, H, W) to `out` (D, H, W); the lower one of equals."""
    best = np.empty(out.shape[2], np.float32)
    for d in range(first, last):
        for h in range(out.shape[1]):
            target = out[d, h]
            best[:] = logits[0, d, h]
            target[:] = 0
            for k in range(1, logits.shape[0]):
                row = logits[k, d, h]
                for i in range(best.size):
                    stronger = row[i] > best[i]
                    best[i] = row[i] if stronger else best[i]
                    target[i] = k if stronger else target[i]


@compiled(_FASTMATH)
def decide_slices(logits, winners, out, first, last, along_d, along_h, along_w):  # type: ignore[no-untyped-def]
    """Make slices of the argmax over K of linearly interpolated logits (K, D, H, W).

    Where the eight neighbours have one winner (`winners`, from `strongest_slices`) it wins between them too,
    since it is largest in each term of a sum with positive weights. The other voxels of a row are done together.
    """
    code = np.empty(logits.shape[3], np.uint16)
    place = np.zeros(logits.shape[3], np.uint32)
    columns = np.empty(logits.shape[3], np.uint32)
    width = out.shape[2]
    mixed, left, right = np.empty(width, np.uint32), np.empty(width, np.uint32), np.empty(width, np.uint32)
    share, best = np.empty(width, np.float32), np.empty(width, np.float32)
    chosen = np.empty(width, np.uint8)
    values = np.empty(logits.shape[3], np.float32)
    one = np.float32(1)
    for d in range(first, last):
        d0, d1, fd = along_d[0][d], along_d[1][d], along_d[2][d]
        for h in range(out.shape[1]):
            h0, h1, fh = along_h[0][h], along_h[1][h], along_h[2][h]
            _agree(winners, d0, d1, h0, h1, code)
            target = out[d, h]
            count, used = 0, 0
            for w in range(width):
                a, b = along_w[0][w], along_w[1][w]
                if code[a] == code[b] and code[a] < 256:
                    target[w] = code[a]
                    continue
                for column in (a, b):
                    if used == 0 or columns[used - 1] < column:
                        columns[used] = column
                        place[column] = used
                        used += 1
                mixed[count], left[count], right[count], share[count] = w, place[a], place[b], along_w[2][w]
                count += 1
            if count == 0:
                continue
            w00, w01, w10, w11 = (one - fd) * (one - fh), (one - fd) * fh, fd * (one - fh), fd * fh
            best[:count] = -np.inf
            chosen[:count] = 0
            for k in range(logits.shape[0]):
                r00, r01, r10, r11 = logits[k, d0, h0], logits[k, d0, h1], logits[k, d1, h0], logits[k, d1, h1]
                for i in range(used):
                    c = columns[i]
                    values[i] = w00 * r00[c] + w01 * r01[c] + w10 * r10[c] + w11 * r11[c]
                for i in range(count):
                    value = (one - share[i]) * values[left[i]] + share[i] * values[right[i]]
                    stronger = value > best[i]
                    best[i] = value if stronger else best[i]
                    chosen[i] = k if stronger else chosen[i]
            for i in range(count):
                target[mixed[i]] = chosen[i]
