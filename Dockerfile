# A DERP relay that takes the place of derper's images: see docs/container.rst.
#
#   docker build -t derper .
#
# For a build that can be repeated name the base by digest as well:
#   --build-arg PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:...
# The steps are scripts in contrib/image, and contrib/image/rehearse tries the result.

# Debian 13: its OpenSSL (3.5) offers clients X25519MLKEM768. Python's own ssl speaks TLS on the
# relay's ports, and that is linked to this OpenSSL.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY contrib/image/install.sh contrib/image/requirements.txt contrib/image/
RUN ["sh", "contrib/image/install.sh", "dependencies"]
COPY . .
RUN ["sh", "contrib/image/install.sh", "relay"]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/derper /opt/derper
RUN ["/opt/derper/libexec/finish.sh"]

# "container" tells the relay that it is in one. None of these sets a flag, and none is a secret:
# the settings are those of whoever runs the image.
ENV HOME=/root \
    PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/opt/derper/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    container=oci

USER derper
# certificate directories that are not absolute are in /root, as in the images that have them
WORKDIR /root
# the key, certificates of the first family of images, certificates of the second
VOLUME ["/var/lib/derper", "/app/certs", "/root"]
EXPOSE 80/tcp 443/tcp 3478/udp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/derper/libexec/entrypoint.sh"]
CMD ["derper"]
# A login over TLS, done by the relay's own client: upgrade, greeting, key.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 \
    CMD ["/app/derper", "health"]

# Last, since they change with every build.
ARG VERSION=0
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="derper" \
      org.opencontainers.image.description="A DERP relay for Tailscale and Headscale networks" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
