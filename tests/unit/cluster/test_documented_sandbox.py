"""What the documented template of a sandbox must say beside what the tests of real pods try (tests/cluster/escapes.py)."""

from tests.sandbox.documented import documented


def test_a_sandbox_that_is_let_go_gives_its_place_on_the_node_at_once() -> None:
    """A tool is the first process of its container, and such a process that does not ask for SIGTERM never gets it: 30 s by default."""
    template, _ = documented()
    assert template["spec"]["podTemplate"]["spec"]["terminationGracePeriodSeconds"] == 1


def test_it_has_neither_roots_user_nor_roots_group() -> None:
    template, _ = documented()
    who = template["spec"]["podTemplate"]["spec"]["securityContext"]
    assert who["runAsNonRoot"] and who["runAsUser"] > 0 and who["runAsGroup"] > 0
