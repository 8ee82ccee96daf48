# The live server on a CPU: docker build -t vasa-jax . && docker run -p 8765:8765 -e VASA_TOKEN=... vasa-jax
# For a GPU, add jax's CUDA wheels: --build-arg EXTRA='jax[cuda12]', and run with --gpus all.
FROM python:3.12-slim
ARG EXTRA=
WORKDIR /app
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY vasa_jax vasa_jax
RUN pip install --no-cache-dir '.[serve]' ${EXTRA}
RUN useradd --create-home vasa
USER vasa
EXPOSE 8765
# Asks by http and https, past all proxies. Another port inside the container: -e VASA_PORT=9000.
HEALTHCHECK --start-period=120s CMD ["python", "-m", "vasa_jax.serve.health"]
# An address that others can reach needs a token; the server refuses to start without $VASA_TOKEN.
ENTRYPOINT ["vasa-jax", "serve", "--host", "0.0.0.0"]
