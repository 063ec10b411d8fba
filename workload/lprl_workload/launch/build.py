"""A RunConfig -> a Loop with its groups, on Ray or in this process."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lprl_api.derived.effective import evaluation_sampling
from lprl_api.derived.residency import ENGINE_PARTS
from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Reward
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.agent.named import check_episode
from lprl_workload.agent.runner import make_draw
from lprl_workload.checkpoint.owner import checked_content, note_owner, owner_of, resumed_from
from lprl_workload.checkpoint.store import CheckpointStore, intact_checkpoint
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Prompt
from lprl_workload.folder.config import check_trainable
from lprl_workload.folder.model import read_contents
from lprl_workload.launch.backends import check_accelerator, check_backends, check_fields, make_engine, make_trainer, set_up_process
from lprl_workload.launch.sandboxes import open_clerk
from lprl_workload.metrics.progress import Reporter
from lprl_workload.rl.collect import Collector, Score
from lprl_workload.rl.device import shares_devices
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rl.groups import RolloutGroup, TrainGroup
from lprl_workload.rl.loop import Loop
from lprl_workload.rl.records import Records
from lprl_workload.rollout.dataset import PromptDataset
from lprl_workload.rollout.decode import response_decoder
from lprl_workload.rollout.end_tokens import end_token_ids
from lprl_workload.rollout.pool import ROWS
from lprl_workload.rollout.prompt_tokens import context_of
from lprl_workload.rollout.reward import RewardItem, make_scorer
from lprl_workload.rollout.tokens import load_tokenizer

T = TypeVar("T")
log = logging.getLogger(__name__)
Groups = Callable[[RunConfig, ResolvedPaths], tuple[TrainGroup, RolloutGroup]]


@dataclass(slots=True)
class Assembled:
    """A run ready to start, and what has to be closed after it."""

    loop: Loop
    trainer: TrainGroup
    rollout: RolloutGroup
    records: Records
    resumed: str = ""
    """What was resumed of an earlier job of this name, in words."""

    def close(self) -> None:
        """Stop the groups and the sinks."""
        self.trainer.close()
        self.rollout.close()
        self.records.close()


def local_groups(run: RunConfig, paths: ResolvedPaths) -> tuple[TrainGroup, RolloutGroup]:
    """Return groups in this process: one trainer rank whatever the plan says, and the planned engines."""
    from lprl_workload.launch.local import LocalRolloutGroup, LocalTrainGroup

    set_up_process()
    device = "cpu" if run.ranks.accelerator == "cpu" else "cuda:0"
    engines, rows, draw = run.ranks.engines, run.rollout.max_concurrency or ROWS, make_draw(run, paths)
    made = engines, run.rollout_format, rows, draw, open_clerk(run)
    rollout = LocalRolloutGroup(lambda fmt: make_engine(run, paths, fmt, device), *made)
    if shares_devices(run):
        rollout.sleep(ENGINE_PARTS)
    return LocalTrainGroup(lambda: make_trainer(run, paths, RankInfo(0, 1, device)), rollout, run, paths.model), rollout


def ray_groups(run: RunConfig, paths: ResolvedPaths, waits: Callable[[str], None]) -> tuple[TrainGroup, RolloutGroup]:
    """Connect to the Ray cluster at RAY_ADDRESS, wait for its workers and return groups of actors there (`waits`: see wait_for_room)."""
    from lprl_workload.launch.ray_cluster import RayTrainGroup
    from lprl_workload.launch.ray_engines import RayRolloutGroup
    from lprl_workload.launch.ray_link import connect
    from lprl_workload.launch.ray_room import wait_for_room

    connect()
    wait_for_room(run.ranks, waits)
    if shares_devices(run):
        # A trainer comes with all its parts: the engines are there first, and make way.
        rollout = RayRolloutGroup(run, paths)
        rollout.sleep(ENGINE_PARTS)
        alone = RayTrainGroup(run, paths)
        alone.rollout = rollout
        return alone, rollout
    # Side by side: starting a process that imports torch is most of the time.
    with ThreadPoolExecutor(1) as pool:
        engines = pool.submit(RayRolloutGroup, run, paths)
        trainer = _both(lambda: RayTrainGroup(run, paths), engines)
    trainer.rollout = engines.result()
    return trainer, trainer.rollout


def lacking_now(run: RunConfig) -> str:
    """Return which slots of a run the Ray cluster does not offer any more, in words. Blocks when Ray does not answer."""
    from lprl_workload.launch.ray_room import lacking

    return lacking(run.ranks)


def _both(make: Callable[[], T], beside: "Future[Any]") -> T:
    """Make one thing while another is made; of two errors the one that is no chance is raised: the other may come of it."""
    try:
        made = make()
    except Exception as error:
        other = beside.exception()
        if isinstance(other, UserError) and not isinstance(error, UserError):
            raise other from error
        raise
    beside.result()
    return made


def check_folders(run: RunConfig, paths: ResolvedPaths) -> None:
    """Raise UserError naming field and path when a model folder is not there, is none, or is no model that can be trained."""
    places = (("modelPath", run.model_path), ("referencePath", run.reference_path), ("rolloutPath", run.rollout_path))
    for (field, place), folder in zip(places, (paths.model, paths.reference, paths.rollout), strict=True):
        if not (folder / "config.json").is_file():
            found = "no config.json in it" if folder.is_dir() else "no such folder"
            raise UserError(f"RunConfig.{field} {place}: {found} ({folder})", "name the folder of a Hugging Face model inside the volume")
    for folder in dict.fromkeys((paths.model, paths.reference, paths.rollout)):
        check_trainable(folder)
        for note in read_contents(folder).notes:
            log.warning("%s: %s", folder, note)


def assemble(run: RunConfig, paths: ResolvedPaths, attempt: int, reporter: Reporter, groups: Groups, recorded_step: int = 0) -> Assembled:
    """Put a run together: input is checked before anything is written and any actor starts. Raises UserError.

    `recorded_step`: of the checkpoint that an earlier attempt reported, 0 for none.
    """
    check_backends(run.backends)
    check_accelerator(run.backends, run.ranks.accelerator)
    check_fields(run.backends, run.ranks.accelerator, run.trainer, run.optimizer, run.precision)
    check_folders(run, paths)
    me = owner_of(run)
    before = checked_content(paths.run, me, str(run.checkpoint.directory))
    store = CheckpointStore(paths.run, attempt, run.checkpoint.keep)
    store.take_over()
    note_owner(before, me)
    if recorded_step and not store.steps():
        raise store.nothing_to_resume(recorded_step)
    load_from = intact_checkpoint(paths.load_from)[0] if paths.load_from is not None and not store.steps() else None
    tokenizer: Any = load_tokenizer(paths.rollout)
    told = check_episode(run.episode, run.data, tokenizer)
    room = {"context": context_of(run), "response": run.sampling.max_response_tokens}
    dataset = PromptDataset(paths.prompts, run.data, tokenizer, run.algorithm.seed, **room, tools=told)
    decode = response_decoder(tokenizer, end_token_ids(paths.rollout, tokenizer), run.sampling.stop_token_ids)
    collector = Collector(run, dataset, make_score(run.data.reward), decode)
    evaluator = make_evaluator(run, paths, tokenizer, collector, told)
    trainer, rollout = groups(run, paths)
    records = Records(paths.run, attempt)
    loop = Loop(run, trainer, rollout, collector, evaluator, store, records, reporter, load_from, recorded_step)
    return Assembled(loop, trainer, rollout, records, resumed_from(before, me))


def make_score(reward: Reward) -> Score:
    """Return the reward function of a job over prompts and responses."""
    scorer = make_scorer(reward)

    def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        pairs = zip(prompts, responses, strict=True)
        return scorer.score([RewardItem(p.text, text, p.label, p.metadata, p.origin) for p, text in pairs])

    return score


def make_evaluator(
    run: RunConfig, paths: ResolvedPaths, tokenizer: Any, collector: Collector, told: Sequence[Any] = ()
) -> Evaluator | None:
    """Return the held-out evaluation, None when the job has none; `told`: schemas of the tools the model is told of."""
    if run.evaluation is None or paths.evaluation_prompts is None:
        return None
    data = run.data.model_copy(update={"prompts": run.evaluation.prompts, "shuffle": False})
    room = {"context": context_of(run), "response": evaluation_sampling(run.evaluation, run.sampling).max_response_tokens}
    dataset = PromptDataset(paths.evaluation_prompts, data, tokenizer, run.algorithm.seed, **room, tools=told)
    return Evaluator(run.evaluation, dataset, collector, run.sampling, run.algorithm.seed)
