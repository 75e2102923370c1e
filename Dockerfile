# syntax=docker/dockerfile:1
# The image of the sidecar: Node.js, the compiled program and its production dependencies; no shell,
# no package manager. It needs no writable file system and no privilege:
#   docker run --rm --read-only --cap-drop ALL -v "$PWD/postern:/etc/postern:ro" postern

# 26.12.1: releases before it lack security fixes that a proxy is exposed to.
FROM node:26.12.1-trixie-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
COPY tools/runtime/package.json tools/runtime/
# With optional dependencies: the bundler is one, for each platform.
RUN npm ci --ignore-scripts
COPY tools/build.ts tools/
COPY src src
RUN npm run build
# What the image consists of, for whoever scans it: /app/dist/sbom.cdx.json.
COPY Dockerfile ./
COPY tools/sbom.ts tools/
RUN npm run -s sbom > dist/sbom.cdx.json
# Without them: the Node.js of a checkout is one, and the image has its own.
RUN rm -rf node_modules \
 && npm ci --omit=dev --omit=optional --ignore-scripts \
 && rm -rf node_modules/.bin node_modules/.package-lock.json node_modules/postern-runtime
# Node.js links against libatomic since version 25; the base image below does not carry it.
RUN lib="/usr/lib/$(uname -m)-linux-gnu" \
 && install -D -t "/runtime$lib" "$lib/libatomic.so.1" \
 && install -D -t /runtime/usr/local/bin /usr/local/bin/node
# As it will lie in the image, with the code that V8 has compiled, a fifth of a start: for this user and for
# processors with the features of this one; elsewhere it is not used. Nobody can write it.
RUN mkdir -p /app/policies /app/compile-cache \
 && mv dist node_modules package.json /app/
COPY policies/bundle.tar.gz /app/policies/
RUN cd /app && chown 65532:65532 compile-cache \
 && setpriv --reuid 65532 --regid 65532 --clear-groups \
    env NODE_COMPILE_CACHE=/app/compile-cache node dist/main.js demo --once \
 && chown -R 0:0 compile-cache && chmod -R a=rX compile-cache

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /runtime/ /
WORKDIR /app
COPY LICENSE ./
COPY --from=build /app/ ./
ENV NODE_COMPILE_CACHE=/app/compile-cache
# Pieces from 64 KiB on go back to the system when they are freed, of which handshakes take some: 45 MiB less where
# 10,000 clients come at once (bench/RESULTS.md).
ENV MALLOC_MMAP_THRESHOLD_=65536
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8443 15090 15021
STOPSIGNAL SIGTERM
# For plain Docker; Kubernetes uses its own probes (deploy/sidecar.yaml).
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["/usr/local/bin/node", "-e", "fetch('http://127.0.0.1:15090/readyz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# As many helpers of V8 as there are processors besides the first, and one at least: four by default, which a data
# thread on one processor waits for in turn while the heap is marked.
ENTRYPOINT ["/usr/local/bin/node", "--v8-pool-size=0", "/app/dist/main.js"]
CMD ["run", "--config", "/etc/postern/postern.yaml"]
