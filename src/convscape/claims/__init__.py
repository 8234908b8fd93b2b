"""The textbook's claims put to the test: arms, budget, verdict, and the book of all of them.

It imports `trained`, `sweeps` and what is below them. Begin with `claim`, then `run`.
"""
