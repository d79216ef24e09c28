# An image that has this project and all it needs. It takes BuildKit, which `docker build` has used since Docker 23.
#
# For CPUs:                docker build -t neva-recipes .
# For NVIDIA GPUs:         docker build -t neva-recipes:gpu --build-arg BASE=nvcr.io/nvidia/pytorch:26.07-py3 .
# With what CI has tested: add --build-arg CONSTRAINTS=.ci/constraints.txt (CPU image)
# With your own pip.conf:  add --secret id=pip.conf,src=$HOME/.config/pip/pip.conf
#
# The base of the GPU image has PyTorch and Transformer Engine built for each other; pip keeps them as they are. The
# Megatron-Core for its Python 3.12 takes Transformer Engine 2.14 to 2.20.
ARG BASE=python:3.12-slim

# What pip is to install, apart from the code: as long as this stays the same, so does the large layer below.
FROM ${BASE} AS project
ARG CONSTRAINTS=
ARG EXTRAS=wandb
WORKDIR /project
COPY . .
RUN python -c "import tomllib; \
        project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = [name for name in '${EXTRAS}'.split(',') if name]; \
        needed = [project['dependencies'], *(project['optional-dependencies'][name] for name in extras)]; \
        print(*sum(needed, []), sep='\n')" >requirements.txt \
    && cp "${CONSTRAINTS:-/dev/null}" constraints.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir wheels .

FROM ${BASE}
# Index of PyTorch's builds without CUDA; a base that has PyTorch already takes nothing from it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The versions of what the base has built for itself are kept: pip fails rather than replace them.
COPY --from=project /project/requirements.txt /project/constraints.txt /opt/neva-recipes/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python -m pip list --format=freeze | grep -iE '^(torch|torchvision|transformer[-_]engine.*|triton)==' >/tmp/base.txt || true; \
    python -m pip install -r /opt/neva-recipes/requirements.txt -c /opt/neva-recipes/constraints.txt -c /tmp/base.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
    && rm /tmp/base.txt

RUN --mount=type=bind,from=project,source=/project/wheels,target=/wheels \
    python -m pip install --no-index --no-deps /wheels/*.whl \
    && cd / && python -P -c "import executors, neva_model.worker, neva_recipes, torch"

# A run's user is whoever starts it, by number, with no home folder and nothing here to write to; nobody is root unasked.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
CMD ["nemo-run", "--help"]
