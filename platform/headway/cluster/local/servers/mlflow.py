"""The embedded MLflow server: its whole application behind our gate, in one process.

The database is migrated before the port opens, so an answer means that it is usable. MLflow reads its settings from the
environment when it is imported: `services.mlflow` gives them.
"""

from __future__ import annotations

import os
import sys
from functools import cached_property

from headway.cluster.local.service import LOOPBACK
from headway.core.clock import Clock, SystemClock
from headway.core.platform_state import resolved_settings
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.governance.audit import audit_log
from headway.governance.identity import TokenVerifier, verifier_from
from headway.governance.mlflow_gate import Application, MlflowGate

WRITER = "mlflow"
"""Its audit chain."""


class _Verifier:
    """The installation's verifier, made at the first token: the issuer may start after this server."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @cached_property
    def _verifier(self) -> TokenVerifier:
        return verifier_from(self._settings, self._clock)

    def __call__(self, token: str) -> Principal:
        """Return who the token speaks for."""
        return self._verifier.verify(token)


def create_app(settings: Settings, clock: Clock) -> MlflowGate:
    """Return MLflow's application behind the gate, its database ready."""
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(
        os.environ["_MLFLOW_SERVER_FILE_STORE"],
        os.environ["_MLFLOW_SERVER_REGISTRY_STORE"],
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"],
    )
    inner: Application = app
    verify = _Verifier(settings, clock)
    return MlflowGate(inner, verify=verify, audit=audit_log(settings, WRITER, clock), clock=clock)


def main(home: str, port: int) -> None:
    """Serve on loopback until stopped."""
    import uvicorn

    app = create_app(resolved_settings(home=home), SystemClock())
    uvicorn.run(
        app,
        host=LOOPBACK,
        port=port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
