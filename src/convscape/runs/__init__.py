"""A run on disk: its folder, `result.json`, name, fingerprint, and the data it was trained on.

It imports `config` and what is below it, and never torch. Begin with `folder`, then `fingerprint`.
"""
