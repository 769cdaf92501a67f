# docker build -t clipaudit .                                                                   (CPU)
# docker build -t clipaudit --build-arg TORCH=https://download.pytorch.org/whl/cu130 .          (CUDA)
# docker run --rm -v "$PWD:/data" clipaudit embed photos/
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.12-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
COPY .ci/constraints.txt /
COPY --from=wheel /wheel /wheel
# torch from its own index first: the one of PyPI brings CUDA's libraries along.
RUN pip install --no-cache-dir -c /constraints.txt --index-url "$TORCH" torch \
    && pip install --no-cache-dir -c /constraints.txt "$(ls /wheel/*.whl)[copies,quality,train]" \
    && rm -r /wheel
WORKDIR /data
ENTRYPOINT ["clipaudit"]
