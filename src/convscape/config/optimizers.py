"""The optimisers: the keys of each, and its class in torch. Torch itself is not imported here.

A new one is a class here, or in your own module, and a file in conf/optimizer.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny
from pydantic_core import PydanticKnownError

from convscape.base.sections import Fraction, LearningRate, NotNegative, Part, Section

OPTIMIZERS: dict[str, type[OptimizerConfig]] = {}  # by `name`


class OptimizerConfig(Section):
    """What every optimiser has; the fields are the arguments of its torch class.

    - `torch_classes`: the class for each `name`; a section that has some is in `OPTIMIZERS`.
    - `has_fused`: whether torch has one kernel for all parameters, on CPU and CUDA.
    """

    torch_classes: ClassVar[Mapping[str, str]] = {}
    has_fused: ClassVar[bool] = False

    name: str
    lr: LearningRate

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        OPTIMIZERS.update(dict.fromkeys(vars(cls).get("torch_classes", {}), cls))

    @classmethod
    def torch_class(cls, name: str) -> Any:
        """The class of torch, or one that behaves like it."""
        module, _, leaf = cls.torch_classes[name].rpartition(".")
        return getattr(importlib.import_module(module), leaf)


class SGDConfig(OptimizerConfig):
    """torch.optim.SGD."""

    torch_classes: ClassVar = {"sgd": "torch.optim.SGD"}
    has_fused: ClassVar = True

    momentum: Fraction
    nesterov: bool
    weight_decay: NotNegative


class AdamConfig(OptimizerConfig):
    """torch.optim.Adam and AdamW."""

    torch_classes: ClassVar = {"adam": "torch.optim.Adam", "adamw": "torch.optim.AdamW"}
    has_fused: ClassVar = True

    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    eps: LearningRate
    weight_decay: NotNegative


class RMSpropConfig(OptimizerConfig):
    """torch.optim.RMSprop; `alpha` is what Keras calls rho."""

    torch_classes: ClassVar = {"rmsprop": "torch.optim.RMSprop"}

    alpha: Fraction
    eps: LearningRate
    momentum: Fraction
    weight_decay: NotNegative


class AdadeltaConfig(OptimizerConfig):
    """torch.optim.Adadelta."""

    torch_classes: ClassVar = {"adadelta": "torch.optim.Adadelta"}

    rho: Fraction
    eps: LearningRate
    weight_decay: NotNegative


class AdagradConfig(OptimizerConfig):
    """torch.optim.Adagrad."""

    torch_classes: ClassVar = {"adagrad": "torch.optim.Adagrad"}
    has_fused: ClassVar = True

    lr_decay: NotNegative
    eps: LearningRate
    weight_decay: NotNegative


class OwnOptimizerConfig(Part):
    """Any optimiser of torch.optim, or the user's own: `lr`, and its own arguments."""

    lr: LearningRate


def known_optimizer(name: Any) -> Any:
    """The name of an optimiser; any other is a pydantic error."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(OPTIMIZERS)})
    return name


def _section_of_its_name(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return OwnOptimizerConfig.model_validate(value)
    if "name" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "name"})
    name = value["name"]
    if not isinstance(name, str) or name not in OPTIMIZERS:
        expected = {"tag": str(name), "expected_tags": ", ".join(OPTIMIZERS)}
        raise PydanticKnownError("union_tag_invalid", {"discriminator": "name", **expected})
    return OPTIMIZERS[name].model_validate(value)


AnyOptimizer = Annotated[
    SerializeAsAny[OptimizerConfig | OwnOptimizerConfig], BeforeValidator(_section_of_its_name)
]
