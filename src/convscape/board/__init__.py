"""The tab "Convscape" of TensorBoard: the page of a report, kept up to date while runs come in.

It may import everything that reads runs, and reads them as `reports` does: names are text, no code
of a run folder is run, and nothing but what is below TensorBoard's --logdir is read. Begin with
`plugin.ConvscapePlugin`.
"""
