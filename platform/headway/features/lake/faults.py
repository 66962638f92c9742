"""What the disk and the catalog under the lake can do wrong, as errors that say so: locked by another, or full."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from headway.core.errors import Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCKED_S = 5.0
_FULL_S = 60.0


@contextmanager
def lake_faults(what: str) -> Iterator[None]:
    """Raise Unavailable for a full disk or a locked catalog.

    Nothing is half there then: files that no snapshot names are no data, and the same call may be repeated.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full(what, error) from error
    except Exception as error:
        text = str(getattr(error, "orig", ""))  # of SQLAlchemy's errors: what SQLite said
        if "locked" in text:
            raise Unavailable(
                f"{what}: the lake's catalog is locked by another process",
                retry_after_s=_LOCKED_S,
                hint="only the committer writes: end what else has catalog.db open, then repeat",
            ) from error
        if "full" in text or "disk I/O" in text:
            raise _full(what, error) from error
        raise


def _full(what: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"{what}: the disk is full: {getattr(error, 'orig', error)}",
        retry_after_s=_FULL_S,
        hint="nothing of it counts as written: free space (headway doctor), then repeat it",
    )
