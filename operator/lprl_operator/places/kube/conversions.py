"""The convert and finalise Jobs of a namespace, looked up when asked for: a job wants two of perhaps a thousand."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from lprl_operator.decide.observed import JobState


class Conversions(Mapping[str, JobState]):
    """By name: `find` one, `names` of all."""

    def __init__(self, find: Callable[[str], JobState | None], names: Callable[[], Iterable[str]]) -> None:
        self._find, self._names = find, names

    def __getitem__(self, name: str) -> JobState:
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return sum(1 for _ in self)
