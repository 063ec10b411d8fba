"""Pod templates on this machine: environment, paths, Secrets, Ray flags."""

import sys
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_operator.places.local.environment import PodContext, resolve, write_secret
from lprl_operator.places.local.folders import Folders
from lprl_operator.places.local.rayclusters import cpus, host_of, start_params

VOLUMES = [
    {"name": "vol-models", "persistentVolumeClaim": {"claimName": "big-claim"}},
    {"name": "config", "configMap": {"name": "settings"}},
    {"name": "tmp", "emptyDir": {}},
    {"name": "shm", "emptyDir": {"medium": "Memory"}},
]
MOUNTS = [
    {"name": "vol-models", "mountPath": "/volumes/models"},
    {"name": "config", "mountPath": "/etc/lprl"},
    {"name": "tmp", "mountPath": "/tmp"},
    {"name": "shm", "mountPath": "/dev/shm"},
]


def invocation(  # type: ignore[no-untyped-def]
    tmp_path: Path, env: list[dict[str, Any]], command: list[str], over: dict[str, str] | None = None, ours: list[str] | None = None
):
    folders = Folders.of(tmp_path / "state", tmp_path / "volumes")
    context = PodContext("pod-0", "u1", "default", {"lprl.dev/role": "convert"}, {}, tmp_path / "state" / "pods" / "pod-0", over or {})
    container = {"name": "work", "command": command, "env": env, "volumeMounts": MOUNTS}
    return resolve({"volumes": VOLUMES, "containers": [container]}, container, context, folders, ours)


CASES = [
    pytest.param([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)y"}], "B", "xy", id="reference-to-an-earlier-variable"),
    pytest.param([{"name": "B", "value": "$(NOPE)"}], "B", "$(NOPE)", id="unknown-reference-stays"),
    pytest.param([{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}], "N", "default", id="namespace"),
    pytest.param([{"name": "R", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['lprl.dev/role']"}}}], "R", "convert", id="label"),
    pytest.param([], "OMP_NUM_THREADS", "1", id="one-thread-by-default"),
    pytest.param([{"name": "OMP_NUM_THREADS", "value": "4"}], "OMP_NUM_THREADS", "4", id="the-pod-says-otherwise"),
]


@pytest.mark.parametrize(("env", "name", "want"), CASES)
def test_environment(tmp_path: Path, env: list[dict[str, Any]], name: str, want: str) -> None:
    assert invocation(tmp_path, env, ["python"]).env[name] == want


def test_the_callers_own_settings_do_not_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    monkeypatch.setenv("LPRL_ATTEMPT", "9")
    found = invocation(tmp_path, [], ["python"]).env
    assert "RAY_ADDRESS" not in found and "LPRL_ATTEMPT" not in found


def test_the_controller_wins_over_the_template(tmp_path: Path) -> None:
    found = invocation(tmp_path, [{"name": "RAY_ADDRESS", "value": "127.0.0.1:6379"}], ["python"], {"RAY_ADDRESS": "127.70.1.1:5"})
    assert found.env["RAY_ADDRESS"] == "127.70.1.1:5"


def test_a_command_of_ours_is_local_already_also_where_this_environment_lies_below_a_mount(tmp_path: Path) -> None:
    ours = ["/tmp/checkout/.venv/bin/python3", "-m", "lprl_operator.places.local.ray_node", "--temp-dir=/tmp/x", "/etc/lprl"]
    assert invocation(tmp_path, [], ["ray", "start"], ours=ours).command == ours


def test_mounted_paths_become_local(tmp_path: Path) -> None:
    words = ["python", "/etc/lprl/a.json", "/volumes/models/x", "/etc/lprlx", "/dev/shm/y", "/tmp"]
    command = invocation(tmp_path, [], words).command
    state = tmp_path / "state"
    assert command == [
        sys.executable,
        f"{state}/configmaps/settings/a.json",
        f"{tmp_path}/volumes/big-claim/x",
        "/etc/lprlx",
        "/dev/shm/y",
        f"{state}/pods/pod-0/scratch/tmp",
    ]
    assert (state / "mounts" / "models").resolve() == (tmp_path / "volumes" / "big-claim").resolve()


def test_secrets_are_private_files(tmp_path: Path) -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    with pytest.raises(UserError, match="Secret hub has no key token"):
        invocation(tmp_path, env, ["python"])
    folders = Folders.of(tmp_path / "state", tmp_path / "volumes")
    write_secret(folders, "hub", "token", "s3cret")
    assert invocation(tmp_path, env, ["python"]).env["TOKEN"] == "s3cret"
    assert (folders.secrets / "hub" / "token").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("amount", "want"), [("500m", 1), ("1", 1), ("1500m", 2), ("8", 8)])
def test_cpus_round_up(amount: str, want: int) -> None:
    assert cpus(amount) == want


def test_ray_flags_lose_the_shells_quotes() -> None:
    params = {"num-cpus": "0", "resources": '"{\\"slot\\": 1}"', "block": "true", "no-monitor": "true", "log-color": "false"}
    assert start_params(params, ("block",)) == ["--num-cpus=0", '--resources={"slot": 1}', "--no-monitor"]


def test_nodes_have_addresses_of_their_own() -> None:
    found = {host_of("abc", i) for i in range(5)}
    assert len(found) == 5 and all(h.startswith("127.") for h in found)
