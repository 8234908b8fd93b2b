"""Grids and searches: plan all runs from geometry alone, train what is missing, sum up.

It imports `training`, `reports` and what is below them. Begin with `grid`, then `run` and `search`.
"""
