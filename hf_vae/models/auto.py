"""The class of a model, by the name in its `config.json`."""

import os
from collections.abc import Iterator
from typing import Any

from diffusers.utils import CONFIG_NAME

from .base import ImageGenerator
from .loading import find_folder, read_config


class AutoGenerator:
    """Loads any family's model, by the class name in its `config.json`."""

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, **kwargs: Any) -> ImageGenerator:
        """Loads the model at `path`, a folder or a Hub id, in evaluation mode. `kwargs` go to the class's own
        `from_pretrained`.

        Raises:
            ValueError: If there is no such model, or its `config.json` names a class that is not one of the families.
        """
        return cls.class_of(path, **kwargs).from_pretrained(path, **kwargs)

    @classmethod
    def class_of(cls, path: str | os.PathLike, **kwargs: Any) -> type[ImageGenerator]:
        """The class of the model at `path`, without loading its weights. The arguments are those of `from_pretrained`.

        Raises:
            ValueError: As `from_pretrained` does.
        """
        class_name = read_config(find_folder(path, [CONFIG_NAME], **kwargs))["_class_name"]
        classes = {subclass.__name__: subclass for subclass in _subclasses(ImageGenerator)}
        if class_name not in classes:
            raise ValueError(
                f"{path} is a model of class {class_name!r}, which is not one of the families: {', '.join(classes)}."
            )
        return classes[class_name]


def _subclasses(model_class: type[ImageGenerator]) -> Iterator[type[ImageGenerator]]:
    """Every family whose class is defined, in this package or elsewhere. A subclass that has its parent's name is not
    one: torch.export makes such classes, and they may outlive it."""
    for subclass in model_class.__subclasses__():
        if subclass.__name__ != model_class.__name__:
            yield subclass
            yield from _subclasses(subclass)
