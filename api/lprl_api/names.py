"""Every name the operator, the workload and the command line share.

Reasons are the vocabulary of conditions and events: CamelCase, stable, one row each in docs/failure-modes.md
(a test fails when a row is missing).
"""

GROUP = "lprl.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LowPrecisionRLJob"
PLURAL = "lowprecisionrljobs"
SINGULAR = "lowprecisionrljob"
SHORT_NAMES = ("lprljobs", "lprljob", "lprl")
MAX_NAME_LENGTH = 45
"""So that every child's name fits: a RayCluster's is a DNS-1035 label of at most 53 characters."""

LABEL_JOB = f"{GROUP}/job"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_ROLE = f"{GROUP}/role"
LABEL_CONTENT_KEY = f"{GROUP}/content-key"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "lprl"
ANNOTATION_MADE_FROM = f"{GROUP}/made-from"
"""On Jobs and RayClusters: what of the job they were made from (`MadeFrom`)."""
ANNOTATION_PODS = f"{GROUP}/pods"
"""On RayClusters: digest of its pods' specs. Another attempt runs in it as long as that is what the attempt needs."""
ANNOTATION_HELD = f"{GROUP}/held"
"""On RayClusters: suspended by the operator between two attempts, and by nobody else."""
ANNOTATION_NUDGED = f"{GROUP}/nudged"
"""On RayClusters: when it was written last so that KubeRay looks at it, RFC 3339."""
ANNOTATION_RECORDED_STEP = f"{GROUP}/recorded-step"
"""On head pods: step of the newest checkpoint that earlier attempts reported, which the driver must find."""
ANNOTATION_LIVE_SETTINGS = f"{GROUP}/live-settings"
"""On head pods: what takes effect at once (`LiveSettings`), as the attempt begins with it."""
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_PRIORITY = "kueue.x-k8s.io/priority-class"
"""On whatever Kueue holds and lets go."""
KUEUE_POD_SET = "kueue.x-k8s.io/podset-"
"""Prefix of annotations that Kueue reads from pod templates: the topology that a group of pods asks for."""
LABEL_KAI_QUEUE = "kai.scheduler/queue"
KAI_TOPOLOGY = "kai.scheduler/topology"
KAI_PLACEMENTS = ("kai.scheduler/topology-required-placement", "kai.scheduler/topology-preferred-placement")
"""Annotations: the name of a Topology, and levels of it."""
VOLCANO, VOLCANO_TOPOLOGY = "volcano.sh/", "volcano.sh/network-topology-"
VOLCANO_MODE, VOLCANO_TIER = f"{VOLCANO_TOPOLOGY}mode", f"{VOLCANO_TOPOLOGY}highest-tier-allowed"
"""Labels that KubeRay makes Volcano's PodGroup from."""
FIELD_MANAGER = "lprl-operator"

PROGRESS_KEY = "progress.json"
"""Key of the progress ConfigMap the driver writes."""
CONTROL_KEY = "control.json"
"""Key of the progress ConfigMap the operator writes and the driver reads back."""
RUN_CONFIG_KEY = "runconfig.json"


def progress_configmap(job: str, attempt: int) -> str:
    """Return the name of the ConfigMap through which driver and operator of an attempt talk; jobs' names have at most 45 characters."""
    return f"{job}-a{attempt}-progress"


