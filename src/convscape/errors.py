"""What a command answers with one sentence and exit code 2."""


class ConfigError(ValueError):
    """A mistake in what the user asked for; the message is one sentence per mistake."""
