"""Manifests of a lake table: few, because each costs a reader as much as many of its entries.

Every append adds one. The commits of compaction make one of all that are small, so that a table has as many manifests
as there were appends since, and one for some hundreds of its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Transaction
    from pyiceberg.table.update.snapshot import _OverwriteFiles

SMALL = 256 * 1024
"""Bytes of a manifest that is not merged any more: some hundreds of files, read in less than a tenth of a second."""


def replacing(change: Transaction, properties: dict[str, str]) -> _OverwriteFiles:
    """Return an overwrite that also merges the small manifests of the table."""
    from pyiceberg.manifest import ManifestContent
    from pyiceberg.table.snapshots import Operation
    from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles

    class Replacing(_OverwriteFiles):
        def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
            spec = self._transaction.table_metadata.default_spec_id
            small = [
                manifest
                for manifest in manifests
                if live(manifest)
                and manifest.manifest_length < SMALL
                and manifest.content == ManifestContent.DATA
                and manifest.partition_spec_id == spec
            ]
            if len(small) < 2:
                return manifests
            merged = _ManifestMergeManager(SMALL, 2, True, self)._create_manifest(spec, small)
            gone = {manifest.manifest_path for manifest in small}
            self._uncommitted_manifests += [path for path in self._written_manifests if path in gone]
            return [merged, *(manifest for manifest in manifests if manifest.manifest_path not in gone)]

    return Replacing(
        operation=Operation.OVERWRITE, transaction=change, io=change._table.io, snapshot_properties=properties
    )


def live(manifest: ManifestFile) -> bool:
    """Whether files of the table stand in a manifest, and not only such as were taken out."""
    return manifest.has_added_files() or manifest.has_existing_files()
