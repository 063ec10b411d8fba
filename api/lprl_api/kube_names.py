"""Names and labels as the API server takes them, so that a pod is not refused for one when the job is long under way."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_SUBDOMAIN = r"[a-z0-9]+((-+|\.)[a-z0-9]+)*"
"""Labels of letters, digits and inner dashes, joined by dots; short, because the CRD says it 300 times and has little room."""
_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
SUBDOMAIN_PATTERN = rf"^{_SUBDOMAIN}$"
KEY_PATTERN = rf"^({_SUBDOMAIN}/)?{_PART}$"
TAINT_PATTERN = rf"^(({_SUBDOMAIN}/)?{_PART})?$"
VALUE_PATTERN = rf"^({_PART})?$"
DEVICE_PATTERN = rf"^{_SUBDOMAIN}/{_PART}$"
DATA_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"
VARIABLE_PATTERN = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
FIELD_PATTERN = (
    r"^(metadata\.(name|namespace|uid|(labels|annotations)\['[^'\x00-\x1f\x7f]+'\])"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?))$"
)
WORD_PATTERN = r"^[^\s\x00-\x1f\x7f]+$"
MAX_KEY, MAX_NAME = 317, 253
PATTERN_WORDS = {
    SUBDOMAIN_PATTERN: "a name of lower case letters, digits, dashes and dots, no slash",
    KEY_PATTERN: "a key [PREFIX/]NAME: letters, digits, dashes, dots and underscores, NAME at most 63, PREFIX a domain",
    TAINT_PATTERN: "a key [PREFIX/]NAME of a taint: letters, digits, dashes, dots and underscores",
    VALUE_PATTERN: "at most 63 letters, digits, dashes, dots and underscores that begin and end with a letter or digit",
    DEVICE_PATTERN: "DOMAIN/NAME, such as rdma/hca_shared_devices_a",
    DATA_KEY_PATTERN: "letters, digits, dashes, dots and underscores",
    VARIABLE_PATTERN: "letters, digits, dashes, dots and underscores that do not begin with a digit",
    FIELD_PATTERN: "a field such as metadata.name, metadata.labels['KEY'], spec.nodeName or status.podIP",
    WORD_PATTERN: "no white space or control characters",
}
"""What a pattern means, for messages."""

ObjectName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=SUBDOMAIN_PATTERN)]
"""Name of a Secret, claim, class: a DNS subdomain."""
LabelKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY, pattern=KEY_PATTERN)]
"""Key of a label, annotation, toleration or resource."""
LabelValue = Annotated[str, Field(max_length=63, pattern=VALUE_PATTERN)]
DataKey = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=DATA_KEY_PATTERN)]
"""Key inside a Secret or ConfigMap."""


def _name_of(value: Any) -> Any:
    """Return the name in `{name: x}`, anything else as it is."""
    return value["name"] if isinstance(value, Mapping) and set(value) == {"name"} else value


def _named(pattern: str, max_length: int) -> Any:
    schema = {"type": "string", "minLength": 1, "maxLength": max_length, "pattern": pattern, "x-also": "object"}
    return Annotated[str, Field(min_length=1, max_length=max_length, pattern=pattern), BeforeValidator(_name_of), WithJsonSchema(schema)]


ReferenceName = _named(SUBDOMAIN_PATTERN, MAX_NAME)
"""A name, or Kubernetes' `{name: NAME}`; held as the name."""
GateName = _named(KEY_PATTERN, MAX_KEY)
"""The same for scheduling gates."""


def is_prefixed(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a label's key is one of `prefixes`, or below one that ends with a slash."""
    return any(key == p or (p.endswith("/") and key.startswith(p)) for p in prefixes)
