# mtanimate on a CPU.
#   docker build --tag mtanimate .
#   docker run --rm --volume "$PWD:/work" --user "$(id -u)" mtanimate animate --source face.jpg --driving talk.mp4
ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS wheel
COPY . /source
RUN python -m pip wheel --no-deps --wheel-dir /dist /source

FROM ${PYTHON}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# First, and from an index without CUDA: it saves gigabytes.
RUN python -m pip install --no-cache-dir --index-url "${TORCH_INDEX}" torch
COPY --from=wheel /dist /dist
RUN python -m pip install --no-cache-dir "$(ls /dist/*.whl)[faces,openvino]"
# Any user may run it: measurements, imported checkpoints and installed exports are kept in /cache.
RUN useradd --uid 1000 mtanimate && install --directory --mode 1777 /cache /work
ENV MTANIMATE_CACHE=/cache MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
USER mtanimate
WORKDIR /work
ENTRYPOINT ["mtanimate"]
CMD ["--help"]
