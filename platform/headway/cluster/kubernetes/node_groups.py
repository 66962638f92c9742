"""The team's `cluster/node_groups.yaml` and `prices.yaml`: which machines there are, and what an hour of one costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import yaml

from headway.core.errors import DefinitionError

T = TypeVar("T")
NODE_GROUPS = "cluster/node_groups.yaml"
PRICES = "cluster/prices.yaml"
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,30}$")]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Quantity = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]*(m|Mi|Gi|)$")]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class NodeGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machines of one kind that the autoscaler adds and removes."""

    name: Name
    market: Literal["on-demand", "spot"]
    """Spot machines may vanish: training runs there, replicas never do."""
    instance: str
    """Name in the price list."""
    min: Whole
    max: Whole
    cpu: Quantity
    memory: Quantity


class Services(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the services outside the Ray cluster are, without secrets."""

    gcs_redis: str
    """`redis://host:port` of the store that lets Ray's head restart without losing its cluster."""
    mlflow: str
    catalog: str
    warehouse: str
    issuers: tuple[str, ...]


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cluster/node_groups.yaml`."""

    image: str
    """With a digest or a fixed tag: a moving one would change running services unasked."""
    ray_version: str
    namespace: Name
    head_cpu: Quantity
    head_memory: Quantity
    services: Services
    groups: Annotated[tuple[NodeGroup, ...], msgspec.Meta(min_length=1)]


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine kind."""

    instance: str
    on_demand_per_hour: Positive
    spot_per_hour: Positive


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cluster/prices.yaml`."""

    currency: str
    origin: str
    """Where the figures come from, and of when."""
    prices: tuple[Price, ...]


def load_cluster(project: Path) -> Cluster:
    """Return the cluster definition; DefinitionError names file and field."""
    cluster = _load(project, NODE_GROUPS, Cluster)
    for index, group in enumerate(cluster.groups):
        if group.max < max(1, group.min):
            raise DefinitionError(
                f"{group.max} is less than min",
                file=NODE_GROUPS,
                field=f"groups[{index}].max",
                expected="at least min, at least 1",
            )
    if cluster.groups[0].market != "on-demand":
        raise DefinitionError(
            "replicas need a group that stays", file=NODE_GROUPS, field="groups[0].market", expected="on-demand"
        )
    tag = cluster.image.rpartition("/")[2]
    if ":" not in tag or tag.endswith(":latest"):
        raise DefinitionError(
            f"{cluster.image!r} moves", file=NODE_GROUPS, field="image", expected="a fixed tag or a digest"
        )
    return cluster


def load_prices(project: Path) -> Prices:
    """Return the price list; DefinitionError names file and field."""
    return _load(project, PRICES, Prices)


def _load(project: Path, name: str, kind: type[T]) -> T:
    try:
        return msgspec.convert(yaml.safe_load((project / name).read_text()), kind)
    except FileNotFoundError:
        raise DefinitionError("no such file", file=name, expected="the cluster's machines") from None
    except yaml.YAMLError as error:
        raise DefinitionError(f"is not YAML: {' '.join(str(error).split())}", file=name) from error
    except msgspec.ValidationError as error:
        raise DefinitionError(str(error), file=name, expected="see headway.cluster.kubernetes.node_groups") from error
