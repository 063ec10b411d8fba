"""What tests of rendered objects begin with."""

import pytest

from lprl_api.rules.parse import parse_job
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources.render import render_all


@pytest.fixture
def rendered(make_manifest, lib):
    """Factory: every document of a job by (kind, name)."""

    def make(inspection=None, labels=None, annotations=None, **changes):
        document = make_manifest(**changes)
        document["metadata"] |= {"labels": labels or {}, "annotations": annotations or {}}
        job = parse_job(document)
        found = inspection or lib.INSPECTION
        documents = render_all(job, make_plan(job.spec, inspection=found), found, lib.SETTINGS)
        return {(d["kind"], d["metadata"]["name"]): d for d in documents}

    return make
