"""The `exp_manager` section: names, loggers, checkpoints, early stopping, averaging of weights."""

from neva_recipes.nemo._trainer_keys import validates, validation_steps
from neva_recipes.nemo.rules import (
    Configuration,
    Outcome,
    Rule,
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
    same,
    text,
)

__all__ = ["EXPERIMENT_RULES"]

_CHECKPOINT = "exp_manager.checkpoint_callback_params"
_STOPPING = "exp_manager.early_stopping_callback_params"
_EMA = "exp_manager.ema"


def _name(value: object, _: Configuration) -> Outcome:
    return same("not set") if value is None else carried({}, "the name of the recipe")


def _outer_name(value: object, nemo: Configuration) -> Outcome:
    return same("exp_manager.name counts") if nemo.get("exp_manager.name") else _name(value, nemo)


def _project(value: object, nemo: Configuration) -> Outcome:
    if not nemo.says("exp_manager.create_wandb_logger"):
        return same("Weights & Biases is off")
    if value is None:
        return same("create_wandb_logger says it")
    return carried({"logging.wandb_project": text(value)})


def _entity(value: object, nemo: Configuration) -> Outcome:
    if value is None or not nemo.says("exp_manager.create_wandb_logger"):
        return same("Weights & Biases is off")
    return carried({"logging.wandb_entity": text(value)})


def _wandb(value: object, nemo: Configuration) -> Outcome:
    if boolean(value) and nemo.get("exp_manager.wandb_logger_kwargs.project") is None:
        return left("Weights & Biases stays off without a project: set logging.wandb_project")
    return carried({}, "logging.wandb_project says it") if value else same("off")


def _other_wandb(value: object, nemo: Configuration) -> Outcome:
    if value is None or not nemo.says("exp_manager.create_wandb_logger"):
        return same("Weights & Biases is off")
    return left("Weights & Biases gets a project and an entity; runs are called what --name says")


def _create_checkpoints(value: object, _: Configuration) -> Outcome:
    if boolean(value):
        return same()
    return carried({"checkpoint.save_top_k": 0}, "none but the last")


def _keeps_checkpoints(nemo: Configuration) -> bool:
    return nemo.get("exp_manager.create_checkpoint_callback", True) is not False


def _monitor(value: object, nemo: Configuration) -> Outcome:
    if value is None:
        return same("none: the newest are kept")
    if value == "val_loss" and not (nemo.get("model.data.data_path") and validates(nemo)):
        return left(
            "needs validation: with data.validation_data_path set checkpoint.monitor=val_loss; until then the newest "
            "are kept"
        )
    return carried({"checkpoint.monitor": value})


def _top_k(value: object, nemo: Configuration) -> Outcome:
    return carried({"checkpoint.save_top_k": integer(value)}) if _keeps_checkpoints(nemo) else same("none are kept")


def _every_n_steps(value: object, nemo: Configuration) -> Outcome:
    if not _keeps_checkpoints(nemo):
        return same("none are kept")
    if value is not None and integer(value) > 0:
        return carried({"checkpoint.every_n_train_steps": integer(value)})
    if nemo.get(f"{_CHECKPOINT}.train_time_interval") is not None:
        return same("train_time_interval says when")
    steps = validation_steps(nemo)
    if steps is None or not validates(nemo):
        return left("NeMo saves at every validation: set checkpoint.every_n_train_steps")
    return carried({"checkpoint.every_n_train_steps": steps}, "NeMo saves at every validation")


def _time_interval(value: object, _: Configuration) -> Outcome:
    if value is None or value == {}:
        return same("not set")
    return carried({"checkpoint.train_time_interval_minutes": number(value)})


def _time_interval_unit(value: object, nemo: Configuration) -> Outcome:
    units = {unit: nemo.get(f"{_CHECKPOINT}.train_time_interval.{unit}") or 0 for unit in _MINUTES}
    total = sum(number(amount) * _MINUTES[unit] for unit, amount in units.items())
    return carried({"checkpoint.train_time_interval_minutes": total}) if total else same("no time")


_MINUTES = {"days": 1440.0, "hours": 60.0, "minutes": 1.0, "seconds": 1 / 60}


def _ema_decay(value: object, nemo: Configuration) -> Outcome:
    if not nemo.says(f"{_EMA}.enable"):
        return same("no average is kept")
    return carried({"trainer.ema_decay": number(value)})


def _ema_enable(value: object, _: Configuration) -> Outcome:
    return carried({}, "trainer.ema_decay says it") if boolean(value) else same("no average is kept")


