"""What a rank imports, for the process that `warm_rank.py` forks."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from neva_model.startup import prepare_process

prepare_process()

import torch.utils.tensorboard  # noqa: E402, F401
import transformers.models.clip.modeling_clip  # noqa: E402
import transformers.models.siglip.modeling_siglip  # noqa: E402, F401

import neva_model.training.train  # noqa: E402
import neva_model.worker  # noqa: E402, F401
