"""The trainer's ranks as a mesh, in Megatron's order (pure): who is whose neighbour, who takes data, who answers.

Within a pipeline stage the tensor index runs fastest, then context, then data; stages are outermost:

    rank = ((stage * dp + data) * cp + context) * tp + tensor

Experts see the same ranks of a stage as another grid, expert-tensor fastest, then expert, then expert-data. Worked example,
TrainMesh(dp=2, tp=2, pp=2), 8 ranks:

    stage 0: ranks 0 1 hold data index 0, ranks 2 3 data index 1        take sequences (they embed tokens)
    stage 1: ranks 4 5 hold data index 0, ranks 6 7 data index 1        take sequences (they compute the loss)
    ranks 4 and 6 answer, for data index 0 and 1; data-parallel groups: (0 2) (1 3) (4 6) (5 7)
"""

from dataclasses import dataclass, fields

from lprl_api.wire.runconfig import RunConfig


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where a rank stands, every index 0-based."""

    data: int
    context: int
    tensor: int
    stage: int


@dataclass(frozen=True, slots=True)
class TrainMesh:
    """Sizes of the trainer's process groups. Raises ValueError for sizes that no grid has."""

    dp: int = 1
    """Data-parallel size: how many parts a batch is dealt in."""
    cp: int = 1
    """Context-parallel size: ranks that share the tokens of a sequence."""
    tp: int = 1
    pp: int = 1
    """Pipeline stages."""
    vpp: int = 1
    """Model chunks of a stage (interleaved pipeline)."""
    ep: int = 1
    """Expert-parallel size."""
    etp: int = 1
    """Tensor-parallel size inside an expert."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}: got {getattr(self, field.name)}, needs at least 1")
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"vpp: got {self.vpp}, needs more than one pipeline stage")
        if self.stage_ranks % (self.ep * self.etp):
            raise ValueError(f"ep x etp: got {self.ep} x {self.etp}, needs a divisor of the {self.stage_ranks} ranks of a stage")

    @property
    def stage_ranks(self) -> int:
        """Ranks of one pipeline stage: dp x cp x tp."""
        return self.dp * self.cp * self.tp

    @property
    def world(self) -> int:
        """Ranks in all."""
        return self.stage_ranks * self.pp

    @property
    def micro_batch_multiple(self) -> int:
        """What an interleaved pipeline's number of micro-batches is a multiple of: they go through it `pp` at a time."""
        return self.pp if self.vpp > 1 else 1

    def coordinates(self, rank: int) -> Coordinates:
        """Return where `rank` stands; `rank_at` undoes it."""
        if not 0 <= rank < self.world:
            raise ValueError(f"rank: got {rank}, needs 0 to {self.world - 1}")
        rest, tensor = divmod(rank, self.tp)
        rest, context = divmod(rest, self.cp)
        stage, data = divmod(rest, self.dp)
        return Coordinates(data, context, tensor, stage)

    def rank_at(self, data: int, context: int = 0, tensor: int = 0, stage: int = 0) -> int:
        """Return the rank that stands there."""
        return ((stage * self.dp + data) * self.cp + context) * self.tp + tensor

    def expert_coordinates(self, rank: int) -> tuple[int, int]:
        """Return where `rank` stands among experts: (expert index, expert-tensor index)."""
        inside = rank % self.stage_ranks
        return inside // self.etp % self.ep, inside % self.etp

    def takes_data(self, rank: int) -> bool:
        """Return whether `rank` needs the sequences of its data index: the first stage embeds them, the last computes their loss.

        Stages between need the plan only (how long each sequence of each micro-batch is).
        """
        return self.coordinates(rank).stage in (0, self.pp - 1)

    def data_ranks(self, data: int) -> tuple[int, ...]:
        """Return the ranks that take the sequences of data index `data`, ascending."""
        return tuple(rank for rank in range(self.world) if self.coordinates(rank).data == data and self.takes_data(rank))

    def answering_rank(self, data: int) -> int:
        """Return the one rank that answers for data index `data`: of the last stage, first in its tensor and context groups."""
        return self.rank_at(data, stage=self.pp - 1)

    def replicas(self, rank: int, of_experts: bool) -> tuple[int, ...]:
        """Return the ranks that hold the same dense weights as `rank` (over data and context), or the same experts; ascending."""
        at = self.coordinates(rank)
        stage = at.stage
        if of_experts:
            first, place = stage * self.stage_ranks, self.expert_coordinates(rank)
            return tuple(r for r in range(first, first + self.stage_ranks) if self.expert_coordinates(r) == place)
        return tuple(self.rank_at(data, context, at.tensor, stage) for data in range(self.dp) for context in range(self.cp))

    def data_parallel_groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the groups of ranks that hold the same part of the dense weights (over data indices), by their first rank."""
        found: dict[tuple[int, int, int], list[int]] = {}
        for rank in range(self.world):
            at = self.coordinates(rank)
            found.setdefault((at.stage, at.context, at.tensor), []).append(rank)
        return tuple(tuple(group) for group in found.values())

    def expert_groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the groups of `ep` ranks over which the experts of a stage are spread, by their first rank."""
        found: dict[tuple[int, int, int], list[int]] = {}
        for rank in range(self.world):
            stage, inside = divmod(rank, self.stage_ranks)
            found.setdefault((stage, inside // (self.etp * self.ep), inside % self.etp), []).append(rank)
        return tuple(tuple(group) for group in found.values())


def mesh_of(run: RunConfig) -> TrainMesh:
    """Return the trainer's ranks as planned."""
    layout = run.trainer
    return TrainMesh(
        dp=run.ranks.data_parallel,
        cp=layout.context,
        tp=layout.tensor,
        pp=layout.pipeline,
        vpp=layout.virtual_pipeline,
        ep=layout.expert,
        etp=layout.expert_tensor,
    )
