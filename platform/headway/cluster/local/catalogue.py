"""Which services make up a platform, and how people read their addresses."""

from __future__ import annotations

from headway.cluster.local.service import Context, Service
from headway.cluster.local.services.issuer import IssuerService
from headway.cluster.local.services.mlflow import MlflowService
from headway.cluster.local.services.ray import RayService
from headway.cluster.local.services.redis import RedisService


def services() -> tuple[Service, ...]:
    """Return the services of a platform, those that take longest first."""
    return (
        RayService(),
        MlflowService(),
        IssuerService(),
        RedisService(name="redis-features", durable=False),
        RedisService(name="redis-control", durable=True),
        RedisService(name="redis-stream", durable=True),
    )


def address(context: Context, name: str) -> str:
    """Return where a port is reached, for people."""
    scheme = next((known for known in ("redis", "ray", "grpc") if name.startswith(known)), "http")
    host = context.settings.http_host if name in ("http", "grpc") else "127.0.0.1"
    return f"{scheme}://{host}:{context.port(name)}"
