"""What the images of this version hold. The workload's launch/backends.py makes exactly these (a test compares)."""

from collections.abc import Iterator
from typing import Literal

from lprl_api.field_error import FieldError, wrong
from lprl_api.spec.job import LowPrecisionRLJobSpec

WORKLOAD = "ghcr.io/lprl/workload"
"""Repository of this version's workload images, whatever their tag."""
HELD: dict[str, tuple[str, ...]] = {"trainer": ("torch",), "rollout": ("torch",)}
"""Backends they can run, by side."""


def missing_backends(spec: LowPrecisionRLJobSpec, operator_image: str = WORKLOAD) -> list[FieldError]:
    """Return the backends of a spec that its pods' images are known not to hold.

    Known are this version's own images only. What any other image holds (podTemplate.image, or an operator that is set up with
    another one than `operator_image`'s default), the inspect pod, which runs it, finds out.
    """
    return list(_missing(spec, operator_image))


def _missing(spec: LowPrecisionRLJobSpec, operator_image: str) -> Iterator[FieldError]:
    for side, backend in (("trainer", spec.backends.trainer), ("rollout", spec.backends.rollout)):
        image = _image(spec, "rollout" if side == "rollout" else "trainer") or operator_image
        if backend not in HELD[side] and _is_own(image):
            held = ", ".join(HELD[side])
            need = f"{held}: this version's images cannot run {backend}; or podTemplate.image with an image that holds it"
            yield wrong(f"backends.{side}", backend, need)


def _image(spec: LowPrecisionRLJobSpec, side: Literal["trainer", "rollout"]) -> str | None:
    """Return the image a job names for the pods of a side; None for the operator's."""
    template = spec.pod_template
    layers = [template, template.workers]
    if side == "rollout" and spec.topology.placement == "split":
        layers.append(template.rollout)
    return next((layer.image for layer in reversed(layers) if layer is not None and layer.image is not None), None)


def _is_own(image: str) -> bool:
    return image == WORKLOAD or image.startswith((f"{WORKLOAD}:", f"{WORKLOAD}@"))
