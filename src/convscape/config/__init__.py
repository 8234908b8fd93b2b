"""What the user may ask for: the keys, how Hydra composes them, and a message for each mistake.

It imports `data` and the rooms below it, but never torch. Begin with `schema`, then `check`.
"""
