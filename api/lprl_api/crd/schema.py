"""Pydantic's JSON schema to a Kubernetes structural schema: no references, no unions, bounds on everything."""

import json
from typing import Any

from pydantic import BaseModel

from lprl_api.base import INT64_MAX, MAX_STRING
from lprl_api.crd.cel import Cel
from lprl_api.kube_names import PATTERN_WORDS

MAX_ITEMS, MAX_ENTRIES = 256, 64
_KEPT = ("type", "description", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems")
Schema = dict[str, Any]
REQUIRED = {"ConditionStatus": ("type", "status", "reason", "lastTransitionTime")}
"""By class name: what is required although everything else of a status may be absent."""


def structural(model: type[BaseModel], rules: dict[str, tuple[Cel, ...]], *, defaults: bool) -> Schema:
    """Return the structural schema of a model.

    `rules` holds CEL rules by class name, attached wherever the class appears. With `defaults` the schema carries the models'
    defaults, so that the API server fills them in; an absent object whose fields all have defaults becomes `{}` first.
    """
    document = model.model_json_schema(by_alias=True)
    return _Converter(document.get("$defs", {}), rules, defaults).convert(document)


class _Converter:
    def __init__(self, definitions: dict[str, Schema], rules: dict[str, tuple[Cel, ...]], defaults: bool) -> None:
        self.definitions, self.rules, self.defaults = definitions, rules, defaults

    def convert(self, node: Schema) -> Schema:
        """Return one node, structural."""
        if "$ref" in node:
            return self._reference(node)
        if "anyOf" in node or "oneOf" in node:
            return self._union(node)
        if "const" in node:
            node = {**node, "enum": [node["const"]]}
        if "prefixItems" in node:
            node = {**node, "items": node["prefixItems"][0]}
        found: Schema = {key: node[key] for key in _KEPT if key in node}
        if "x-also" in node:
            return _also(node, found)
        _exclusive(node, found)
        if found.get("type") == "object":
            self._object(node, found)
        elif found.get("type") == "array":
            found["items"] = self.convert(node["items"])
            found.setdefault("maxItems", MAX_ITEMS)
        elif found.get("type") == "string" and "enum" not in found:
            found.setdefault("maxLength", MAX_STRING)
        elif found.get("type") == "integer" and "enum" not in found:
            found["format"] = "int64"
            if found.get("maximum") == INT64_MAX:  # what the format says; as a float64 bound it would be one too many
                del found["maximum"]
        self._default(node, found)
        return found

    def _reference(self, node: Schema) -> Schema:
        name = node["$ref"].rsplit("/", 1)[-1]
        found = self.convert(self.definitions[name])
        if "description" in node:
            found["description"] = node["description"]
        if name in REQUIRED:
            found["required"] = list(REQUIRED[name])
        if name in self.rules:
            found["x-kubernetes-validations"] = [rule.document() for rule in self.rules[name]]
        self._default(node, found)
        return found

    def _union(self, node: Schema) -> Schema:
        branches = node.get("anyOf") or node["oneOf"]
        real = [branch for branch in branches if branch.get("type") != "null"]
        described = {"description": node["description"]} if "description" in node else {}
        if len(real) > 1:
            if [(branch.get("type"), branch.get("const")) for branch in real] != [("integer", None), ("string", "auto")]:
                raise TypeError(f"no structural schema is known for the union {json.dumps(real)[:300]}: teach `_union` to write it")
            found: Schema = {**described, "x-kubernetes-int-or-string": True}
            found["x-kubernetes-validations"] = [_number_or_auto(real[0]).document()]
        else:
            found = {**self.convert(real[0]), **described}
        if len(real) < len(branches):
            found["nullable"] = True
        self._default(node, found)
        return found

    def _object(self, node: Schema, found: Schema) -> None:
        if "properties" in node:
            found["properties"] = {name: self.convert(child) for name, child in node["properties"].items()}
            if node.get("required") and self.defaults:
                found["required"] = node["required"]
        elif values := _mapping_values(node):
            found["additionalProperties"] = self.convert(values)
            found["maxProperties"] = node.get("maxProperties", MAX_ENTRIES)
            if rule := _keys_rule(node):
                found["x-kubernetes-validations"] = [rule.document()]
            if "minProperties" in node:
                found["minProperties"] = node["minProperties"]
        else:
            found["x-kubernetes-preserve-unknown-fields"] = True

    def _default(self, node: Schema, found: Schema) -> None:
        if not self.defaults or node.get("default") is None:
            return
        # Nested defaults stay where they are declared: `{}` lets the API server fill them in one level at a time.
        found["default"] = {} if "properties" in found else node["default"]


def _mapping_values(node: Schema) -> Schema | None:
    """Return the schema of a mapping's values, None for free-form objects."""
    constrained: list[Schema] = list(node.get("patternProperties", {}).values())
    values = constrained[0] if constrained else node.get("additionalProperties")
    return values if isinstance(values, dict) else None


def _keys_rule(node: Schema) -> Cel | None:
    """Return the rule of constrained keys: a structural schema has no word for them."""
    pattern = next(iter(node.get("patternProperties", ())), "")
    if pattern not in PATTERN_WORDS:
        return None
    matches, words = f"key.matches({json.dumps(pattern)})", f"must be {PATTERN_WORDS[pattern]}"
    named = f"self.filter(key, !{matches})[0] + {json.dumps(f': {words}')}"
    return Cel(f"self.all(key, {matches})", expression=named)


def _number_or_auto(number: Schema) -> Cel:
    rule, bounds = f"self >= {number['minimum']}", f"of at least {number['minimum']}"
    if number["maximum"] != INT64_MAX:
        rule, bounds = f"{rule} && self <= {number['maximum']}", f"from {number['minimum']} to {number['maximum']}"
    return Cel(f"type(self) == int ? {rule} : self == 'auto'", f"must be a number {bounds}, or auto")


def _also(node: Schema, found: Schema) -> Schema:
    """Text that may be written another way, too: a quantity as a number, a name as `{name: NAME}`."""
    del found["type"]
    if node["x-also"] == "integer":
        return {"x-kubernetes-int-or-string": True, "minimum": 0, **found}
    return {"x-kubernetes-preserve-unknown-fields": True, "required": ["name"], "maxProperties": 1, **found}


def _exclusive(node: Schema, found: Schema) -> None:
    """OpenAPI 3.0 has boolean exclusive bounds."""
    for key, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if key in node:
            found[bound], found[key] = node[key], True
