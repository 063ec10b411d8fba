"""The NetworkPolicies of a cluster as nftables rules: pure text from the objects that are there.

The kit's network enforces no policy and no plugin that does can be had there, so the tests enforce what the objects say (enforcer.py).
That shows what a policy lets through, not that a certain network plugin works. As with common plugins, and stricter than Kubernetes asks:
a pod's own node counts as a destination like another, while what the node sends (probes) reaches every pod.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
TABLE = "lprl_policies"
PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
DIRECTIONS = {"Ingress": ("ingress", "from", "saddr", "daddr"), "Egress": ("egress", "to", "daddr", "saddr")}
"""By type of policy: the field of its rules and of their peers; whose address a peer's is, and whose the selected pod's."""


@dataclass(frozen=True)
class Cluster:
    """What rules are made from, as the API server lists it."""

    policies: Sequence[Document]
    pods: Sequence[Document]
    namespaces: Sequence[Document]


def matches(selector: Document, labels: Mapping[str, str]) -> bool:
    """Return whether labels are selected; an empty selector selects all. Raises ValueError for an operator that there is none of."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_holds(wish, labels) for wish in selector.get("matchExpressions") or ())


def _holds(wish: Document, labels: Mapping[str, str]) -> bool:
    key, operator, values = wish["key"], wish["operator"], wish.get("values") or ()
    inside, there = labels.get(key) in values, key in labels
    found = {"In": inside, "NotIn": not inside, "Exists": there, "DoesNotExist": not there}
    if operator not in found:
        raise ValueError(f"operator {operator} of a label selector")
    return found[operator]


def _labels(document: Document) -> Mapping[str, str]:
    return document["metadata"].get("labels") or {}


def address(pod: Document) -> str:
    """Return a pod's own address of version 4, empty where it has none (yet, any more, or it is the node's)."""
    status = pod.get("status") or {}
    if pod["spec"].get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return ""
    found = str(status.get("podIP") or "")
    return "" if ":" in found else found


def rules(cluster: Cluster, bridge: str) -> str:
    """Return a script for `nft -f -` that puts one table in the place of what it held; `bridge` is the interface of all pods."""
    chains: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for pod in cluster.pods:
        if not (where := address(pod)):
            continue
        for kind in DIRECTIONS:
            found = _of_pod(cluster, pod, kind)
            if found is not None:
                chains.setdefault((kind, *found), (f"{kind.lower()}{len(chains)}", []))[1].append(where)
    jumps: dict[str, list[str]] = {kind: [] for kind in DIRECTIONS}
    made: list[str] = []
    for (kind, *lines), (name, addresses) in chains.items():
        made += [f"  chain {name} {{", *(f"    {line} return" if line else "    return" for line in lines), "    counter drop", "  }"]
        jumps[kind].append(f"    ip {DIRECTIONS[kind][3]} {_set(addresses)} jump {name}")
    return "\n".join(_table(bridge, made, jumps)) + "\n"


def _table(bridge: str, chains: Iterable[str], jumps: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of the script. Pods have no address of version 6, but links do, of which no policy could speak."""
    opening = [f'    iifname "{bridge}" meta nfproto ipv6 drop', "    ct state established,related accept"]
    return [
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        *chains,
        *_hook("forward", [*opening, *jumps["Egress"], *jumps["Ingress"]]),
        *_hook("input", [*opening, *jumps["Egress"]]),
        "}",
    ]


def _hook(name: str, lines: Iterable[str]) -> Iterable[str]:
    return (f"  chain {name} {{", f"    type filter hook {name} priority -5; policy accept;", *lines, "  }")


def _set(addresses: Iterable[str]) -> str:
    return "{ " + ", ".join(sorted(set(addresses), key=lambda text: (ipaddress.ip_network(text, strict=False), text))) + " }"


def _of_pod(cluster: Cluster, pod: Document, kind: str) -> list[str] | None:
    """Return what is let through of one direction, as matches of nft (an empty one matches all); None when no policy selects the pod."""
    selecting = [
        policy
        for policy in cluster.policies
        if policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and kind in _types(policy["spec"])
        and matches(policy["spec"].get("podSelector") or {}, _labels(pod))
    ]
    if not selecting:
        return None
    found: dict[str, None] = {}
    for policy in selecting:
        for rule in policy["spec"].get(DIRECTIONS[kind][0]) or ():
            found.update(dict.fromkeys(_of_rule(cluster, policy, rule, pod, kind)))
    return list(found)


def _types(spec: Document) -> Sequence[str]:
    return spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _of_rule(cluster: Cluster, policy: Document, rule: Document, pod: Document, kind: str) -> Iterable[str]:
    _, field, side, _ = DIRECTIONS[kind]
    ports = rule.get("ports") or [None]
    if not rule.get(field):  # everybody; ports with a name are the selected pod's own, or those of whoever is reached
        targets = [pod] if kind == "Ingress" else list(cluster.pods)
        yield from (line for port in ports for line in _to_port(port, targets, ""))
        return
    for peer in rule[field]:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            apart = f" ip {side} != {_set(block['except'])}" if block.get("except") else ""
            yield from (line for port in ports for line in _to_port(port, (), f"ip {side} {block['cidr']}{apart}"))
            continue
        peers = [found for found in cluster.pods if address(found) and _is_peer(cluster, policy, peer, found)]
        for port in ports if peers else ():
            if kind == "Egress" and _named(port):  # each peer may mean another number by it
                yield from (line for found in peers for line in _to_port(port, [found], f"ip {side} {address(found)}"))
            else:
                yield from _to_port(port, [pod], f"ip {side} {_set(map(address, peers))}")


def _is_peer(cluster: Cluster, policy: Document, peer: Document, pod: Document) -> bool:
    home = pod["metadata"]["namespace"]
    if (wish := peer.get("namespaceSelector")) is None:
        inside = home == policy["metadata"]["namespace"]
    else:
        inside = any(matches(wish, _labels(found)) for found in cluster.namespaces if found["metadata"]["name"] == home)
    return inside and matches(peer.get("podSelector") or {}, _labels(pod))


def _named(port: Document | None) -> bool:
    return isinstance((port or {}).get("port"), str)


def _to_port(port: Document | None, targets: Iterable[Document], peers: str) -> Iterable[str]:
    """Matches of one port of a rule; `targets` are the pods whose ports a name is looked up in. No such name, no match."""
    if port is None:
        yield peers
        return
    protocol = PROTOCOLS[port.get("protocol") or "TCP"]
    wanted = port.get("port")
    if wanted is None:
        yield f"{peers} meta l4proto {protocol}".strip()
    elif isinstance(wanted, str):
        for target in targets:
            where = peers or f"ip daddr {address(target)}"
            numbers = _numbers(target, wanted, port.get("protocol") or "TCP") if address(target) else ()
            yield from (f"{where} {protocol} dport {number}".strip() for number in numbers)
    else:
        last = f"-{port['endPort']}" if port.get("endPort") else ""
        yield f"{peers} {protocol} dport {wanted}{last}".strip()


def _numbers(pod: Document, name: str, protocol: str) -> Iterable[int]:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
                yield int(port["containerPort"])
