"""The metrics of a replica, declared: `docs/metrics.md` is made from this, and the collector fills it.

Where a metric has a namesake in Triton, that one is shown too (`nv_inference_*`, labels `model` and `version`), with
Triton's meaning and units, so that its dashboards and alerts work after Ray's prefix `ray_` is taken off.
"""

from __future__ import annotations

from headway.core.telemetry.instruments import Instrument, Kind

_OF = ("use_case", "version")


def _counter(name: str, text: str, *labels: str) -> Instrument:
    return Instrument(name=name, kind=Kind.COUNTER, help=text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> Instrument:
    return Instrument(name=name, kind=Kind.GAUGE, help=text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> Instrument:
    return Instrument(name=name, kind=Kind.HISTOGRAM, help=text, labels=labels)


REQUESTS = _counter(
    "headway_requests_total",
    "Requests answered. protocol: http, handle, grpc. status: 2xx, 4xx, 5xx. outcome: ok, invalid, denied, conflict, "
    "quota, unavailable, failed.",
    *_OF, "protocol", "route", "status", "outcome",
)  # fmt: skip
REQUEST_SECONDS = _histogram(
    "headway_request_seconds",
    "From a decision's request received to its answer sent; the contract's p95 and p99 are bounds of buckets.",
    *_OF, "protocol", "outcome",
)  # fmt: skip
STAGE_SECONDS = _histogram(
    "headway_stage_seconds",
    "Time of a stage: decode, queue and encode per request, features, transform and predict per batch.",
    *_OF, "stage",
)  # fmt: skip
BATCH_ROWS = _histogram("headway_batch_rows", "Rows of a batch.", *_OF)
DECISIONS = _counter(
    "headway_decisions_total", "Rows decided, by who answered (arm) and what was said (label).", *_OF, "arm", "label"
)
DEGRADED = _counter(
    "headway_degraded_rows_total", "Rows answered with a mark, by mark; a row may have several.", *_OF, "mark"
)
OUTSIDE = _counter(
    "headway_outside_values_total",
    "Served values of a feature outside the range that the version was trained on.",
    *_OF, "feature",
)  # fmt: skip
QUEUE_ROWS = _gauge("headway_queue_rows", "Rows that wait for a batch.", "use_case")
QUEUE_WAIT = _gauge("headway_queue_wait_seconds", "Estimated time until work that comes now is answered.", "use_case")
SHED = _counter(
    "headway_shed_requests_total", "Requests refused because they would have waited too long (503).", "use_case"
)
REFUSED = _counter("headway_quota_refusals_total", "Requests above their client's own rate (429).", "use_case")
REPLAYS = _counter(
    "headway_idempotent_replays_total", "Requests answered with the first answer to their idempotency key.", "use_case"
)
BREAKERS = _gauge(
    "headway_breaker_state",
    "Of the breaker before a dependency: 0 closed, 1 on trial, 2 open.",
    "use_case",
    "dependency",
)
LOG_ROWS = _counter(
    "headway_decision_log_rows_total", "Rows of the decision log: written to disk, or dropped.", "use_case", "outcome"
)
LOG_WAITING = _gauge("headway_decision_log_waiting_rows", "Rows of the decision log not yet on disk.", "use_case")
GENERATION = _gauge(
    "headway_model_generation", "Generation of the routing record whose versions serve; -1: none yet.", "use_case"
)
SERVING = _gauge("headway_serving_versions", "1 for each version that is loaded, by arm.", *_OF, "arm")
LAG = _gauge(
    "headway_feature_lag_seconds", "From a view's watermark, as last read, to now; quiet without traffic.",
    "use_case", "view",
)  # fmt: skip
READY = _gauge("headway_ready_replicas", "1 while the replica is ready.", "use_case")
EVENTS = _counter(
    "headway_clause_events_total",
    "Requests (freshness: rows) held against a clause of the contract. verdict: good, bad.",
    "use_case", "clause", "verdict",
)  # fmt: skip
BURN = _gauge(
    "headway_clause_burn_ratio",
    "How fast this replica burns a clause's budget: 1 uses it exactly up. Freshness: share of stale rows.",
    "use_case", "clause", "window",
)  # fmt: skip
TRACES = _counter(
    "headway_traces_total", "Traced requests and batches: sent to the collector, or dropped.", "use_case", "outcome"
)

TRITON_SUCCESS = _counter("nv_inference_request_success", "Decision requests answered.", "model", "version")
TRITON_FAILURE = _counter(
    "nv_inference_request_failure",
    "Decision requests refused or failed; reason: outcome.",
    "model",
    "version",
    "reason",
)
TRITON_COUNT = _counter("nv_inference_count", "Rows scored.", "model", "version")
TRITON_EXECUTIONS = _counter("nv_inference_exec_count", "Batches.", "model", "version")
TRITON_REQUEST = _counter("nv_inference_request_duration_us", "Total time of requests.", "model", "version")
TRITON_QUEUE = _counter("nv_inference_queue_duration_us", "Total time of requests in the queue.", "model", "version")
TRITON_INPUT = _counter(
    "nv_inference_compute_input_duration_us", "Total time of reading and transforming features.", "model", "version"
)
TRITON_INFER = _counter("nv_inference_compute_infer_duration_us", "Total time of predicting.", "model", "version")
TRITON_OUTPUT = _counter("nv_inference_compute_output_duration_us", "Total time of encoding.", "model", "version")
TRITON_PENDING = _gauge("nv_inference_pending_request_count", "Rows that wait for a batch.", "model")

STAGES = ("decode", "queue", "features", "transform", "predict", "encode")
STAGE_BUCKETS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5, 2.0)
"""Seconds."""
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

ALL: tuple[Instrument, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
