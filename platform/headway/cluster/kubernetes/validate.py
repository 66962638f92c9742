"""Strict validation of manifests: core kinds by their schemas, custom kinds by their CRDs, unknown fields refused.

The API server drops unknown fields of a CRD silently; here they are errors, because a misspelt security setting must
not pass. Rules in CEL (`x-kubernetes-validations`) are the API server's own and are not evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from headway.core.errors import InvalidValue

KUBERNETES = "1.37"
Schemas = Mapping[tuple[str, str], Any]


def load_crds(folder: Path) -> dict[tuple[str, str], Any]:
    """Return (apiVersion, kind) → strict JSON Schema of every CRD in the folder's YAML files."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schemas: dict[tuple[str, str], Any] = {}
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=loader):  # a safe loader, in C
            if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for version in spec["versions"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                schemas[key] = strict(version["schema"]["openAPIV3Schema"], top=True)
    return schemas


def strict(schema: Any, *, top: bool = False) -> Any:
    """Return a structural schema as JSON Schema that refuses fields it does not name."""
    if not isinstance(schema, dict):
        return schema
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    for key in ("items", "additionalProperties", "not"):
        if isinstance(result.get(key), dict):
            result[key] = strict(result[key])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in result and not schema.get("x-kubernetes-int-or-string"):
            # a branch adds conditions to named fields; what fields there are is said outside of it
            result[key] = [dict(branch) for branch in result[key]]
    if isinstance(result.get("properties"), dict):
        properties = {name: strict(value) for name, value in result["properties"].items()}
        if top:
            properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        result["properties"] = properties
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in result:
            result["additionalProperties"] = False
    return result


def validate(manifest: Mapping[str, Any], crds: Schemas) -> None:
    """Raise InvalidValue naming kind, field and what is wrong; a kind without a schema is wrong too."""
    import jsonschema
    import kubernetes_validate

    key = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
    place = f"{key[1]}/{manifest.get('metadata', {}).get('name', '')}"
    if key in crds:
        error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(crds[key]).iter_errors(manifest))
        if error is not None:
            raise InvalidValue(f"{place}.{'.'.join(str(part) for part in error.absolute_path)}", error.message[:300])
        return
    try:
        kubernetes_validate.validate(dict(manifest), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise InvalidValue(f"{place}.{'.'.join(str(part) for part in error.path)}", error.message[:300]) from error
    except kubernetes_validate.SchemaNotFoundError as error:
        raise InvalidValue(place, f"no schema for {key[0]} {key[1]}") from error


def read_manifests(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return every document of the files, kustomizations left out: they are no objects of a cluster."""
    documents = [document for path in paths for document in yaml.safe_load_all(path.read_text())]
    return [document for document in documents if document["kind"] != "Kustomization"]
