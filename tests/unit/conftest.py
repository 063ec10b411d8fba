"""What all unit tests share."""

from hypothesis import settings

# A test that draws examples may be slow on a machine that has much else to do: none is wrong for that.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
