# An image that has this project and all it needs.
#
# For CPUs:                docker build -t neva-recipes .
# For NVIDIA GPUs:         docker build -t neva-recipes --build-arg BASE=nvcr.io/nvidia/pytorch:25.09-py3 .
# With what CI has tested: add --build-arg CONSTRAINTS=.ci/constraints.txt (CPU image)
#
# The base of the GPU image has PyTorch and Transformer Engine built for each other; pip keeps them as they are.
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG CONSTRAINTS=
ARG EXTRAS=wandb

# Index of PyTorch's builds without CUDA; a base that has PyTorch already takes nothing from it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1

WORKDIR /opt/neva-recipes
COPY . .

# The versions of what the base has built for itself are kept: pip fails rather than replace them.
RUN python -m pip list --format=freeze | grep -iE '^(torch|torchvision|transformer[-_]engine.*|triton)==' >/tmp/base.txt || true; \
    python -m pip install ${CONSTRAINTS:+-c ${CONSTRAINTS}} -c /tmp/base.txt \
        --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]" \
    && rm /tmp/base.txt \
    && python -P -c "import executors, neva_model, neva_recipes, torch"

# A run's user is whoever starts it, by number: nothing here belongs to it, and it has no home folder.
ENV HOME=/tmp
WORKDIR /tmp
CMD ["nemo-run", "--help"]
