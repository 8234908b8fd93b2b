"""A laboratory for image classifiers: describe, train, sweep, see what changed."""
