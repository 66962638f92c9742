"""The walk over the packed values of a batch, compiled to machine code: times, bodies, and where the texts are.

The values of a batch have many shapes, because times and ids take as few bytes as they need. A compiled loop does not
care, and costs less than a checksum per value. The constants of the layout (`value`) stand here because numba's
cache notices a change of this file only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

TAG_BITS = 23
MAGIC = 0xD2
TIME_BYTES = (0, 3, 5, 7)
"""Bytes of a time by its code in the shape; the last stands for itself, the others for a difference."""
ID_BYTES = (0, 4, 6, 8)
"""Bytes of the id by its code; 0: the rank is the predecessor's."""
LONG = 0xFF
"""A body of this length or more has its length in four bytes of its own."""
TEXT, EVENT_SHIFT, KNOWN_SHIFT, ID_SHIFT, END = 0x100, 9, 11, 13, 0x8000
"""Bits of a shape above the length: strings follow, three codes of two bits, last of the directory."""
CLOSING = 1 << TAG_BITS
"""The bit of a tag that says that the shape follows."""
SEAL = 4
"""Bytes of the checksum."""
EVENT, KNOWN, WHERE = 0, 1, 2
"""Planes of the times: event_time, known_time, position of the text in its value."""
_WHOLE = len(TIME_BYTES) - 1


@cache
def compiled() -> Callable[..., int]:
    """Return `_scan` as machine code; it is compiled once per installation and then loaded from numba's cache."""
    import numba  # heavy: only processes that read rows pay for it

    def read(dtype: Any, dimensions: int) -> Any:
        return numba.types.Array(dtype, dimensions, "C", readonly=True)

    i8, u1 = numba.int64, numba.uint8
    inputs = (read(u1, 1), read(i8, 1), read(i8, 2), read(i8, 2))
    out = (numba.types.Array(i8, 3, "C"), numba.types.Array(u1, 2, "C"))
    made: Callable[..., int] = numba.njit(i8(*inputs, *out), cache=True, nogil=True)(_scan)
    return made


def _scan(  # type: ignore[no-untyped-def]  # noqa: PLR0911, PLR0912, PLR0915  # compiled whole; its types are above
    data, offsets, views, runs, times, bodies
):  # fmt: skip
    """Fill `times` and `bodies`; return −1, or the first key whose value is not ours.

    Args:
        data: uint8, the values of all keys, joined.
        offsets: int64[m + 1], where each key's value begins; an empty one is not there.
        views: int64[k, 6], by ascending tag: tag, row in `times`, bytes of the body, whether there is a text, first run
            and the one after the last.
        runs: int64[r, 3]: place in the body, bytes, place in the row of `bodies`.
        times: int64[3, k, m]; of a view that is not there it stays as it is.
        bodies: uint8[m, w], the bodies rearranged by `runs`.
    """
    longest = 0
    for key in range(len(offsets) - 1):
        longest = max(longest, offsets[key + 1] - offsets[key])
    tags = np.empty(longest // 3 + 1, np.int64)
    shapes = np.empty(longest // 3 + 1, np.int64)
    lengths = np.empty(longest // 3 + 1, np.int64)
    for key in range(len(offsets) - 1):
        start = offsets[key]
        end = offsets[key + 1] - SEAL
        if offsets[key + 1] == start:
            continue
        if data[start] != MAGIC:
            return key
        at = start + 1
        count = 0
        first = 0
        more = True
        while more:
            if at + 3 > end:
                return key
            tag = np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16
            at += 3
            tags[count] = tag & (CLOSING - 1)
            if count > 0 and tags[count] <= tags[count - 1]:
                return key
            count += 1
            if tag < CLOSING:
                continue
            if at + 2 > end:
                return key
            shape = np.int64(data[at]) | np.int64(data[at + 1]) << 8
            at += 2
            length = shape & LONG
            if length == LONG:
                if at + 4 > end:
                    return key
                length = np.int64(0)
                for place in range(4):
                    length |= np.int64(data[at + place]) << (8 * place)
                at += 4
            shapes[first:count] = shape
            lengths[first:count] = length
            first = count
            more = shape & END == 0
        body = at
        for slot in range(count):
            identity = shapes[slot] >> ID_SHIFT & 3
            if identity > 0:
                body += ID_BYTES[identity]
                body += TIME_BYTES[shapes[slot] >> EVENT_SHIFT & 3] + TIME_BYTES[shapes[slot] >> EVENT_SHIFT + 2 & 3]
            elif slot == 0:
                return key
        text = body
        for slot in range(count):
            text += lengths[slot]
        if text > end:
            return key
        event = np.int64(0)
        known = np.int64(0)
        late = np.int64(0)
        view = 0
        for slot in range(count):
            shape = shapes[slot]
            identity = shape >> ID_SHIFT & 3
            if identity > 0:
                for field in range(2):
                    code = shape >> EVENT_SHIFT + 2 * field & 3
                    size = TIME_BYTES[code]
                    number = np.int64(0)
                    for place in range(size):
                        number |= np.int64(data[at + place]) << (8 * place)
                    at += size
                    if code > 0 and number >= np.int64(1) << (8 * size - 1):
                        number -= np.int64(1) << (8 * size)
                    if field == 0:
                        late = known - event
                        event = number if code == _WHOLE else event + number
                    else:
                        known = number if code == _WHOLE else event + late + number
                at += ID_BYTES[identity]
            written = np.int64(0)
            if shape & TEXT != 0:
                if text + 4 > end:
                    return key
                for place in range(4):
                    written |= np.int64(data[text + place]) << (8 * place)
                text += 4
                if text + written > end:
                    return key
            while view < len(views) and views[view, 0] < tags[slot]:
                view += 1
            if view < len(views) and views[view, 0] == tags[slot]:
                if lengths[slot] != views[view, 2] or (shape & TEXT != 0) != (views[view, 3] != 0):
                    return key
                times[EVENT, views[view, 1], key] = event
                times[KNOWN, views[view, 1], key] = known
                times[WHERE, views[view, 1], key] = text - start
                for run in range(views[view, 4], views[view, 5]):
                    source, many, target = body + runs[run, 0], runs[run, 1], runs[run, 2]
                    bodies[key, target : target + many] = data[source : source + many]
            body += lengths[slot]
            text += written
        if text != end:
            return key
    return -1
