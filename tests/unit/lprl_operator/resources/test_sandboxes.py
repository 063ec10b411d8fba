"""What a driver gets for tools in sandboxes, and no other pod: the right to make claims, and who it is."""

EPISODE = {
    "type": "tools",
    "tools": [{"name": "sum", "sandbox": {"warmPool": "python"}, "description": "Adds.", "parameters": {"type": "object"}}],
}
CLAIMS = {"apiGroups": ["extensions.agents.x-k8s.io"], "resources": ["sandboxclaims"], "verbs": ["create", "list", "delete"]}


def of_driver(documents):
    """Rules of the driver's Role; environment of its container, and of all others by name."""
    rules = next(d["rules"] for (kind, _), d in documents.items() if kind == "Role")
    cluster = next(d for (kind, _), d in documents.items() if kind == "RayCluster")["spec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    env = {c["name"]: {e["name"] for e in c.get("env", ())} for p in pods for c in p["template"]["spec"]["containers"]}
    mounts = {c["name"]: {m["name"] for m in c["volumeMounts"]} for p in pods for c in p["template"]["spec"]["containers"]}
    return rules, env, mounts


def test_a_driver_whose_tools_have_sandboxes_may_make_claims_and_engines_may_not(rendered):
    rules, env, mounts = of_driver(rendered(episode=EPISODE))
    assert CLAIMS in rules and len(rules) == 2
    assert [name for name, found in env.items() if {"POD_NAME", "POD_UID"} & found] == ["driver"]
    assert [name for name, found in mounts.items() if "api-token" in found] == ["driver"]


def test_a_driver_of_other_jobs_has_no_such_right(rendered):
    rules, env, _ = of_driver(rendered())
    assert len(rules) == 1 and all("POD_UID" not in found for found in env.values())
