"""The serving process with its answers mirrored, beside itself without."""
