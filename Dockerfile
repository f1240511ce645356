# CPU (default):  docker build -t neox .
# CUDA:           docker build -t neox --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 .
# The dependencies live in /opt/venv, outside the work folder, so a checkout can be mounted over /gpt-neox.
ARG BASE=debian:12
FROM ${BASE}

ENV DEBIAN_FRONTEND=noninteractive PATH=/opt/venv/bin:$PATH
# The base image moves with its security updates, so its packages are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv git make openssh-client pdsh bubblewrap \
    && rm -rf /var/lib/apt/lists/*

COPY requirements /tmp/requirements
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir -r /tmp/requirements/requirements.txt -r /tmp/requirements/requirements-tensorboard.txt

WORKDIR /gpt-neox
COPY . .
VOLUME /gpt-neox/checkpoints
CMD ["bash"]
