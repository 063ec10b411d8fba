"""What a decision is made from (Case) and what it is (Decision)."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal

from pydantic import ValidationError

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire import lenient
from lprl_api.wire.progress import Progress
from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide.actions import Action
from lprl_operator.decide.failures import parse_termination
from lprl_operator.decide.observed import ObjectRef, Observed
from lprl_operator.resources.render import Wanted

SOON_S = 1.0
"""After something was done: look at what came of it."""
LATER_S = 30.0
"""While waiting for others: a safety net below watches, and how often refused creates are tried again."""

ConditionValue = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about one condition now."""

    type: str
    status: ConditionValue
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """Done and wanted of something that is counted in a column."""

    done: int
    wanted: int

    def __str__(self) -> str:
        return f"{self.done}/{self.wanted}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to remember, what to say, what to do, and when to look again."""

    memory: LowPrecisionRLJobStatus
    """Status whose remembered fields (attempt, budget, times, failures, inspection) are up to date; the rest is the old one's."""
    findings: tuple[Finding, ...]
    actions: tuple[Action, ...] = ()
    requeue_seconds: float | None = LATER_S
    shards: Count | None = None
    nodes: Count | None = None

    def with_findings(self, *more: Finding) -> "Decision":
        """Return it with findings added; those already there win."""
        known = {f.type for f in self.findings}
        return replace(self, findings=(*self.findings, *(f for f in more if f.type not in known)))


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a decision depends on. Deciding twice on equal cases gives equal decisions."""

    job: LowPrecisionRLJob
    status: LowPrecisionRLJobStatus
    seen: Observed
    wanted: Wanted
    """Holds the plan and the inspection, None while unknown."""
    now: datetime
    problem: UserError | None = None
    """Why there is no plan: the schema, a rule or the memory says no."""
    problem_reason: str = names.Reason.INVALID_SPEC

    @property
    def uid(self) -> str:
        """The job's uid: children of a deleted job of the same name carry another one."""
        return self.job.metadata.uid

    def ref(self, api_version: str, kind: str, name: str) -> ObjectRef:
        """Identity of an object in the job's namespace."""
        return ObjectRef(api_version, kind, self.job.metadata.namespace, name)

    def remember(self, **changes: object) -> "Case":
        """Return the case with changed memory."""
        return replace(self, status=self.status.model_copy(update=changes))

    def progress(self) -> Progress | None:
        """Progress of the current attempt, its driver's last words included; that of another attempt, older than what is known,
        or unreadable text is ignored.
        """
        now = (self.status.attempt, self.status.progress_sequence)
        found = [p for p in (self._reported(), self._last_words()) if p is not None and p.attempt == now[0] and p.sequence >= now[1]]
        return max(found, key=lambda p: p.sequence, default=None)

    def _reported(self) -> Progress | None:
        return None if self.seen.progress is None else _read(self.seen.progress)

    def _last_words(self) -> Progress | None:
        """The termination message comes with the pod, whatever became of the ConfigMap."""
        head = self.seen.last_head(self.status.attempt)
        if head is None or head.driver is None or head.driver.state != "terminated":
            return None
        said = parse_termination(head.driver.message)
        return said.progress if said is not None else None

    def seconds_since(self, time: str | None) -> float:
        """Seconds from a status time until now; 0 for none."""
        return 0.0 if time is None else (self.now - parse_time(time)).total_seconds()

    def stamp(self, delay_s: float = 0.0) -> str:
        """Status time of now, or of `delay_s` seconds later."""
        return format_time(self.now + timedelta(seconds=delay_s))


@lru_cache(maxsize=4096)
def _read(text: str) -> Progress | None:
    """Return a report; None for what cannot be read. Remembered: it is asked for several times a look, and by looks between reports."""
    try:
        return lenient.read_json(Progress, text)
    except ValidationError:
        return None


def parse_time(text: str) -> datetime:
    """Parse a status time (RFC 3339, UTC)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def format_time(time: datetime) -> str:
    """Return a status time: RFC 3339 UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def judged_valid(status: LowPrecisionRLJobStatus, generation: int) -> bool:
    """Whether the spec of this generation was found valid before, by whichever version of the operator."""
    found = next((c for c in status.conditions if c.type == names.Condition.VALIDATED), None)
    return found is not None and found.status == "True" and found.observed_generation == generation
