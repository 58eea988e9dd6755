# One image for every component. Name the base by digest for a build that can be repeated:
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... --build-arg COMMIT=$(git rev-parse HEAD) .
ARG BASE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
# Which build of the one locked torch version: cpu, or cu126 and the like for GPUs.
ARG TORCH=cpu
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_TORCH_BACKEND=${TORCH} VIRTUAL_ENV=/opt/car
RUN python -m pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}" \
    && uv venv --seed "${VIRTUAL_ENV}"
COPY requirements/run.lock /build/requirements/run.lock
RUN uv pip install --no-cache --requirements /build/requirements/run.lock
WORKDIR /build
COPY pyproject.toml README.md pipeline.py ./
COPY requirements/run.in requirements/run.in
COPY car_model car_model
COPY components components
COPY ingestion ingestion
COPY registry registry
COPY serving serving
COPY validation validation
RUN uv pip install --no-cache --no-deps --no-build-isolation .

# hadolint ignore=DL3006
FROM ${BASE}
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="car-on-kubeflow" \
      org.opencontainers.image.description="Every step of the CAR on Kubeflow pipeline" \
      org.opencontainers.image.revision="${COMMIT}"
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin car
COPY --from=build /opt/car /opt/car
ENV PATH=/opt/car/bin:${PATH} PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/car
CMD ["python", "-c", "import pipeline; print('The steps of', pipeline.NAME, 'run in this image.')"]