ENV_ATTEMPT = "LPRL_ATTEMPT"
ENV_RECORDED_STEP = "LPRL_RECORDED_STEP"
"""Step of the checkpoint that an earlier attempt reported; absent, empty or 0 for none."""
ENV_LIVE_SETTINGS = "LPRL_LIVE_SETTINGS"
"""JSON of LiveSettings, which go before the same fields of RunConfig; absent or empty: those of RunConfig."""
ENV_VOLUMES_ROOT = "LPRL_VOLUMES_ROOT"
"""Folder under which each entry of spec.volumes is mounted by its name; default /volumes."""
DEFAULT_VOLUMES_ROOT = "/volumes"
ENV_LOCAL_CONFIGMAPS = "LPRL_LOCAL_CONFIGMAPS"
"""Set by the local adapter: folder whose files stand for ConfigMaps (NAME/KEY)."""
ENV_TERMINATION_LOG = "LPRL_TERMINATION_LOG"
"""File the workload writes its termination message to; default /dev/termination-log."""
TERMINATION_MESSAGE_BYTES = 4096
ENV_CALLED_AS = "LPRL_CALLED_AS"
"""How the user called a command of the workload, such as `lprl convert`; set by `lprl`, whose help and errors then say that."""
ENV_HOST_ADDRESS = "LPRL_HOST_ADDRESS"
"""Address other actors reach a process at; default: its Ray node's."""
ENV_PROMETHEUS_ADDRESS = "LPRL_PROMETHEUS_ADDRESS"
"""Address the driver's metrics listen on; default 127.0.0.1."""
ENV_REWARD_AUTHORIZATION = "LPRL_REWARD_AUTHORIZATION"
"""Value of the Authorization header to the reward service (data.reward.headersSecret)."""


def tool_authorization(place: int) -> str:
    """Return the variable with the value of the Authorization header to episode.tools[place] (its headersSecret)."""
    return f"LPRL_TOOL_AUTHORIZATION_{place}"


ENV_NODE_GROUP = "LPRL_NODE_GROUP"
"""Which group of nodes (podTemplate.topology.groupNodes) a worker is of, from 0; absent: the only one."""
ENV_LOCAL_CONTAINER = "LPRL_LOCAL_CONTAINER"
"""In the environment of every process of a local container: whose it is. Leftovers are found by it, never by name."""
ENV_SANDBOX_COMMANDS = "LPRL_SANDBOX_COMMANDS"
"""Set by `lprl run --sandbox`: JSON, by warm pool the command and folder of the process that stands for one of its sandboxes."""
ENV_POD_NAME, ENV_POD_UID = "POD_NAME", "POD_UID"
"""The driver's pod, which the SandboxClaims it makes belong to."""
SANDBOX_GROUP = "extensions.agents.x-k8s.io"
SANDBOX_API_VERSION = f"{SANDBOX_GROUP}/v1beta1"
"""Of agent-sandbox's SandboxWarmPool and SandboxClaim."""

TRAINER_SLOT, ROLLOUT_SLOT = "lprl_trainer", "lprl_rollout"
"""Ray resources: one unit per GPU (or process on cpu) that may train, that may serve."""


class Condition:
    """Condition types of status.conditions."""

    VALIDATED = "Validated"
    INSPECTED = "Inspected"
    CONVERTED = "Converted"
    CLUSTER_READY = "ClusterReady"
    PROGRESSING = "Progressing"
    TRAINING_STABLE = "TrainingStable"
    REWARD_SIGNAL = "RewardSignal"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"

    ALL = (VALIDATED, INSPECTED, CONVERTED, CLUSTER_READY, PROGRESSING, TRAINING_STABLE, REWARD_SIGNAL, SUSPENDED, COMPLETE, FAILED)


