"""The serving runtime beside its peers: one model, one row a request, one core for each server."""
