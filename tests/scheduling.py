"""Which tests stay together when processes share the work: a file's, and all that need the acceptance platform."""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out files, and the folder of the acceptance tests as one."""

    def _split_scope(self, nodeid: str) -> str:
        place = PurePosixPath(nodeid.partition("::")[0])
        return str(place.parent if "acceptance" in place.parts else place)
