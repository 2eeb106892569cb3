"""HTTP to what tests start on this machine: never TLS."""

import ssl

import httpx2

http = httpx2.Client(
    # httpx2's own functions read the certificates of all authorities for each request: 50 ms of a core.
    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    trust_env=False,
    timeout=60,  # only ever reached on failure
    limits=httpx2.Limits(max_keepalive_connections=0),
)
"""Connects anew for each request: who answered before may have ended since."""
