"""Networks as Lightning modules: `ImageClassifier` and its subclasses `CNN`, `MLP`, `Sequential`.

It imports `config`, `drawing` and what is below them. Begin with `classifier`, then `networks`.
"""

from convscape.models.classifier import Diverged, ImageClassifier
from convscape.models.networks import (
    CNN,
    MLP,
    MODELS,
    PlannedClassifier,
    Sequential,
    takes_keywords,
)

__all__ = [
    "CNN",
    "MLP",
    "MODELS",
    "Diverged",
    "ImageClassifier",
    "PlannedClassifier",
    "Sequential",
    "takes_keywords",
]
