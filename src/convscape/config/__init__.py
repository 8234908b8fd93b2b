"""What a person may ask for: the keys, how Hydra composes them, and the sentence for each mistake.

It imports `data` and what is below it, and never torch. Begin with `schema`, then `check`.
"""
