# On the CPU:  docker build --tag convscape .
# On NVIDIA:   docker build --tag convscape --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
#
#   docker run --rm --volume "$PWD:/lab" convscape train data=digits
#   docker run --rm --volume "$PWD:/lab" --gpus all convscape train data=mnist
#
# torch for Linux brings CUDA's libraries along, so the base needs only the driver's hooks.
ARG BASE=python:3.13-slim
FROM ${BASE}

# a base without Python gets its distribution's, which must be 3.11 or newer
RUN command -v python3 >/dev/null || { apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*; }

WORKDIR /convscape
COPY requirements.lock ./
RUN python3 -m venv /venv \
    && /venv/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY conf conf
COPY scripts scripts
COPY src src
RUN /venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation .

ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    CONVSCAPE_DATA=/lab/data
WORKDIR /lab
ENTRYPOINT ["convscape"]
CMD ["train"]
