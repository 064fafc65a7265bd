# All programs in one image: `docker build --tag cytotrain .`, or `make image`, which labels it; then
#   docker run cytotrain          # which programs there are, and how to call them
#   docker run --volume "$PWD:/data" cytotrain data_pipeline --organ=cervix --images=images --tfrecords=tfrecords
#   docker run --volume "$PWD:/data" cytotrain trainer --organ=cervix --tfrecords=tfrecords --runs=runs
# For NVIDIA GPUs add `--build-arg VARIANT=gpu`; the host needs its driver and the container toolkit, nothing else.
# To pin the base, `--build-arg BASE=python:3.11-slim-bookworm@sha256:…`.
ARG BASE=python:3.11-slim-bookworm

# ── The locked dependencies, in a virtual environment without pip ──────────────────────────────────────────────────
FROM ${BASE} AS dependencies
ARG VARIANT=cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/runtime.txt requirements/gpu.txt requirements/
# Some locked packages are sources only. They are built with the locked setuptools and wheel: nothing unlocked comes in.
# Then what no program reads goes, a tenth of it all: C++ headers, the packages' own tests, the compiler front end that
# TensorFlow lists but never imports, and the libraries of pyarrow, which tensorflow-datasets imports for Parquet files
# alone. Licences stay. Bytecode is made of the rest, on all processors.
RUN case "${VARIANT}" in \
        cpu) lock=requirements/runtime.txt ;; \
        gpu) lock=requirements/gpu.txt ;; \
        *) echo "Invalid value for VARIANT. Expected cpu or gpu. Received: ${VARIANT}" >&2; exit 2 ;; \
    esac \
    && python -m venv --without-pip /opt/venv \
    && sed -n '/^\(packaging\|setuptools\|wheel\)==/,/[^\\]$/p' "${lock}" > requirements/build.txt \
    && pip --python /opt/venv/bin/python install --require-hashes -r requirements/build.txt \
    && pip --python /opt/venv/bin/python install --require-hashes --no-build-isolation --no-compile -r "${lock}" \
    && site="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && rm -r "${site}/tensorflow/include" "${site}/clang/native" "${site}/pyarrow" \
    && for package in numpy scipy sklearn matplotlib mpl_toolkits h5py; do \
        find "${site}/${package}" -type d -name tests -prune -exec rm -r {} +; \
    done \
    && /opt/venv/bin/python -m compileall -q -j 0 "${site}"

# ── This project, apart from them, so that a new version is a small layer ──────────────────────────────────────────
FROM dependencies AS project
COPY setup.py pyproject.toml README.md LICENSE ./
COPY data_pipeline data_pipeline
COPY trainer trainer
RUN pip --python /opt/venv/bin/python install --no-deps --no-build-isolation --target /opt/project .

# ── What runs ──────────────────────────────────────────────────────────────────────────────────────────────────────
FROM ${BASE}
# The base's own pip goes, and every bit that lets a program run as someone else.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/*-packages/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=project /opt/project /opt/project
# The root file system may be read-only and the user may be any number: only /tmp and mounted volumes are written to.
# PYTHONSAFEPATH: a folder in /data that is called like one of our packages is never imported.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/project \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    HOME=/tmp \
    KERAS_HOME=/tmp/keras \
    MPLCONFIGDIR=/tmp/matplotlib
# What of the driver NVIDIA's container runtime brings in. Which GPUs is for `--gpus` or the cluster to say: all of them
# asked for here, pods that train nothing would take them too, or be refused.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 65532:65532
# Last, since they change with every build.
ARG BASE
ARG VARIANT=cpu
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="cytotrain" \
      org.opencontainers.image.description="Microscope images to sealed TFRecords to a trained classifier (${VARIANT})" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
# No shell in between, so that SIGTERM reaches Python.
ENTRYPOINT ["python", "-m", "trainer.container"]
