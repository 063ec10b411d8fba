"""Rules on what a spec refers to: volumes, sources, files."""

from collections.abc import Iterator
from typing import Any

from lprl_api.field_error import FieldError, wrong
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.sources import DataFile, ModelSource

_OF_A_SOURCE = (("volume", False), ("cache.volume", True))


def _sources(case: Case) -> Iterator[tuple[str, ModelSource]]:
    yield "model.source", case.spec.model.source
    if case.spec.model.reference is not None:
        yield "model.reference", case.spec.model.reference


def _files(case: Case) -> Iterator[tuple[str, DataFile]]:
    yield "data.prompts", case.spec.data.prompts
    if case.spec.evaluation is not None:
        yield "evaluation.prompts", case.spec.evaluation.prompts
    if case.spec.conversion.verify is not None:
        yield "conversion.verify.prompts", case.spec.conversion.verify.prompts


def _one_source(case: Case) -> Iterator[FieldError]:
    for path, source in _sources(case):
        named = [n for n, v in (("volume", source.volume), ("huggingFace", source.hugging_face), ("s3", source.s3)) if v is not None]
        if len(named) != 1:
            got = " and ".join(named) if named else "none of them"
            yield wrong(path, got, "exactly one of volume (with path), huggingFace or s3; remove the others")
        if source.volume is not None and source.path is None:
            yield wrong(f"{path}.path", None, "the model folder inside the volume")
        if source.path is not None and source.volume is None:
            yield wrong(f"{path}.volume", None, "the volume that holds path, or no path")
        if source.cache is not None and source.volume is not None:
            yield wrong(f"{path}.cache", str(source.cache), "no cache: a source on a volume is read in place")


VOLUMES = (
    *(("conversion.volume", True), ("checkpoint.volume", True), ("checkpoint.load_from.volume", False)),
    *(("data.prompts.volume", False), ("evaluation.prompts.volume", False)),
    ("conversion.verify.prompts.volume", False),
    *((f"model.{source}.{volume}", written) for source in ("source", "reference") for volume, written in _OF_A_SOURCE),
)
"""Attributes that name a volume, and whether it is written to."""


def _volume(attribute: str, written: bool) -> Rule:
    """Return the rule of one reference; each is a rule of its own, so that a gap in one hides no other."""
    path = attribute.replace("load_from", "loadFrom")

    def rule(case: Case) -> Iterator[FieldError]:
        name: Any = case.spec
        for part in attribute.split("."):
            name = getattr(name, part) if name is not None else None
        if name is None:
            return
        volumes = case.spec.volumes
        if name not in volumes:
            yield wrong(path, name, f"a key of spec.volumes ({', '.join(sorted(volumes))}), or add {name} there")
        elif written and volumes[name].read_only:
            yield wrong(f"volumes.{name}.readOnly", True, f"false, because spec.{path} is written to")

    return rule


def _data_files(case: Case) -> Iterator[FieldError]:
    for path, file in _files(case):
        if not file.path.endswith((".jsonl", ".parquet")):
            yield wrong(f"{path}.path", file.path, "a .jsonl or .parquet file")
        if file.last_row is not None and file.last_row <= file.first_row:
            yield wrong(f"{path}.lastRow", file.last_row, f"more than firstRow ({file.first_row})")


RULES: tuple[Rule, ...] = (_one_source, *(_volume(*row) for row in VOLUMES), _data_files)
