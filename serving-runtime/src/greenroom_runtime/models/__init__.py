import os

# Both are read once, when the libraries are first imported: telemetry costs a thread and 9 MB, and
# OpenBLAS reserves 40 MB of address space per core, which counts against a trial's memory limit.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