def _ema_steps(value: object, nemo: Configuration) -> Outcome:
    if not nemo.says(f"{_EMA}.enable") or integer(value) == 1:
        return same()
    return cannot("the average takes in every step")


def _ema_validation(value: object, nemo: Configuration) -> Outcome:
    if not nemo.says(f"{_EMA}.enable") or not boolean(value):
        return same()
    return left("validation uses the average")


def _stopping(value: object, nemo: Configuration) -> Outcome:
    if not boolean(value):
        return same("no early stopping")
    patience = nemo.get(f"{_STOPPING}.patience", 10)
    monitor = nemo.get(f"{_STOPPING}.monitor", "val_loss")
    if (monitor, nemo.get(f"{_STOPPING}.mode", "min")) != (
        nemo.get(f"{_CHECKPOINT}.monitor", "val_loss"),
        nemo.get(f"{_CHECKPOINT}.mode", "min"),
    ):
        return cannot("early stopping watches checkpoint.monitor: set that, and trainer.early_stopping_patience")
    if not (nemo.get("model.data.data_path") and validates(nemo)):
        return cannot("needs validation: with data.validation_data_path set trainer.early_stopping_patience")
    return carried({"trainer.early_stopping_patience": integer(patience)})


def _stopping_part(value: object, nemo: Configuration) -> Outcome:
    if not nemo.says("exp_manager.create_early_stopping_callback"):
        return same("no early stopping")
    return carried({}, "with create_early_stopping_callback")


def _stopping_delta(value: object, nemo: Configuration) -> Outcome:
    if not nemo.says("exp_manager.create_early_stopping_callback") or value is None or number(value) == 0:
        return same("no early stopping")
    return cannot("any improvement counts for early stopping")


_FOLDER = "runs go to the folder runs, or that of --runs-dir"
_EXPORT = "there are no .nemo files: nemo-run export writes a Hugging Face directory"

