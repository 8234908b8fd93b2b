"""Textbook claims put to the test: arms, budget, verdict, and the book of them all.

It imports `trained`, `sweeps` and what is below them. Begin with `claim`, then `run`.
"""
