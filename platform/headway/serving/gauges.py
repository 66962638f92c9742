"""What is counted where it happens, read once a second: nothing of it is on a request's path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headway.core.telemetry.instruments import Table
from headway.serving import metrics as m

if TYPE_CHECKING:
    from headway.serving.assembly import Assembly


def show(assembly: Assembly, table: Table) -> None:
    """Set what the parts of a replica say of themselves."""
    use_case, service, spool = assembly.use_case, assembly.service, assembly.recorder.spool
    batcher, admission, host = assembly.batcher, service.admission, assembly.host
    table.set(m.QUEUE_ROWS, batcher.queued_rows, use_case)
    table.set(m.TRITON_PENDING, batcher.queued_rows, use_case)
    table.set(m.QUEUE_WAIT, batcher.wait_s(), use_case)
    table.set(m.SHED, admission.shed, use_case)
    table.set(m.REFUSED, admission.refused, use_case)
    table.set(m.REPLAYS, service.decider.replayed, use_case)
    table.set(m.LOG_ROWS, spool.written, use_case, "written")
    table.set(m.LOG_ROWS, spool.dropped, use_case, "dropped")
    table.set(m.LOG_WAITING, spool.waiting, use_case)
    table.set(m.GENERATION, host.state.generation, use_case)
    table.set(m.READY, service.readiness.ready, use_case)
    for breaker in assembly.breakers():
        table.set(m.BREAKERS, breaker.state, use_case, breaker.name)
    for _, version, arm in table.labelled(m.SERVING):
        table.set(m.SERVING, 0, use_case, version, arm)
    for arm, model in host.steps():
        table.set(m.SERVING, 1, use_case, model.version, arm)
    if assembly.tracer is not None:
        table.set(m.TRACES, assembly.tracer.exporter.sent, use_case, "sent")
        table.set(m.TRACES, assembly.tracer.exporter.dropped, use_case, "dropped")
