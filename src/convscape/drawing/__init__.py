"""Pictures of numbers: sheets of tiles, sliding kernels, the films of scripts/kernels.py.

It imports `data` and the rooms below it. Begin with `sheets`.
"""
