"""The `trainer` section, and keys outside of sections."""

from typing import Any

from neva_recipes.nemo.rules import (
    Configuration,
    Outcome,
    Rule,
    Unusable,
    boolean,
    cannot,
    carried,
    carries,
    decides,
    harmless,
    holds,
    integer,
    leaves,
    left,
    number,
    one_of,
    same,
)

__all__ = ["NO_NEMO_MODEL", "TRAINER_RULES", "validates", "validation_steps"]

NO_NEMO_MODEL = (
    "NeMo's checkpoints are not read: make a Hugging Face directory with its convert_llava_nemo_to_hf.py and name it "
    "in from_pretrained of every part"
)
"""Remark on a key that names a whole NeMo model."""


def validates(nemo: Configuration) -> bool:
    """Return whether a configuration validates at all."""
    return nemo.get("trainer.limit_val_batches", 1.0) not in (0, 0.0)


def _devices(value: object, _: Configuration) -> Outcome:
    if isinstance(value, list):
        return carried({"trainer.devices": len(value)}, "as many as the list names")
    if value in (-1, "-1", "auto"):
        return cannot("all GPUs of a machine; how many that are is not known here: set trainer.devices")
    return carried({"trainer.devices": integer(value)})


def _accelerator(value: Any, _: Configuration) -> Outcome:
    kinds = {"gpu": "gpu", "cuda": "gpu", "cpu": "cpu", "auto": "auto"}
    kind = one_of(value, kinds)
    return carried({"trainer.accelerator": kind}) if kind else cannot("trains on GPUs or CPUs")


_PRECISIONS = {
    **dict.fromkeys(("bf16", "bf16-mixed", "bf16-true"), "bf16"),
    **dict.fromkeys(("32", "32-true", "fp32"), "fp32"),
}


def _precision(value: object, nemo: Configuration) -> Outcome:
    name = _PRECISIONS.get(str(value).lower())
    if name is None:
        return cannot("trains in bf16 or fp32; bf16 is in the recipe")
    return carried({"precision.precision": name})


def _trainer_precision(value: object, nemo: Configuration) -> Outcome:
    decisive = nemo.get("model.precision")
    if decisive is not None:
        return same() if str(decisive) == str(value) else left("model.precision decides")
    return _precision(value, nemo)


def _model_precision(value: object, nemo: Configuration) -> Outcome:
    return same("trainer.precision decides") if value is None else _precision(value, nemo)


def _max_steps(value: object, nemo: Configuration) -> Outcome:
    if value is not None and integer(value) > 0:
        return carried({"trainer.max_steps": integer(value)})
    if nemo.count("trainer.max_epochs"):
        return same("trainer.max_epochs ends the run")
    return cannot("nothing ends the run: set trainer.max_steps, or trainer.max_epochs")


def _max_epochs(value: object, nemo: Configuration) -> Outcome:
    if value is None or integer(value) <= 0:
        return same("trainer.max_steps ends the run")
    if nemo.count("trainer.max_steps"):
        return cannot("a run ends by steps or by epochs, not by whichever comes first: max_steps is in the recipe")
    return carried({"trainer.max_epochs": integer(value)})


def _validation_interval(value: object, nemo: Configuration) -> Outcome:
    steps = validation_steps(nemo)
    if steps is None:
        return left("a share of an epoch; counted in steps here: set trainer.val_check_interval")
    return carried({"trainer.val_check_interval": steps})


def validation_steps(nemo: Configuration) -> int | None:
    """Return the steps between validations; `None` if they are given as a share of an epoch."""
    value = nemo.get("trainer.val_check_interval", 1.0)
    try:
        is_share = isinstance(value, float) and value <= 1
        return None if is_share or value is None else integer(value)
    except Unusable:
        return None


def _validation_batches(value: object, _: Configuration) -> Outcome:
    if not isinstance(value, bool) and value in (0, 1.0) and (value == 0 or isinstance(value, float)):
        return same("no validation" if value == 0 else "the whole validation file")
    if value is None:
        return same("the whole validation file")
    if isinstance(value, float) and value < 1:
        return left("a share of the validation file; counted in global batches here: set trainer.limit_val_batches")
    return carried({"trainer.limit_val_batches": integer(value)})


