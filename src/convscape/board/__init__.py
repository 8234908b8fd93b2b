"""The tab "Convscape" in TensorBoard: a report's page, kept up to date while runs come in.

It may import everything that reads runs, and reads them as `reports` does: names are text, no code
from a run folder is run, and only files below TensorBoard's --logdir are read. Begin with
`plugin.ConvscapePlugin`.
"""
