"""What a stage of a pipeline can do beside training: programs with typed fields."""

from typing import ClassVar

from neva_recipes.config import (
    ConfigNode,
    ConvTemplate,
    OptionalPathField,
    PathField,
    PathsField,
    Positive,
    config_dataclass,
    format_value,
)
from neva_recipes.run_directory.layout import PREDICTIONS_FILE

__all__ = ["Evaluate", "Export", "ModelTool", "Tool"]


@config_dataclass
class Tool(ConfigNode):
    """The work of a stage that trains nothing."""

    module: ClassVar[str]
    """The module of its program."""

    function: ClassVar[str] = "main"
    """The function of the module that takes the arguments and returns an exit code."""

    can_use_gpu: ClassVar[bool] = False
    """Whether it computes with a model, on the GPUs of the run that has trained it."""

    output: ClassVar[str]
    """File or folder that it makes, in the run directory of its stage."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program.

        Args:
            output: Path of the program's output.
        """
        raise NotImplementedError


@config_dataclass
class ModelTool(Tool):
    """The work of a stage that uses a trained model."""

    model: PathField
    """The trained model: a run, a checkpoint or a Hugging Face directory."""


@config_dataclass
class Export(ModelTool):
    """Writes the model as a Hugging Face directory, as `nemo-run export` does."""

    module: ClassVar[str] = "neva_model.checkpoints.export"
    can_use_gpu: ClassVar[bool] = True
    output: ClassVar[str] = "exported"

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the directory it writes."""
        return [self.model, output]


@config_dataclass
class Evaluate(ModelTool):
    """Counts the right answers of the model, as `nemo-run evaluate` does."""

    module: ClassVar[str] = "neva_model.evaluation"
    can_use_gpu: ClassVar[bool] = True
    output: ClassVar[str] = PREDICTIONS_FILE

    data: PathsField
    """LLaVA JSON or JSONL of questions and answers; one file or several."""
    image_folder: OptionalPathField = None  # type: ignore[assignment]
    """Folder of the images; None means that of each data file, or that of the training if the images are not there."""
    conv_template: ConvTemplate | None = None
    """Conversation template; None means that of the training."""
    batch_size: Positive | None = None
    """Questions answered at once."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the file for all answers."""
        flags = {
            "data": format_value(self.data),
            "image-folder": self.image_folder,
            "conv-template": self.conv_template,
            "batch-size": self.batch_size,
            "output": output,
        }
        return [self.model, *(f"--{name}={value}" for name, value in flags.items() if value is not None)]
