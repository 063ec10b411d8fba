"""The generated CRD is committed, structural, bounded, and carries defaults and columns."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.crd.generate import crd, crd_yaml, schema
from lprl_api.kube_names import SUBDOMAIN_PATTERN
from lprl_api.rules.parse import parse_job

ROOT = Path(__file__).parents[3]
Path_ = tuple[str, ...]


def nodes(node: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Yield every schema node with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, (*path, name))
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], (*path, key))


def test_committed_crd_is_current() -> None:
    committed = (ROOT / "crds" / "lowprecisionrljobs.yaml").read_text()
    assert committed == crd_yaml(), "run `python -m lprl_api.crd > crds/lowprecisionrljobs.yaml`"


def test_structural_and_bounded() -> None:
    for path, node in nodes(schema()):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "prefixItems", "propertyNames"} & set(node), path
        if path and path[0] == "spec":
            name_or_object = node.get("x-kubernetes-preserve-unknown-fields") and node.get("required") == ["name"] and "pattern" in node
            assert "type" in node or node.get("x-kubernetes-int-or-string") or name_or_object, path
            if node.get("type") == "string" and "enum" not in node:
                assert "maxLength" in node, path
            if node.get("type") == "integer" and "enum" not in node:
                assert node["format"] == "int64", path
            if node.get("type") == "array":
                assert "maxItems" in node and "items" in node, path
            if isinstance(node.get("additionalProperties"), dict):
                assert "maxProperties" in node, path


def test_kubectl_apply_can_remember_it() -> None:
    assert len(json.dumps(crd(), separators=(",", ":"))) < 250_000, "kubectl keeps what it applied in an annotation of at most 256 KiB"


def test_every_field_is_described() -> None:
    named = [(p, n) for p, n in nodes(schema()) if p and p[-1] not in ("items", "additionalProperties")]
    fields = [(".".join(path), node) for path, node in named if path[0] in ("spec", "status")]
    assert len(fields) > 250
    assert [path for path, node in fields if not node.get("description")] == []


def test_an_optional_value_says_what_is_used_without_it() -> None:
    def optional(node: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
        for name, child in node.get("properties", {}).items():
            if name not in node.get("required", ()) and "properties" not in child:
                yield (*path, name), child
            yield from optional(child, (*path, name))
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                yield from optional(node[key], (*path, key))

    found = list(optional(schema()["properties"]["spec"]))
    assert [".".join(path) for path, node in found if "default" not in node["description"].lower()] == []


@pytest.mark.parametrize(
    ("path", "default"),
    [
        (("sampling", "temperature"), 1.0),
        (("topology", "nodes"), "auto"),
        (("precision", "fp8", "blockSize"), [128, 128]),
        (("optimizer",), {}),
        (("stability", "relativeLimit"), 5.0),
        (("backends", "trainer"), "torch"),
    ],
)
def test_defaults(path: tuple[str, ...], default: object) -> None:
    node = schema()["properties"]["spec"]
    for part in path:
        node = node["properties"][part]
    assert node["default"] == default


def apply_defaults(node: dict[str, Any], value: Any) -> Any:
    """Fill in defaults as the API server does."""
    if isinstance(value, dict) and "properties" in node:
        filled = dict(value)
        for name, child in node["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = child["default"]
            if name in filled:
                filled[name] = apply_defaults(child, filled[name])
        return filled
    return value


def test_defaulted_object_parses_to_the_same_job() -> None:
    manifest = preset_manifest("kimi-k2-thinking-int4")
    defaulted = {**manifest, "spec": apply_defaults(schema()["properties"]["spec"], manifest["spec"])}
    assert defaulted["spec"]["failurePolicy"]["maxRestarts"] == 3
    assert parse_job(defaulted) == parse_job(manifest)


def test_columns() -> None:
    columns = crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    narrow = [c["name"].upper() for c in columns if not c.get("priority")]
    wide = [c["name"].upper() for c in columns if c.get("priority")]
    assert narrow == ["PHASE", "PRECISION", "NODES", "CONVERTED", "STEP", "REWARD", "AGE"]
    assert wide == ["EVAL", "MISMATCH", "TOKENS/S", "ATTEMPT", "CHECKPOINT", "MESSAGE"]
    status = {".status." + ".".join(p[1:]) for p, _ in nodes(schema()) if p and p[0] == "status"}
    assert all(c["jsonPath"] in status for c in columns if c["jsonPath"].startswith(".status"))


def test_the_short_pattern_of_domains_says_what_kubernetes_says() -> None:
    theirs, ours = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"), re.compile(SUBDOMAIN_PATTERN)
    texts = ["".join(text) for length in range(8) for text in itertools.product("a-.A", repeat=length)]
    assert [text for text in texts if bool(theirs.match(text)) != bool(ours.match(text))] == []
