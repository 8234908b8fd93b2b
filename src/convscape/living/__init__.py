"""A page that computes the network itself: weights, plan and images of a run in one offline file.

It imports `trained` and the rooms below it. Begin with `page`; `static/engine.js` computes.
"""
