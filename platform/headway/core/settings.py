"""Settings of a Headway installation: `headway.toml` < environment < flags (INTERFACES §5), parsed once at the edge."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from headway.core.errors import DefinitionError, names_near

_LOG = logging.getLogger(__name__)
SETTINGS_FILE = "headway.toml"
_PREFIX = "HEADWAY_"
_OTHERS = re.compile(
    r"background_niceness|feed_database|job|lock_sha256|platform|service|serving_hook|(benchmark|test).*"
)
"""Names of the environment that are read elsewhere."""
_SERVICE_LINK = re.compile(r".*(_service_(host|port)|_port_\d+_(tcp|udp))(_.*)?")
"""Names that Kubernetes gives the addresses of services, which may begin as ours do."""


class Settings(BaseSettings):
    """Where things are and how to reach them; empty service addresses mean the embedded service of `headway up`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, toml_file=SETTINGS_FILE, extra="forbid", frozen=True)

    home: Path = Path(".headway")
    """State of the embedded platform: ports, logs, keys, lake, spools."""
    project: Path = Field(default_factory=Path.cwd)
    """Folder that holds the definition folders (features, training, serve_apps, monitoring)."""
    redis_features_url: str = ""
    """Online features; the same round trip carries limits and idempotency keys."""
    redis_control_url: str = ""
    """Routing, loop and monitor state; append-only, fsync always."""
    stream_url: str = ""
    """Event streams: a Redis-protocol server, append-only with fsync always, or `kafka://host:port,host:port`."""
    mlflow_uri: str = ""
    """Registry and run tracking."""
    mlflow_database: str = ""
    """Database behind an embedded MLflow; empty: SQLite in `home`."""
    catalog_uri: str = ""
    """Iceberg catalog; empty: SQLite in `home`."""
    warehouse: str = ""
    """Iceberg warehouse; empty: a folder in `home`."""
    oidc_issuers: tuple[str, ...] = ()
    """Trusted token issuers; empty: the development issuer of `home`."""
    signing_key: str = ""
    """Path of the private key that signs model versions; empty: the development key of `home`."""
    trust_root: str = ""
    """Path of the JSON trust root; empty: the development one of `home`."""
    require_production: bool = False
    """Whether only versions that two people promoted to production may serve; off for development."""
    http_host: str = "127.0.0.1"
    """Address that Serve listens on."""
    http_port: int = Field(default=8000, ge=1, le=65535)
    """Wanted HTTP port; the next free one is taken if it is in use."""
    grpc_port: int = Field(default=9000, ge=1, le=65535)
    """Wanted gRPC port; the next free one is taken if it is in use."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def unread(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none."""
    return sorted(name for name, value in environment.items() if _stray(name.lower(), value))


def _stray(name: str, value: str) -> bool:
    prefix = _PREFIX.lower()
    short = name.removeprefix(prefix)
    if not name.startswith(prefix) or short in Settings.model_fields or _OTHERS.fullmatch(short):
        return False
    return not _SERVICE_LINK.fullmatch(name) and not value.startswith(("tcp://", "udp://"))


def load_settings(**flags: object) -> Settings:
    """Return settings with absolute `home` and `project`; DefinitionError names the bad field.

    A variable of the environment that nothing reads is named in the log; in the file, what nothing reads is refused.
    """
    for name in unread(os.environ):
        near = names_near(name.removeprefix(_PREFIX).lower(), Settings.model_fields)
        _LOG.warning("the environment's %s is no setting%s", name, near)
    try:
        settings = Settings(**flags)  # type: ignore[arg-type]  # pydantic validates flag types at run time
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DefinitionError(
            str(first["msg"]), file=f"{SETTINGS_FILE} or environment", field=field, expected="see docs/settings.md"
        ) from None
    return settings.model_copy(
        update={"home": settings.home.expanduser().resolve(), "project": settings.project.expanduser().resolve()}
    )
