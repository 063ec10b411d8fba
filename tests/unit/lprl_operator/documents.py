"""Documents as an API server hands them out: nobody's copy is another's."""

import pickle
from typing import TypeVar

T = TypeVar("T")


def copied(document: T) -> T:
    """Return a deep copy: copy.deepcopy takes ten times as long, and tests copy at every look."""
    found: T = pickle.loads(pickle.dumps(document))
    return found
