"""One run from its config to its result: build, train, record, stop, continue.

It imports `models`, `runs` and what is below them. Begin with `run`, then `build` and `callbacks`.
"""
