"""From runs to answers: tables, statistics, figures and the page of a sweep.

It imports `runs` and what is below it, and never torch. Begin with `results`, then `statistics`.
"""
