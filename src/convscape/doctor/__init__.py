"""Why a network does not learn: rules about images, network and training, each with a remedy.

It imports `trained` and what is below it. A rule is a function from a `case.Case` to a
`finding.Finding` or None. Begin with `rules`, which lists them, then `examine`.
"""
