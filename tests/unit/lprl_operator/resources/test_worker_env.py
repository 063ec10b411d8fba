"""What worker pods get in their environment."""

import pytest
from tests.unit.lprl_operator.resources.test_render import BF16, templates

SPLIT = {"accelerator": "H100-80GB", "placement": "split", "nodes": 2, "trainer": {"nodes": 1}, "rollout": {"nodes": 1}}
COLOCATED = {"accelerator": "H100-80GB", "placement": "colocated", "nodes": 1}


@pytest.mark.parametrize(("topology", "group", "has"), [(SPLIT, "trainer", True), (SPLIT, "rollout", False), (COLOCATED, "workers", True)])
def test_one_connection_a_device_is_for_trainers_only(rendered, topology, group, has):
    """It orders a trainer's collectives; an engine's streams would only wait for each other."""
    pod = templates(rendered(topology=topology, precision=BF16))[group]
    variables = {e["name"] for e in pod["spec"]["containers"][0]["env"]}
    assert ("CUDA_DEVICE_MAX_CONNECTIONS" in variables) is has and "NCCL_DEBUG" in variables
