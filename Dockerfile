# The image of `freshet serve`. Built with: make image

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /build
# The dependencies alone, in a layer that stays until Cargo.lock changes. The
# lists of tests and benches are left out, since their files are not here.
COPY Cargo.toml Cargo.lock ./
RUN awk '/^\[\[/ { skip = 1 } /^\[[^[]/ { skip = 0 } !skip' Cargo.toml > Cargo.toml.new \
    && mv Cargo.toml Cargo.toml.full && mv Cargo.toml.new Cargo.toml \
    && mkdir src && echo '//! Empty.' > src/lib.rs \
    && printf '//! Empty.\nfn main() {}\n' > src/main.rs \
    && cargo build --release --locked --bin freshet \
    && mv Cargo.toml.full Cargo.toml && rm -r src
COPY . .
ARG FRESHET_COMMIT=unknown
# Cargo goes by the time of change, which may lie before that of the empty files above.
RUN touch src/main.rs src/lib.rs build.rs \
    && cargo build --release --locked --bin freshet \
    && strip --strip-debug -o /freshet target/release/freshet
# In a container the loopback addresses would be reachable by nobody.
RUN sed -e 's/"127\.0\.0\.1:6380"/"0.0.0.0:6380"/' -e 's/"127\.0\.0\.1:9380"/"0.0.0.0:9380"/' \
        proxy.toml > /proxy.toml

FROM docker.io/library/debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin freshet
COPY --from=build /freshet /usr/local/bin/freshet
# Mount your own over it, or override single settings by FRESHET_<SECTION>_<NAME>.
COPY --from=build /proxy.toml /etc/freshet/proxy.toml
ENV FRESHET_CONFIG=/etc/freshet/proxy.toml
USER 10001
EXPOSE 6380 9380
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["freshet", "healthcheck"]
ENTRYPOINT ["freshet"]
CMD ["serve"]
