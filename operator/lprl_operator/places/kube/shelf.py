"""Objects of one kind, by name and by the job they concern. Not thread-safe: the cache around it is.

Invariant: an entry is never replaced by an older version of the same object, nor by an object that is gone.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from lprl_operator.decide.observed import Key
from lprl_operator.places.kube.gone import Gone


class Name(NamedTuple):
    """Namespace and name of a child."""

    namespace: str
    name: str


class Change(NamedTuple):
    """What an update of an object means to the jobs it concerns."""

    keys: frozenset[Key] = frozenset()
    """Jobs to look at again; none when it says nothing new to a decision."""
    urgent: frozenset[Key] = frozenset()
    """Those of them for which something began, ended or broke, as against merely got on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached object."""

    uid: str
    version: int
    keys: frozenset[Key]
    """Jobs it concerns."""
    value: Any
    tells: Any
    """What a decision can see of it; an update that leaves this equal wakes nobody."""
    turns: tuple[Any, ...]
    """The part of that which must not wait, as values that are false or empty while there is nothing of it. An update that leaves
    this equal is routine, and so is a new object of which there is nothing."""


class Shelf:
    """Entries of one kind, also by the job they concern."""

    def __init__(self) -> None:
        self.entries: dict[Name, Entry] = {}
        self.by_job: dict[Key, set[Name]] = {}
        self.gone = Gone()

    def is_outdated(self, name: Name, uid: str, version: int) -> bool:
        """Whether it is known that this is gone, that it changed since, or that another object has had its name since."""
        if self.gone.covers(uid, version):
            return True
        old = self.entries.get(name)
        return old is not None and version < old.version and (old.uid == uid or version > 0)

    def has(self, name: Name, uid: str, version: int) -> bool:
        """Whether this version of the object, or a newer one, is here."""
        old = self.entries.get(name)
        return old is not None and old.uid == uid and 0 < version <= old.version

    def put(self, name: Name, entry: Entry) -> Change:
        """Store; return the jobs for which something changed."""
        if self.is_outdated(name, entry.uid, entry.version):
            return Change()
        old = self.entries.get(name)
        self.entries[name] = entry
        before = old.keys if old is not None else frozenset()
        for key in before - entry.keys:
            self._forget(key, name)
        for key in entry.keys - before:
            self.by_job.setdefault(key, set()).add(name)
        if old is None or old.tells != entry.tells:
            turned = old.turns != entry.turns if old is not None and old.uid == entry.uid else any(entry.turns)
            keys = entry.keys | before
            return Change(keys, keys if turned else frozenset())
        return Change(entry.keys ^ before, entry.keys ^ before)

    def remove(self, name: Name, uid: str | None = None, version: int = 0) -> frozenset[Key]:
        """Drop an object; return the jobs it concerned.

        With a uid, that one is gone and is not taken back; `version`: of its end, where a watch told of that.
        """
        if uid is not None:
            self.gone.add(uid, version)
        old = self.entries.get(name)
        if old is None or (uid is not None and old.uid != uid):
            return frozenset()
        del self.entries[name]
        for key in old.keys:
            self._forget(key, name)
        return old.keys

    def of(self, key: Key) -> list[Entry]:
        """Entries that concern a job."""
        return [self.entries[n] for n in sorted(self.by_job.get(key, ()))]

    def _forget(self, key: Key, name: Name) -> None:
        names_of_job = self.by_job.get(key)
        if names_of_job is not None:
            names_of_job.discard(name)
            if not names_of_job:
                del self.by_job[key]
