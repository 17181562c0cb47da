# The service of `fer-jax serve`, on port 8000:
#   docker build --tag fer-jax .
#   docker run --rm --publish 127.0.0.1:8000:8000 --env FER_JAX_TOKEN=<16 characters or more> fer-jax
FROM python:3.13-slim AS build
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY fer_jax fer_jax
COPY configs configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
COPY --from=build /wheels /wheels
COPY constraints/jax-0.12.txt /wheels/constraints.txt
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/*.whl)[serve]"
RUN useradd --create-home server
USER server
WORKDIR /home/server
RUN fer-jax pretrained --fetch blazeface
EXPOSE 8000
HEALTHCHECK --start-period=120s --interval=30s --timeout=5s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
CMD ["fer-jax", "serve", "--host", "0.0.0.0"]