def _clipping(value: object, _: Configuration) -> Outcome:
    return carried({"optim.clip_grad": 0.0 if value is None else number(value)})


def _profiler(value: object, _: Configuration) -> Outcome:
    if value is None:
        return same("none")
    if value in ("simple", "advanced", "pytorch"):
        return carried({"trainer.profiler": value})
    return left("profilers are simple, advanced and pytorch")


TRAINER_RULES: tuple[Rule, ...] = (
    holds("restore_from_path", None, otherwise=NO_NEMO_MODEL),
    holds("defaults", [], ["_self_"], otherwise="files that Hydra would merge are not read"),
    leaves("hydra.*", otherwise="Hydra's own settings"),
    leaves("run.*", otherwise="the NeMo launcher's own settings"),
    decides(
        "trainer.devices",
        "`trainer.devices`",
        "a list counts; -1 and auto have no counterpart",
        _devices,
        absent="auto",
    ),
    carries("trainer.num_nodes", "trainer.num_nodes", integer),
    decides("trainer.accelerator", "`trainer.accelerator`", "gpu, cuda, cpu, auto", _accelerator),
    decides(
        "trainer.precision",
        "`precision.precision`",
        "bf16 and 32 in all spellings; fp16 is not there. model.precision decides where it is set",
        _trainer_precision,
        absent="32-true",
    ),
    decides("model.precision", "`precision.precision`", "as trainer.precision", _model_precision),
    decides(
        "trainer.max_steps",
        "`trainer.max_steps`",
        "-1: max_epochs ends the run",
        _max_steps,
        absent=None,
    ),
    decides(
        "trainer.max_epochs",
        "`trainer.max_epochs`",
        "only where max_steps does not end the run",
        _max_epochs,
    ),
    holds("trainer.max_time", None, otherwise="a run has no time limit of its own: that is the executor's"),
    carries("trainer.log_every_n_steps", "trainer.log_every_n_steps", integer),
    decides(
        "trainer.val_check_interval",
        "`trainer.val_check_interval`",
        "steps; a share of an epoch has no counterpart",
        _validation_interval,
        absent=1.0,
    ),
    leaves("trainer.check_val_every_n_epoch", 1, otherwise="validation is counted in steps, not in epochs"),
    decides(
        "trainer.limit_val_batches",
        "`trainer.limit_val_batches`",
        "global batches; 1.0 takes the whole file, 0 turns validation off",
        _validation_batches,
    ),
    holds("trainer.limit_train_batches", 1.0, otherwise="training reads the whole file"),
    harmless("trainer.limit_test_batches", "nothing is tested while training"),
    holds(
        "trainer.accumulate_grad_batches",
        1,
        otherwise="follows from data.global_batch_size and the layout, as in NeMo, which refuses other values",
    ),
    decides(
        "trainer.gradient_clip_val",
        "`optim.clip_grad`",
        "null and 0 turn clipping off",
        _clipping,
        absent=None,
    ),
    holds("trainer.gradient_clip_algorithm", "norm", otherwise="gradients are clipped by their global norm"),
    carries("trainer.enable_progress_bar", "trainer.enable_progress_bar", boolean),
    decides("trainer.profiler", "`trainer.profiler`", "simple, advanced, pytorch", _profiler),
    holds("trainer.fast_dev_run", False, 0, otherwise="set trainer.max_steps for a short run"),
    holds("trainer.overfit_batches", 0, 0.0, otherwise="make a small data file to overfit on"),
    *(
        harmless(f"trainer.{key}", why)
        for key, why in {
            "logger": "TensorBoard and CSV files are always written",
            "enable_checkpointing": "NeMo's exp_manager decides on checkpoints",
            "use_distributed_sampler": "the order of samples is a function of the seed alone",
            "replace_sampler_ddp": "the order of samples is a function of the seed alone",
            "benchmark": "a choice of kernels",
            "deterministic": "a choice of kernels",
            "enable_model_summary": "the log says how many weights are trained",
            "num_sanity_val_steps": "there is no validation before training",
            "strategy": "Megatron's parallelism is the only strategy",
            "plugins": "Megatron's parallelism is the only strategy",
            "sync_batchnorm": "there is no batch norm",
        }.items()
    ),
)
"""Rules for the trainer's keys."""
