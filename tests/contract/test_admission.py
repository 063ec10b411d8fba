"""Bad manifests at apply time, on a real API server: schema, CEL rules and webhook together refuse every one of them."""

import base64
import copy
import importlib.util
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lprl_api import names
from lprl_api.crd.generate import crd
from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator import certificates
from lprl_operator.admission import review
from lprl_operator.controller import consider
from lprl_operator.decide.observed import Observed
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.resources.settings import RenderSettings
from lprl_operator.settings import Identity, Webhook
from lprl_operator.webhook import CertificateKeeper, WebhookServer

pytestmark = pytest.mark.cluster
NAMESPACE = "default"
JOBS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NOW = datetime.now(UTC)


def _illegal() -> ModuleType:
    """The table of illegal manifests and what makes documents of its rows."""
    path = Path(__file__).parents[1] / "unit" / "lprl_api" / "illegal" / "test_illegal.py"
    spec = importlib.util.spec_from_file_location("illegal_manifests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ILLEGAL = _illegal()
CASES = [pytest.param(c, id=c["id"]) for c in ILLEGAL.CASES]


@pytest.fixture(scope="module")
def api(api_server: None) -> KubeApi:
    connected = KubeApi.connect()
    try:
        connected.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd())
    except ApiError as error:
        assert error.reason == "AlreadyExists", error
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            connected.get(JOBS)
        except ApiError:
            time.sleep(0.1)
        else:
            break
    return connected


@pytest.fixture(scope="module")
def webhook(api: KubeApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The webhook in this process, reached by URL; its certificate is mounted, as cert-manager would."""
    folder = tmp_path_factory.mktemp("certificate")
    made = certificates.make(["localhost"], 1, NOW)
    (folder / "tls.crt").write_bytes(made.certificate)
    (folder / "tls.key").write_bytes(made.key)
    server = WebhookServer(0)
    settings = Webhook.model_validate({"certificate": "mounted", "certificateFolder": str(folder)})
    CertificateKeeper(api, settings, Identity(NAMESPACE, "test"), server, lambda: True).step(NOW)
    hook = {
        "name": "validate.lprl.dev",
        "clientConfig": {"url": f"https://localhost:{server.port}/validate", "caBundle": base64.b64encode(made.authority).decode()},
        "rules": [
            {"apiGroups": [names.GROUP], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [names.PLURAL]},
        ],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    document = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    api.post(HOOKS, {**document, "metadata": {"name": "lprl-test"}, "webhooks": [hook]})
    _until_refused(api)
    yield
    api.delete(f"{HOOKS}/lprl-test", {})
    server.stop()


def _until_refused(api: KubeApi) -> None:
    """The API server takes a moment to call a new webhook."""
    bad = ILLEGAL.patched("laptop", {"data.prompts.path": "train.csv"})
    deadline = time.monotonic() + 180
    while _refusal(api, bad) == "" and time.monotonic() < deadline:
        time.sleep(0.2)


def _refusal(api: KubeApi, document: dict[str, Any]) -> str:
    """Why a strict dry-run create is refused, empty when it is not. A webhook that takes too long on a busy machine is asked again."""
    deadline = time.monotonic() + 300
    while True:
        try:
            api.post(JOBS, document, dryRun="All", fieldValidation="Strict")
        except Unavailable:
            assert time.monotonic() < deadline
        except ApiError as error:
            assert error.status in (400, 422, 404), error
            return error.message
        else:
            return ""


def test_what_schema_and_cel_admit_ends_as_validated_false_with_the_webhooks_text(api: KubeApi) -> None:
    # First in this file: the webhook is not installed yet.
    admitted = 0
    for case in ILLEGAL.CASES:
        document = ILLEGAL.patched(case["base"], case["set"])
        if case["id"] in ("wrong-kind",) or _refusal(api, document):
            continue
        stored = api.post(JOBS, document, dryRun="All")
        status = consider(stored, Observed(), NOW, RenderSettings()).status
        said = LowPrecisionRLJobStatus.model_validate(status)
        validated = next(c for c in said.conditions if c.type == names.Condition.VALIDATED)
        response = review({"uid": "1", "operation": "CREATE", "object": stored})
        assert validated.status == "False", case["id"]
        assert validated.message == response["status"]["message"], case["id"]
        admitted += 1
    assert admitted >= 20  # else this test says nothing


@pytest.mark.parametrize("case", CASES)
def test_every_illegal_manifest_is_refused_naming_a_field(case: dict[str, Any], api: KubeApi, webhook: None) -> None:
    message = _refusal(api, ILLEGAL.patched(case["base"], case["set"]))
    assert message, "admitted"
    leaves = {path.split(".")[-1].split("[")[0].lstrip("/") for path in case["errors"]}
    assert any(leaf in message for leaf in leaves), message


@pytest.mark.parametrize("base", ILLEGAL.BASES)
def test_legal_manifests_are_admitted(base: str, api: KubeApi, webhook: None) -> None:
    assert _refusal(api, ILLEGAL.BASES[base]) == ""


def test_an_edit_that_leaves_the_spec_alone_always_passes() -> None:
    bad = ILLEGAL.patched("laptop", {"data.prompts.path": "train.csv"})
    labelled = copy.deepcopy(bad)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert review({"uid": "1", "operation": "UPDATE", "object": labelled, "oldObject": bad})["allowed"]
    assert not review({"uid": "1", "operation": "CREATE", "object": bad})["allowed"]
    going = {**bad, "metadata": {**bad["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert review({"uid": "1", "operation": "UPDATE", "object": going, "oldObject": ILLEGAL.BASES["laptop"]})["allowed"]


def test_the_leader_makes_renews_and_announces_the_certificate(api: KubeApi) -> None:
    settings = Webhook.model_validate({"enabled": True, "secretName": "lprl-cert-test", "configurationName": "lprl-keeper-test"})
    hook = {
        "name": "validate.lprl.dev",
        "clientConfig": {"service": {"name": "lprl-webhook", "namespace": NAMESPACE, "path": "/validate"}},
        "rules": [{"apiGroups": ["none.lprl.dev"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothing"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    meta = {"metadata": {"name": "lprl-keeper-test"}}
    api.post(HOOKS, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", **meta, "webhooks": [hook]})
    server, follower_server = WebhookServer(0), WebhookServer(0)
    leader = CertificateKeeper(api, settings, Identity(NAMESPACE, "a"), server, lambda: True)
    follower = CertificateKeeper(api, settings, Identity(NAMESPACE, "b"), follower_server, lambda: False)
    try:
        begin = NOW - timedelta(days=61)
        follower.step(begin)  # nothing is there, and making it is not its business
        leader.step(begin)
        follower.step(begin)
        first = _handshake(api, server.port)
        assert _handshake(api, follower_server.port) == first
        leader.step(begin + timedelta(days=50))
        assert _handshake(api, server.port) == first
        leader.step(NOW)
        assert _handshake(api, server.port) != first
        assert _handshake(api, follower_server.port) == first  # still trusted: the previous authority stays in the bundle
        follower.step(NOW)
        assert _handshake(api, follower_server.port) == _handshake(api, server.port)
    finally:
        server.stop()
        follower_server.stop()
        api.delete(f"{HOOKS}/lprl-keeper-test", {})
        api.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets/lprl-cert-test", {})


def _handshake(api: KubeApi, port: int) -> bytes:
    """Connect as the API server would, trusting what the configuration says; return the certificate served."""
    bundle = api.get(f"{HOOKS}/lprl-keeper-test")["webhooks"][0]["clientConfig"]["caBundle"]
    context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    host = f"lprl-webhook.{NAMESPACE}.svc"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return found
