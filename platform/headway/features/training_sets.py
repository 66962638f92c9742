"""Governed training sets for notebooks and jobs: a use case's labelled decisions with its features, as known then.

    from headway.features import training_set

    rows = training_set("fraud", since="2018-07-01", until="2018-08-01", purpose="model_training")
    print(rows)  # what was read: ranges, snapshots, whose login
    frame = rows.to_pandas()

Whoever ran `headway login --purpose model_training` reads, audited, by the same reader and the same join as training
does; nothing else reaches the lake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headway.core import ray_session
from headway.core.clock import Clock, SystemClock
from headway.core.errors import InvalidValue, NotFound
from headway.core.platform_state import running_settings
from headway.core.project import Project
from headway.core.settings import Settings
from headway.core.times import EVENT_TIME, format_time, parse_time, require_time
from headway.core.types import Principal
from headway.features import historical
from headway.features.definitions import FeatureService
from headway.features.historical import ROW_ID
from headway.features.history import history_of
from headway.features.labels import in_order, labelled_rows, pin
from headway.features.lake.reader import LakeReader
from headway.features.named import service_named
from headway.governance.audit import audit_log
from headway.governance.audit_event import AuditSink
from headway.governance.contract import load_contract
from headway.governance.identity import verifier_from
from headway.governance.login import current_principal

if TYPE_CHECKING:
    import pandas as pd
    import ray.data

Moment = str | int | datetime | None
"""RFC 3339, UTC microseconds or a datetime; None: open."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Labelled rows of a use case, joined with its features on first use, in order of time and id."""

    use_case: str
    service: FeatureService
    label: str
    since: int
    """First decision time, UTC microseconds."""
    until: int
    """End of the decision times."""
    as_of: int
    """Labels known later are not in it."""
    snapshots: Mapping[str, int]
    """Lake table → snapshot id; given to `training_set` with `as_of`, it gives the same rows again."""
    principal: Principal
    """Who reads, and why."""
    spine: pa.Table = field(repr=False)
    """Keys, request columns, label, id and event_time of each row."""
    reader: LakeReader = field(repr=False)
    settings: Settings = field(repr=False)

    def __len__(self) -> int:
        """Return the rows."""
        return int(self.spine.num_rows)

    def __str__(self) -> str:
        """Say what it is, in lines that can be kept beside a result."""
        described = self.describe()
        pinned = ", ".join(f"{table}@{snapshot}" for table, snapshot in described["snapshots"].items())
        return "\n".join(
            [
                f"training set of {self.use_case}: {len(self):,} rows, {len(self.service.features)} features of "
                f"{self.service.name} ({described['sha256'][:12]}), label {self.label}",
                f"decided in [{described['since']}, {described['until']}), labels known by {described['as_of']}",
                f"snapshots: {pinned}",
                f"read by {described['read_by']} for {described['purpose']}",
            ]
        )

    def describe(self) -> dict[str, Any]:
        """Return what it is as builtin types: enough to make it again, and to say later what a model saw."""
        return {
            "use_case": self.use_case,
            "service": self.service.name,
            "sha256": self.service.sha256(),
            "label": self.label,
            "rows": len(self),
            "since": format_time(self.since),
            "until": format_time(self.until),
            "as_of": format_time(self.as_of),
            "snapshots": dict(self.snapshots),
            "read_by": self.principal.sub,
            "purpose": self.principal.purpose,
        }

    def dataset(self) -> ray.data.Dataset:
        """Return a Ray Dataset on the platform's cluster; `row_id` gives the order of the rows."""
        return self._joined

    def to_arrow(self) -> pa.Table:
        """Return all rows in this process, in order."""
        blocks = list(self._joined.iter_batches(batch_format="pyarrow", batch_size=None))
        return pa.concat_tables(blocks).sort_by(ROW_ID).drop_columns([ROW_ID])

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows in this process as a frame; event_time is a time in UTC."""
        rows = self.to_arrow()
        at = rows[EVENT_TIME].cast(pa.timestamp("us", tz="UTC"))
        frame: pd.DataFrame = rows.set_column(rows.column_names.index(EVENT_TIME), EVENT_TIME, at).to_pandas()
        return frame

    def to_torch(self, *, batch_size: int = 1024) -> Any:
        """Return an IterableDataset of batches (features float32 [n, k], label float32 [n]); missing features are NaN.

        Give it to `DataLoader(rows.to_torch(), batch_size=None)`; each of its workers gets other batches. The rows are
        held in this process: for more than fit, use `dataset().iter_torch_batches()`.
        """
        from headway.features.torch_batches import torch_dataset

        return torch_dataset(self.to_arrow(), self.service.features, self.label, batch_size)

    @cached_property
    def _joined(self) -> ray.data.Dataset:
        ray_session.connect(self.settings)
        joined = historical.training_set(
            self.spine, self.service, self.reader, self.principal, self.principal.purpose, snapshots=self.snapshots
        )
        return joined.materialize()


def training_set(
    use_case: str,
    *,
    purpose: str,
    since: Moment = None,
    until: Moment = None,
    as_of: Moment = None,
    snapshots: Mapping[str, int] | None = None,
) -> TrainingSet:
    """Return a use case's labelled decisions with its features, read as the person who is logged in.

    Args:
        use_case: A folder of serve_apps.
        purpose: Why; the login's own (`headway login --purpose …`), and one that every source allows.
        since: First decision time; None: from the beginning.
        until: End of the decision times, which is not in it; None: `as_of`.
        as_of: Labels known by then; None: now.
        snapshots: Lake table → snapshot id, of an earlier set's `snapshots`; tables not named are pinned as they are.

    Raises:
        ServiceFailed: The platform is not up.
        Unauthenticated: Nobody is logged in, or no longer.
        Forbidden: The login is for another purpose, lacks `data:read`, or a source may not be read for it.
        NotFound: No such use case or snapshot.
        InvalidValue: No rows in the range, or what is given is no time.
    """
    settings, clock = running_settings(), SystemClock()
    audit = audit_log(settings, "notebook", clock)
    principal = current_principal(settings.home, verifier_from(settings, clock))
    reader = LakeReader(settings, audit, clock)
    return open_training_set(
        use_case, settings=settings, principal=principal, reader=reader, audit=audit, clock=clock,
        purpose=purpose, since=since, until=until, as_of=as_of, snapshots=snapshots,
    )  # fmt: skip


def open_training_set(
    use_case: str,
    *,
    settings: Settings,
    principal: Principal,
    reader: LakeReader,
    audit: AuditSink,
    clock: Clock,
    purpose: str,
    since: Moment = None,
    until: Moment = None,
    as_of: Moment = None,
    snapshots: Mapping[str, int] | None = None,
) -> TrainingSet:
    """Do what `training_set` does, with parts that are given."""
    project = Project(settings.project)
    history = history_of(project, project.require(use_case))
    wanted = load_contract(project.app_folder(use_case) / "contract.yaml").contract.decision.feature_service
    service = service_named(project, wanted, field=f"{use_case}.decision.feature_service")
    spine, label = history.outcomes, history.label
    known_by = _moment(as_of, "as_of", clock.now())
    first, end = _moment(since, "since", 0), _moment(until, "until", known_by)
    if first >= end:
        raise InvalidValue("since", f"{format_time(first)} is not before {format_time(end)}")
    pinned = pin(reader, spine, *(view.source for view in service.stored))
    for table in snapshots or {}:
        if table not in pinned:
            raise NotFound("table of this training set", table, known=list(pinned), field="snapshots")
    pinned |= dict(snapshots or {})
    rows = labelled_rows(
        spine, service, [label], reader, principal, purpose,
        event_time=(first, end), known_by=known_by, snapshots=pinned, field=f"{use_case}.outcomes",
    )  # fmt: skip
    if not rows.num_rows:
        raise InvalidValue(
            "since",
            f"no labelled rows of {spine.name} in [{format_time(first)}, {format_time(end)}) "
            f"known by {format_time(known_by)}",
            hint="headway lake status",
        )
    audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="features.training_set",
        resource=service.name,
        purpose=purpose,
        outcome=f"{rows.num_rows} rows",
        refs=(service.sha256(),),
    )
    return TrainingSet(
        use_case=use_case,
        service=service,
        label=label,
        since=first,
        until=end,
        as_of=known_by,
        snapshots=pinned,
        principal=principal,
        spine=in_order(rows, spine),
        reader=reader,
        settings=settings,
    )


def _moment(given: Moment, name: str, otherwise: int) -> int:
    if given is None:
        return otherwise
    if isinstance(given, datetime):
        return parse_time(given.isoformat(), field=name)
    return require_time(given, field=name) if isinstance(given, int) else parse_time(given, field=name)
