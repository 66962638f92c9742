"""The validator refuses what the API server would silently drop."""

from __future__ import annotations

import copy

import pytest
import yaml

from headway.cluster.kubernetes.validate import Schemas, strict, validate
from headway.core.errors import InvalidValue
from tests.cluster.kubernetes.conftest import ROOT, Manifest, one


def test_a_misspelt_field_deep_inside_is_refused(manifests: list[Manifest], crds: Schemas) -> None:
    broken = copy.deepcopy(one(manifests, "RayService"))
    head = broken["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    head["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(InvalidValue, match="readOnlyRootFileSystem"):
        validate(broken, crds)


def test_a_wrong_word_or_type_is_refused_with_its_place(manifests: list[Manifest], crds: Schemas) -> None:
    broken = copy.deepcopy(one(manifests, "RayService"))
    broken["spec"]["rayClusterConfig"]["autoscalerOptions"]["version"] = "v3"
    with pytest.raises(InvalidValue, match=r"rayClusterConfig\.autoscalerOptions\.version"):
        validate(broken, crds)
    broken = copy.deepcopy(next(m for m in manifests if m["kind"] == "NetworkPolicy"))
    broken["spec"]["policyTypes"] = "Ingress"
    with pytest.raises(InvalidValue, match="policyTypes"):
        validate(broken, crds)


def test_unknown_kinds_and_fields_of_core_kinds_are_refused() -> None:
    with pytest.raises(InvalidValue, match="no schema"):
        validate({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}, {})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}, "automount": True}
    with pytest.raises(InvalidValue, match="automount"):
        validate(account, {})


def test_strict_keeps_free_form_places_free() -> None:
    schema = strict(
        {
            "type": "object",
            "properties": {
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
                "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            },
        }
    )
    assert schema["additionalProperties"] is False
    assert schema["properties"]["labels"]["additionalProperties"] == {"type": "string"}
    assert "additionalProperties" not in schema["properties"]["free"]
    assert schema["properties"]["port"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]


def test_base_and_overlays_are_valid_and_complete() -> None:
    kuberay = ROOT / "cluster" / "kuberay"
    seen = 0
    for kustomization in sorted(kuberay.rglob("kustomization.yaml")):
        for name in yaml.safe_load(kustomization.read_text())["resources"]:
            path = kustomization.parent / name
            assert path.exists()
            if path.is_file():
                validate(yaml.safe_load(path.read_text()), {})
                seen += 1
    assert seen == 5
