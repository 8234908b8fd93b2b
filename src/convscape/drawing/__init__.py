"""Pictures of numbers: sheets of tiles, sliding kernels, the films of scripts/kernels.py.

It imports `data` and what is below it. Begin with `sheets`.
"""
