"""The contract of rollout engines on a real SGLang server: the very tests of tests/contract."""

from tests.contract.test_rollout_abilities import *  # noqa: F403
from tests.contract.test_rollout_damage import one_thread, test_damage_is_refused_before_a_request_is_served  # noqa: F401
from tests.contract.test_rollout_engine import *  # noqa: F403

del test_loads_its_own_folder_as_version_zero  # noqa: F821  servers start without weights
