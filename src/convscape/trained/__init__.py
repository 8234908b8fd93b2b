"""A trained run put to use: load, evaluate, predict, explain, export, probe.

It imports `training` and what is below it. Begin with `load`.
"""
