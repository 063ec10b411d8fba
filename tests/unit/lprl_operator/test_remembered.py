"""What a look needs again at the next one is remembered: by the text of a spec, a report, an annotation, and never beyond it."""

import copy

from lprl_api.derived import effects
from lprl_api.rules.parse import parse_job
from lprl_operator.decide.decision import _read
from lprl_operator.resources import made_from


def test_a_spec_that_says_the_same_is_one_object(make_manifest) -> None:
    document = make_manifest()
    later = copy.deepcopy(document)
    later["metadata"]["resourceVersion"] = "2"
    first, second = parse_job(document), parse_job(later)
    assert first.spec is second.spec
    assert (first.metadata.resource_version, second.metadata.resource_version) == ("1", "2")


def test_an_edited_spec_is_another_one(make_manifest) -> None:
    document = make_manifest()
    first = parse_job(document)
    document["spec"]["suspend"] = True
    second = parse_job(document)
    assert not first.spec.suspend and second.spec.suspend
    assert effects.changed(effects.digests(first.spec), effects.digests(second.spec)) == ("suspend",)


def test_digests_are_made_once_a_spec_and_nobody_can_spoil_them(make_manifest) -> None:
    spec = parse_job(make_manifest(conversion={"volume": "models", "parallelism": 3})).spec
    made = effects._digests.cache_info().misses
    found = effects.digests(spec)
    kept = dict(found)
    found.clear()
    assert effects.digests(spec) == kept and effects._digests.cache_info().misses == made + 1


def test_two_specs_of_equal_size_are_not_taken_for_each_other(make_manifest) -> None:
    one, two = (parse_job(make_manifest(conversion={"volume": "models", "parallelism": n})).spec for n in (5, 6))
    assert effects.digests(one)["conversion"] != effects.digests(two)["conversion"]


def test_texts_that_cannot_be_read_stay_nothing() -> None:
    assert _read("{") is None and _read("{") is None
    assert made_from.read("{") is None and made_from.read("") is None