class Reason:
    """Reasons of conditions and events."""

    # Validated
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    DOES_NOT_FIT = "DoesNotFit"
    SHAPE_MISMATCH = "ShapeMismatch"
    SPEC_CHANGED = "SpecChanged"
    CORRECTED = "Corrected"
    # Inspected
    INSPECTING = "Inspecting"
    INSPECTED = "Inspected"
    INSPECTION_FAILED = "InspectionFailed"
    RESUMES_EARLIER_JOB = "ResumesEarlierJob"
    SANDBOX_POOL_NOT_READY = "SandboxPoolNotReady"
    # Converted
    CONVERTING = "Converting"
    FINALISING = "Finalising"
    CONVERTED = "Converted"
    CONVERSION_REUSED = "ConversionReused"
    CONVERSION_NOT_NEEDED = "ConversionNotNeeded"
    CONVERSION_FAILED = "ConversionFailed"
    WAITING_FOR_CONVERSION = "WaitingForConversion"
    # ClusterReady
    PROVISIONING = "Provisioning"
    WAITING_FOR_WORKERS = "WaitingForWorkers"
    CLUSTER_READY = "ClusterReady"
    CLUSTER_DELETED = "ClusterDeleted"
    CLUSTER_REFUSED = "ClusterRefused"
    KUBERAY_MISSING = "KubeRayMissing"
    WAITING_FOR_PODS_GONE = "WaitingForPodsGone"
    NODE_UNREACHABLE = "NodeUnreachable"
    QUEUED = "Queued"
    PROVISION_TIMEOUT = "ProvisionTimeout"
    # Progressing
    NOT_STARTED = "NotStarted"
    STARTING = "Starting"
    RUNNING = "Running"
    STALLED = "Stalled"
    RESTARTING = "Restarting"
    BACKING_OFF = "BackingOff"
    FINISHED = "Finished"
    # TrainingStable
    STABLE = "Stable"
    MEASURING_BASELINE = "MeasuringBaseline"
    MISMATCH_DRIFT = "MismatchDrift"
    CORRECTION_ENABLED = "CorrectionEnabled"
    UPDATES_HELD = "UpdatesHeld"
    ROLLED_BACK = "RolledBack"
    FELL_BACK_TO_BF16 = "FellBackToBF16"
    # RewardSignal
    MEASURING = "Measuring"
    VARIED = "Varied"
    ALL_ZERO = "AllZero"
    ALL_EQUAL = "AllEqual"
    # Suspended
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    NOT_SUSPENDED = "NotSuspended"
    # Complete and Failed
    SUCCEEDED = "Succeeded"
    NOT_FINISHED = "NotFinished"
    USER_ERROR = "UserError"
    HEAD_LOST = "HeadLost"
    EVICTED = "Evicted"
    FENCED = "Fenced"
    DRIVER_CRASHED = "DriverCrashed"
    WORKERS_LOST = "WorkersLost"
    OUT_OF_MEMORY = "OutOfMemory"
    STORAGE_FULL = "StorageFull"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    EPISODES_FAILED = "EpisodesFailed"
    REPEATED_FAILURE = "RepeatedFailure"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    EXECUTION_TIME_EXCEEDED = "ExecutionTimeExceeded"
    TTL_EXPIRED = "TTLExpired"


def all_reasons() -> tuple[str, ...]:
    """Return every reason constant, sorted."""
    return tuple(sorted(v for k, v in vars(Reason).items() if k.isupper()))


class ExitCode:
    """Exit codes of `python -m lprl_workload ...`; the failure table and podFailurePolicy read them.

    Values avoid 1 and 2 (Python's own), 126-165 (shells and signals).
    """

    OK = 0
    CRASH = 1
    """Unexpected error: retried."""
    USER_ERROR = 3
    """The input is wrong: never retried."""
    SUSPENDED = 4
    """The driver checkpointed and stopped because control asked for it."""
    STORAGE_FULL = 5
    """No space left where the job writes: never retried, the message names the volume."""
    FENCED = 6
    """A newer attempt owns the checkpoint store: this one must not go on."""
    TERMINATED = 143
    """The driver got SIGTERM and could make no checkpoint in time: what became of its pod says why. What shells report of a SIGTERM."""
    TRAINER_LOST = 7
    """Trainer ranks could not be rebuilt inside the attempt: retried as a new attempt."""
    PROGRAM_ERROR = 8
    """The driver met an error of program or input, not of chance: retried once; the same again at the same step ends the job."""
    EPISODES_FAILED = 9
    """More episodes of a step failed than the job allows: retried once, as a tool may be back; the same again ends the job."""
