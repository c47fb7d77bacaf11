# `millrace` in an image without a shell, for a user without rights, on a root that may be read-only (docs/container.md):
#
#     docker build --build-arg COMMIT="$(git rev-parse HEAD)" \
#         --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" --tag millrace:0.1.0 .

# Bases by digest: what is built today is built tomorrow. To be renewed with each of their security updates.
ARG RUST_IMAGE=rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f

FROM ${RUST_IMAGE} AS build
# The image's own compiler; rust-toolchain.toml would fetch tools of developers too.
ENV RUSTUP_TOOLCHAIN=1.95.0
SHELL ["/bin/bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c"]
WORKDIR /src
COPY . .
# What the program says that it was built from; there is no git folder here.
ARG COMMIT
ARG SOURCE_DATE_EPOCH
# The image of Rust has the C compiler, pkg-config and the headers of OpenSSL and zlib for librdkafka. Of the libraries that
# the program loads, the runtime image lacks zlib alone, and gets the one that it was built against.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    export MILLRACE_COMMIT="${COMMIT:-}" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    && cargo build --release --locked --package millrace-consumers --bin millrace \
    && install -D --mode=0755 target/release/millrace /image/usr/local/bin/millrace \
    && zlib="$(ldd target/release/millrace | awk '$1 == "libz.so.1" { print $3 }')" \
    && install -D --mode=0644 "${zlib}" "/image/usr/lib/$(gcc -dumpmachine)/libz.so.1" \
    && install -D --mode=0644 LICENSE /image/usr/share/doc/millrace/LICENSE

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG COMMIT
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="Avro events from Kafka into ClickHouse, exactly once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /image/ /
ENV MILLRACE_CONFIG=/etc/millrace/millrace.toml
# By number, so that an orchestrator sees that it is not root.
USER 65532:65532
# Fails here, and not in production, if a library is missing.
RUN ["/usr/local/bin/millrace", "--version"]
# Metrics and health; the admin API.
EXPOSE 9400 9465
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/millrace", "health"]
ENTRYPOINT ["/usr/local/bin/millrace"]
CMD ["run"]
