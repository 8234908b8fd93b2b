"""What every room may need: errors, terminal, atomic files, parts by name, values, the machine.

It imports nothing of ours. Begin with `errors`: how a mistake, a stop and a full disk differ.
"""
