"""How generated examples are played everywhere here."""

from hypothesis import settings

# An example that the machine held up for a moment is no mistake.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
