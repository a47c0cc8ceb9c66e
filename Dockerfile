# The image of a control plane, and of everything else that the command `fairway` does.
#
#   docker build -t fairway .
#   docker run -p 50051:50051 -v fairway:/var/lib/fairway fairway serve --insecure
#
# Plain text outside loopback is said aloud, so `serve` alone stops and names the two ways: --insecure, or TLS.

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY catalog catalog
COPY policies policies
COPY federation federation
# An environment of its own is one directory to copy, and has no pip in it. Same path in both stages, since the console
# script names its interpreter. postgres: the catalog of several replicas; otlp: traces and metrics to a collector;
# fast: a quicker event loop.
RUN python -m venv --without-pip /opt/fairway \
 && pip --python /opt/fairway/bin/python install --no-cache-dir '.[postgres,otlp,fast]'

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="fairway" \
      org.opencontainers.image.description="A federated multi-region inference control plane" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The root file system may be read-only, so no bytecode is written at run time; the build has compiled it.
# A container's loopback reaches nobody: it listens on every address.
ENV PATH=/opt/fairway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FAIRWAY_SERVER__LISTEN=0.0.0.0:50051 \
    FAIRWAY_SERVER__ADMIN=0.0.0.0:8080
# By number, so that Kubernetes can see that it is not root.
RUN install -d -o 10001 -g 10001 /var/lib/fairway
COPY --from=build /opt/fairway /opt/fairway
USER 10001:10001
# SQLite's default file is relative: it lands here.
WORKDIR /var/lib/fairway
EXPOSE 50051 8080
ENTRYPOINT ["fairway"]
CMD ["serve"]