EXPERIMENT_RULES: tuple[Rule, ...] = (
    decides("name", "`name`", "where exp_manager has none", _outer_name),
    decides("exp_manager.name", "`name`", "with underscores for what a Python name cannot hold", _name),
    leaves("exp_manager.exp_dir", otherwise=_FOLDER),
    leaves("exp_manager.explicit_log_dir", otherwise=_FOLDER),
    leaves("exp_manager.version", otherwise="runs are called what --name says, and the time"),
    harmless("exp_manager.use_datetime_version", "names of runs end in their time unless --name says otherwise"),
    leaves(
        "exp_manager.resume_if_exists",
        False,
        otherwise="a launch is a new run; nemo-run resume RUN goes on with one",
    ),
    harmless("exp_manager.resume_ignore_no_checkpoint", "a run without a checkpoint starts from the beginning"),
    leaves("exp_manager.resume_past_end", False, otherwise="nemo-run resume RUN trainer.max_steps=N goes on"),
    holds("exp_manager.resume_from_checkpoint", None, otherwise="NeMo's checkpoints cannot be resumed"),
    leaves("exp_manager.create_tensorboard_logger", True, otherwise="TensorBoard files are always written"),
    decides(
        "exp_manager.create_wandb_logger", "`logging.wandb_project`", "off: the other wandb keys do nothing", _wandb
    ),
    decides("exp_manager.wandb_logger_kwargs.project", "`logging.wandb_project`", "", _project),
    decides("exp_manager.wandb_logger_kwargs.entity", "`logging.wandb_entity`", "", _entity),
    decides("exp_manager.wandb_logger_kwargs.*", "left out", "name a run with --name", _other_wandb),
    *(
        leaves(f"exp_manager.create_{logger}_logger", False, otherwise="logs to TensorBoard, CSV and Weights & Biases")
        for logger in ("mlflow", "dllogger", "clearml", "neptune")
    ),
    *(
        harmless(f"exp_manager.{logger}_logger_kwargs.*", "that logger is not there")
        for logger in ("mlflow", "dllogger", "clearml", "neptune")
    ),
    decides(
        "exp_manager.create_checkpoint_callback",
        "`checkpoint.save_top_k`",
        "False: 0, which leaves the last one only",
        _create_checkpoints,
    ),
    decides(
        f"{_CHECKPOINT}.monitor",
        "`checkpoint.monitor`",
        "val_loss (where there is validation) or reduced_train_loss",
        _monitor,
        absent="val_loss",
    ),
    carries(f"{_CHECKPOINT}.mode", "checkpoint.mode", text),
    decides(f"{_CHECKPOINT}.save_top_k", "`checkpoint.save_top_k`", "", _top_k, absent=3),
    carries(f"{_CHECKPOINT}.save_last", "checkpoint.save_last", boolean),
    decides(
        f"{_CHECKPOINT}.every_n_train_steps",
        "`checkpoint.every_n_train_steps`",
        "where it is not set, trainer.val_check_interval: NeMo saves at every validation",
        _every_n_steps,
        absent=None,
    ),
    decides(
        f"{_CHECKPOINT}.train_time_interval",
        "`checkpoint.train_time_interval_minutes`",
        "",
        _time_interval,
    ),
    *(
        decides(
            f"{_CHECKPOINT}.train_time_interval.{unit}",
            "`checkpoint.train_time_interval_minutes`",
            "added up",
            _time_interval_unit,
        )
        for unit in _MINUTES
    ),
    leaves(f"{_CHECKPOINT}.every_n_epochs", 1, otherwise="checkpoints are counted in steps or minutes"),
    leaves(f"{_CHECKPOINT}.filename", otherwise="checkpoints are called step-N"),
    leaves(f"{_CHECKPOINT}.dirpath", otherwise="checkpoints are in the folder of the run"),
    leaves(f"{_CHECKPOINT}.always_save_nemo", False, otherwise=_EXPORT),
    leaves(f"{_CHECKPOINT}.save_nemo_on_train_end", False, otherwise=_EXPORT),
    leaves(f"{_CHECKPOINT}.save_best_model", False, otherwise="the best are kept, by checkpoint.monitor"),
    leaves(f"{_CHECKPOINT}.save_weights_only", False, otherwise="checkpoints hold all that a run needs to go on"),
    leaves(f"{_CHECKPOINT}.async_save", False, otherwise="training waits for a checkpoint to be written"),
    leaves(f"{_CHECKPOINT}.save_on_train_epoch_end", False, otherwise="checkpoints are counted in steps or minutes"),
    harmless(f"{_CHECKPOINT}.model_parallel_size", "follows from the layout"),
    *(
        harmless(f"{_CHECKPOINT}.{key}", "how NeMo names and reports checkpoints")
        for key in ("verbose", "auto_insert_metric_name", "prefix", "postfix")
    ),
    decides(f"{_EMA}.enable", "`trainer.ema_decay`", "False: no average is kept", _ema_enable),
    decides(f"{_EMA}.decay", "`trainer.ema_decay`", "with enable", _ema_decay),
    decides(f"{_EMA}.every_n_steps", "always `1`", "the average takes in every step", _ema_steps),
    decides(
        f"{_EMA}.validate_original_weights", "left out unless `False`", "validation uses the average", _ema_validation
    ),
    harmless(f"{_EMA}.cpu_offload", "where the average is kept"),
    decides(
        "exp_manager.create_early_stopping_callback",
        "`trainer.early_stopping_patience`",
        "where it watches what checkpoints are ranked by",
        _stopping,
    ),
    decides(f"{_STOPPING}.patience", "`trainer.early_stopping_patience`", "with the callback", _stopping_part),
    decides(f"{_STOPPING}.monitor", "`checkpoint.monitor`", "must be the same", _stopping_part),
    decides(f"{_STOPPING}.mode", "`checkpoint.mode`", "must be the same", _stopping_part),
    decides(f"{_STOPPING}.min_delta", "always `0`", "any improvement counts", _stopping_delta, absent=0.001),
    harmless(f"{_STOPPING}.*", "how NeMo checks and reports"),
    leaves("exp_manager.max_time_per_run", otherwise="a time limit is the executor's"),
    leaves("exp_manager.files_to_copy", [], otherwise="a run directory holds the recipe and the version of the code"),
    leaves("exp_manager.create_straggler_detection_callback", False, otherwise="slow GPUs are not looked for"),
    leaves("exp_manager.create_fault_tolerance_callback", False, otherwise="restarting is the executor's"),
    *(
        harmless(f"exp_manager.{key}", "what is logged, and when")
        for key in (
            "create_preemption_callback",
            "disable_validation_on_resume",
            "log_global_rank_0_only",
            "log_local_rank_0_only",
            "log_step_timing",
            "log_tflops_per_sec_per_gpu",
            "seconds_to_sleep",
            "step_timing_kwargs.*",
            "straggler_detection_params.*",
            "fault_tolerance.*",
            "summary_writer_kwargs.*",
        )
    ),
)
"""Rules for the keys of exp_manager."""
