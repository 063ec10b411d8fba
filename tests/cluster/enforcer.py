"""Enforces the NetworkPolicies on the kit's node, whose network does not: nftables rules (policies.py), anew as objects come and go."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kube import Kube, wait
from tests.cluster.policies import TABLE, Cluster, address, rules

BRIDGE = "lprl0"
LOOK_S = 0.2
PATHS = {"policies": "/apis/networking.k8s.io/v1/networkpolicies", "pods": "/api/v1/pods", "namespaces": "/api/v1/namespaces"}


class Enforcer:
    """The table of rules of this machine, kept up in a thread."""

    def __init__(self, kube: Kube) -> None:
        self._kube, self._over = kube, threading.Event()
        self._thread = threading.Thread(target=self._keep_up, daemon=True)
        self.error: BaseException | None = None
        self.rendered = ""
        """What is in force."""
        self.known: frozenset[str] = frozenset()
        """Names of the pods it was made with, NAMESPACE/NAME, that had an address."""

    def covers(self, namespace: str, pod: str) -> None:
        """Wait until the rules were made with a pod's address. Raises what ended the thread."""
        wait(lambda: self.error or f"{namespace}/{pod}" in self.known, f"policies of {namespace}/{pod}", 60, lambda: self.rendered)
        if self.error is not None:
            raise self.error

    def dropped(self) -> int:
        """Return the packets that policies have dropped since the rules last changed."""
        listed = self._nft(f"list table inet {TABLE}\n")
        return sum(int(line.split("packets ")[1].split()[0]) for line in listed.splitlines() if "drop" in line and "packets" in line)

    def _keep_up(self) -> None:
        try:
            while not self._over.is_set():
                self._look()
                self._over.wait(LOOK_S)
        except BaseException as error:
            self.error = error

    def _look(self) -> None:
        found = Cluster(**{name: self._kube.every(path) for name, path in PATHS.items()})
        made = rules(found, BRIDGE)
        if made != self.rendered:
            self._nft(made)
            self.rendered = made
        self.known = frozenset(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in found.pods if address(pod))

    def _nft(self, script: str) -> str:
        return self._kube.run("-f", "-", text=script, program="nft")

    @contextmanager
    def running(self) -> Iterator["Enforcer"]:
        """Enforce while the block runs; the rules are gone after it."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()
            self._nft(f"table inet {TABLE}\ndelete table inet {TABLE}\n")
        if self.error is not None:
            raise self.error
