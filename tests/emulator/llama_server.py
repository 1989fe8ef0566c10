"""llama.cpp's own HTTP server from the package xllamacpp, as a program: llama_server.py MODEL PORT [embeddings]."""

from __future__ import annotations

import sys
import time

import xllamacpp


def main() -> None:
    """Serve a model until killed."""
    model, port, *others = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.port = int(port)
    parameters.n_ctx = 4096
    parameters.n_parallel = 2
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.embedding = "embeddings" in others
    if parameters.embedding:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
