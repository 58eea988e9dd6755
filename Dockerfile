# One image for every component, for Docker's builders old and new. `make image` fills in the arguments.
# Name the base by digest for a build that can be repeated: BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
# Which build of the one locked torch version: cpu, or cu126 and the like for GPUs.
ARG TORCH=cpu
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_NO_PROGRESS=1 UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    VIRTUAL_ENV=/opt/car HF_HUB_CACHE=/opt/encoders
RUN python -m pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}" \
    && uv venv "${VIRTUAL_ENV}"
# Wheels that no index has may lie in build/image/wheels; a torch among them is taken instead of PyTorch's own.
COPY requirements/run.lock requirements/ann.lock requirements/spark.lock build/image/wheel[s] /wheels/
# Optional extras: ann (faiss), spark, or both.
ARG EXTRAS=
RUN if [ "${TORCH}" != cpu ] || [ -z "$(find /wheels -name 'torch-*.whl')" ]; then export UV_TORCH_BACKEND="${TORCH}"; fi \
    && for part in run ${EXTRAS}; do echo "-r ${part}.lock"; done > /wheels/all.txt \
    && uv pip install --find-links /wheels --requirements /wheels/all.txt
# Remove what no step uses: tests, headers, static libraries, torch's test programs, Arrow's remote procedure calls and
# its client of another cloud; and byte code of rarely imported packages, which Python compiles again in memory.
# The .pth file adds the project's code to the path.
WORKDIR /opt/car/lib/python3.11/site-packages
RUN find . -type d \( -name tests -o -name test -o -name include \) -prune -exec rm -rf {} + \
    && find . -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.h' -o -name '*.hpp' \) -delete \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find transformers/models fontTools kubernetes altair torchgen torch/onnx -name '*.pyc' -delete \
    && rm -rf torch/share matplotlib/mpl-data/sample_data pyarrow/*flight* pyarrow/*s3* \
    && echo /opt/project > car_on_kubeflow.pth
# Weights of a text encoder from a model hub; MiniLM's come with a package.
ARG ENCODER=
ARG ENCODER_REVISION=main
RUN mkdir -p "${HF_HUB_CACHE}" \
    && if [ -n "${ENCODER}" ]; then "${VIRTUAL_ENV}/bin/hf" download "${ENCODER}" --revision "${ENCODER_REVISION}"; fi
WORKDIR /build
COPY pyproject.toml README.md pipeline.py ./
COPY requirements/run.in requirements/ann.in requirements/spark.in requirements/
COPY car_model car_model
COPY common common
COPY components components
COPY ingestion ingestion
COPY orchestration orchestration
COPY registry registry
COPY serving serving
COPY validation validation
RUN uv pip install --no-deps --no-build-isolation --target /opt/project . \
    && "${VIRTUAL_ENV}/bin/python" -c "import great_expectations, pyarrow.dataset, pyarrow.fs, sentence_transformers, ts, pipeline"

# hadolint ignore=DL3006
FROM ${BASE}
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin car
COPY --from=build /opt/car /opt/car
COPY --from=build --chown=10001 /opt/encoders /opt/encoders
COPY --from=build /opt/project /opt/project
# Login shells, which training containers start with, begin with a PATH of their own.
RUN echo "export PATH=/opt/car/bin:\${PATH}" > /etc/profile.d/car.sh
ENV PATH=/opt/car/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_CACHE=/opt/encoders
# The commit, and the digest of the code, which a run in containers compares with its own.
ARG COMMIT=unknown
ARG CODE=unknown
LABEL org.opencontainers.image.title="car-on-kubeflow" \
      org.opencontainers.image.description="Every step of the CAR on Kubeflow pipeline" \
      org.opencontainers.image.revision="${COMMIT}" \
      car-on-kubeflow.code="${CODE}"
USER 10001
WORKDIR /home/car
CMD ["python", "-c", "import pipeline; print('The steps of', pipeline.NAME, 'run in this image.')"]
