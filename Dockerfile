# SPDX-License-Identifier: Apache-2.0
# Both images of Outrider:
#   docker build --target sidecar  -t outrider-sidecar:0.1.0 .      the proxy, also the prober
#   docker build --target operator -t outrider-operator:0.1.0 .     the control plane
# A Python, the locked packages, and Outrider in /opt/outrider; no pip, nothing from the tests, nobody's root. The base is pinned by the
# digest of its multi-platform index. To renew it: docker buildx imagetools inspect python:3.12-slim-bookworm
ARG PYTHON=docker.io/library/python:3.12.15-slim-bookworm@sha256:54c85f3c47607a77f32adec749d3c81d1348bf25833671f512b26a9b6d778cb3

FROM ${PYTHON} AS wheel
WORKDIR /source
COPY lock/build.txt lock/
RUN python3 -m venv /build && /build/bin/pip install --quiet --require-hashes --only-binary=:all: -r lock/build.txt
COPY pyproject.toml README.md ./
COPY sidecar sidecar
COPY operator operator
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${PYTHON} AS made-sidecar
COPY images/install.sh lock/sidecar.txt /install/
RUN sh /install/install.sh packages /install/sidecar.txt
COPY --from=wheel /wheels /wheels
RUN sh /install/install.sh product /wheels/*.whl

FROM ${PYTHON} AS made-operator
COPY images/install.sh lock/operator.txt /install/
RUN sh /install/install.sh packages /install/operator.txt
COPY --from=wheel /wheels /wheels
RUN sh /install/install.sh product /wheels/*.whl

# What a running image needs of the base: Python, less everything that installs.
FROM ${PYTHON} AS bare
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* /root/.cache
ENV PATH=/opt/outrider/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /

FROM bare AS sidecar
LABEL org.opencontainers.image.title="outrider-sidecar" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=made-sidecar /etc/passwd /etc/group /etc/
COPY --from=made-sidecar /opt/outrider /opt/outrider
USER 64150:64150
ENTRYPOINT ["/opt/outrider/bin/outrider-sidecar"]

FROM bare AS operator
LABEL org.opencontainers.image.title="outrider-operator" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=made-operator /etc/passwd /etc/group /etc/
COPY --from=made-operator /opt/outrider /opt/outrider
USER 64150:64150
ENTRYPOINT ["/opt/outrider/bin/outrider-operator"]
