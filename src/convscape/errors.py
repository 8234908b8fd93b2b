"""What a command answers with one sentence and exit code 2, and what ends a run before its time."""


class ConfigError(ValueError):
    """A mistake in what the user asked for; the message is one sentence per mistake."""


class Stopped(Exception):
    """A run is asked to stop: it is saved, recorded as interrupted, and can go on."""
