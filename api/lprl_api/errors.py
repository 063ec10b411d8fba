"""Errors whose type says who must act."""


class UserError(Exception):
    """The input is wrong; retrying does not help. The message names the field or tensor, what was found and what fits."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class StorageFullError(UserError):
    """No space left on a volume."""
