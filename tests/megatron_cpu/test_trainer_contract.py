"""The contract of trainers on Megatron, one rank: the very tests of tests/contract, but for those of what only the torch trainer has."""

from tests.contract.test_train_actor import *  # noqa: F403
from tests.contract.test_trainer_sleep import *  # noqa: F403
from tests.contract.test_trainer_state import *  # noqa: F403

# FSDP2's shards, and files of the torch trainer
del test_two_ranks_replicated_and_sharded_equal_one  # noqa: F821
del test_a_checkpoint_of_the_version_before_is_loaded  # noqa: F821
