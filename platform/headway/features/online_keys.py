"""Where the online store keeps what it knows of a view as a whole: how far it is complete, and what was read for it.

A key is `headway:<w, m or p>:<view>@<hash of the shape of what is stored>`: versions of a view that share their stored
values share it, and others do not.
"""

from __future__ import annotations

from headway.features.definitions import RowView, View
from headway.features.rows.codec import shape_sha256
from headway.features.windows import codec

_VALUES, _WATERMARKS, _MATERIALIZED, _PARTITIONS = b"headway:f:", b"headway:w:", b"headway:m:", b"headway:p:"


def watermark_key(view: View) -> bytes:
    """Return the key of the view's watermark."""
    return _WATERMARKS + _stored(view)


def materialized_key(view: View) -> bytes:
    """Return the key of the snapshots up to which the view was filled."""
    return _MATERIALIZED + _stored(view)


def partitions_key(view: View, topic: str) -> bytes:
    """Return the key of how far each partition of a topic is in the view; `topic` tells topics of one name apart."""
    return _PARTITIONS + _stored(view) + b":" + topic.encode()


def watermark_pattern(name: str) -> bytes:
    """Return what finds the watermarks of all versions of a window view."""
    return _WATERMARKS + name.encode() + b"@*"


def version_keys(watermark: bytes) -> tuple[bytes, bytes]:
    """Return what finds the values of a window view's version, and its other key, from the key of its watermark."""
    version = watermark.removeprefix(_WATERMARKS)
    return _VALUES + version + b":*", _MATERIALIZED + version


def _stored(view: View) -> bytes:
    if isinstance(view, RowView):
        return f"{view.name}@{shape_sha256(view)[:8]}".encode()
    return codec.prefix(view).removeprefix(_VALUES)[:-1]
