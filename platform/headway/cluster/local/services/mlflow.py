"""The MLflow server in one process behind our gate (`governance.mlflow_gate`).

Its own command starts ten for a job runner nobody asked for, with 1 GB, and lets everybody in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.cluster.local.process import python_command
from headway.cluster.local.service import LOOPBACK, Context, answers_http, private_secret


@dataclass(frozen=True, kw_only=True)
class MlflowService:
    """Tracking and registry over a database, with artefacts in a folder of the home."""

    name: str = "mlflow"
    title: str = "MLflow"
    start_timeout_s: float = 180.0
    stop_grace_s: float = 8.0

    def ports(self) -> Sequence[str]:
        """One port."""
        return ("mlflow",)

    def prepare(self, context: Context) -> None:
        """Make the folders and the session key."""
        (context.home / "mlflow" / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
        private_secret(context.home / "mlflow" / "session.key")

    def command(self, context: Context) -> Sequence[str]:
        """Run our server."""
        return python_command("headway.cluster.local.servers.mlflow", str(context.home), str(context.port("mlflow")))

    def environment(self, context: Context) -> Mapping[str, str]:
        """Return what `mlflow server` hands to its workers."""
        artefacts = (context.home / "mlflow" / "artifacts").as_uri()
        port = context.port("mlflow")
        return {
            "_MLFLOW_SERVER_FILE_STORE": context.settings.mlflow_database,
            "_MLFLOW_SERVER_REGISTRY_STORE": context.settings.mlflow_database,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artefacts,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": private_secret(context.home / "mlflow" / "session.key"),
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{LOOPBACK}:{port},localhost:{port}",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{LOOPBACK}:{port}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "OMP_NUM_THREADS": "1",
        }

    def healthy(self, context: Context) -> bool:
        """Ask for its health: the port opens once the database is migrated."""
        return answers_http(context.port("mlflow"), "/health")
