"""NetworkPolicies as nftables rules: what each part of a policy becomes, and who is left alone."""

import re
from typing import Any

import pytest
from tests.cluster.policies import Cluster, matches, rules

Document = dict[str, Any]
APPS, OTHERS = "apps", "others"


def pod(name: str, ip: str, namespace: str = APPS, ports: tuple[Document, ...] = (), **more: Any) -> Document:
    labels = {"app": name}
    spec = {"containers": [{"name": "c", "ports": list(ports)}], **more.pop("spec", {})}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec, "status": {"podIP": ip, **more}}


def policy(selector: Document, namespace: str = APPS, **spec: Any) -> Document:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": selector, **spec}}


def of(name: str) -> Document:
    return {"matchLabels": {"app": name}}


WEB = {"name": "web", "containerPort": 8080}
PODS = (
    pod("tool", "10.244.0.10", ports=(WEB,)),
    pod("engine", "10.244.0.11"),
    pod("engine", "10.244.0.9", OTHERS, ports=({**WEB, "containerPort": 9090},)),
    pod("agent", "10.250.0.1", spec={"hostNetwork": True}),
    pod("engine", "10.244.0.12", phase="Succeeded"),
)
NAMESPACES = [{"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}} for name in (APPS, OTHERS)]


def rendered(*policies: Document, pods: tuple[Document, ...] = PODS) -> str:
    return rules(Cluster(policies, pods, NAMESPACES), "lprl0")


def chains(text: str) -> dict[str, list[str]]:
    """The lines of each chain, without what every chain of a hook begins with."""
    found = re.findall(r"chain (\w+) \{\n(.*?)\n  \}", text, re.DOTALL)
    common = ("type filter", "iifname", "ct state")
    return {name: [line.strip() for line in body.split("\n") if not line.strip().startswith(common)] for name, body in found}


def test_without_policies_everything_is_let_through() -> None:
    assert chains(rendered()) == {"forward": [], "input": []}


def test_the_table_takes_the_place_of_the_one_before_and_leaves_no_way_around_by_ipv6() -> None:
    text = rendered()
    assert text.startswith("table inet lprl_policies\ndelete table inet lprl_policies\ntable inet lprl_policies {\n")
    assert text.count('iifname "lprl0" meta nfproto ipv6 drop') == 2 == text.count("ct state established,related accept")


def test_what_a_template_says_lets_one_port_in_from_whoever_has_the_label_and_nothing_out() -> None:
    spec = {"policyTypes": ["Ingress", "Egress"], "egress": []}
    ingress = [{"from": [{"podSelector": of("engine")}], "ports": [{"protocol": "TCP", "port": 8080}]}]
    found = chains(rendered(policy(of("tool"), ingress=ingress, **spec)))
    assert found == {
        "ingress0": ["ip saddr { 10.244.0.11 } tcp dport 8080 return", "counter drop"],
        "egress1": ["counter drop"],
        "forward": ["ip saddr { 10.244.0.10 } jump egress1", "ip daddr { 10.244.0.10 } jump ingress0"],
        "input": ["ip saddr { 10.244.0.10 } jump egress1"],
    }


def test_a_policy_without_rules_denies_all_of_its_namespace_and_no_type_means_ingress() -> None:
    found = chains(rendered(policy({})))
    assert found["forward"] == ["ip daddr { 10.244.0.10, 10.244.0.11 } jump ingress0"] and found["ingress0"] == ["counter drop"]
    assert found["input"] == []


def test_policies_of_one_pod_add_up() -> None:
    ports = [policy(of("tool"), ingress=[{"ports": [{"port": number}]}]) for number in (1, 2)]
    assert chains(rendered(*ports))["ingress0"] == ["tcp dport 1 return", "tcp dport 2 return", "counter drop"]


PEERS: dict[str, tuple[Document, list[str]]] = {
    "everybody": ({}, ["return"]),
    "a pod of the namespace": ({"to": [{"podSelector": of("engine")}]}, ["ip daddr { 10.244.0.11 } return"]),
    "of every namespace": (
        {"to": [{"namespaceSelector": {}, "podSelector": of("engine")}]},
        ["ip daddr { 10.244.0.9, 10.244.0.11 } return"],
    ),
    "a whole namespace": (
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": OTHERS}}}]},
        ["ip daddr { 10.244.0.9 } return"],
    ),
    "a block but for parts": (
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16", "10.0.0.0/8"]}}]},
        ["ip daddr 0.0.0.0/0 ip daddr != { 10.0.0.0/8, 169.254.0.0/16 } return"],
    ),
    "nobody of that name": ({"to": [{"podSelector": of("nosuch")}]}, []),
    "one or the other": (
        {"to": [{"podSelector": of("engine")}, {"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 53, "protocol": "UDP"}]},
        ["ip daddr { 10.244.0.11 } udp dport 53 return", "ip daddr 192.0.2.0/24 udp dport 53 return"],
    ),
    "a range of ports": ({"ports": [{"port": 1000, "endPort": 2000}]}, ["tcp dport 1000-2000 return"]),
    "every port of a protocol": ({"ports": [{"protocol": "UDP"}]}, ["meta l4proto udp return"]),
    "a port by the name its pod gives it": (
        {"to": [{"namespaceSelector": {}, "podSelector": of("engine")}], "ports": [{"port": "web"}]},
        ["ip daddr 10.244.0.9 tcp dport 9090 return"],
    ),
    "a port by name, of whoever has it": (
        {"ports": [{"port": "web"}]},
        ["ip daddr 10.244.0.10 tcp dport 8080 return", "ip daddr 10.244.0.9 tcp dport 9090 return"],
    ),
}


@pytest.mark.parametrize("case", PEERS)
def test_who_may_be_reached(case: str) -> None:
    rule, lines = PEERS[case]
    found = chains(rendered(policy(of("tool"), policyTypes=["Egress"], egress=[rule])))
    assert found["egress0"] == [*lines, "counter drop"]
    assert found["forward"] == found["input"] == ["ip saddr { 10.244.0.10 } jump egress0"]


def test_a_port_by_name_is_the_selected_pods_own_where_it_is_reached() -> None:
    found = chains(rendered(policy({}, ingress=[{"ports": [{"port": "web"}], "from": [{"podSelector": {}}]}])))
    assert found["ingress0"] == ["ip saddr { 10.244.0.10, 10.244.0.11 } tcp dport 8080 return", "counter drop"]
    assert found["ingress1"] == ["counter drop"]


SELECTORS = [
    ({}, True),
    ({"matchLabels": {"a": "1"}}, True),
    ({"matchLabels": {"a": "2"}}, False),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
    ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, False),
    ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
]


@pytest.mark.parametrize(("selector", "selected"), SELECTORS)
def test_selectors(selector: Document, selected: bool) -> None:
    assert matches(selector, {"a": "1"}) is selected


def test_an_operator_there_is_none_of_is_an_error() -> None:
    with pytest.raises(ValueError, match="operator Near"):
        matches({"matchExpressions": [{"key": "a", "operator": "Near"}]}, {})
