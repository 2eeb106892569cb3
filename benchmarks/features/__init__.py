"""The feature cache beside a cache without timeouts, and beside Redis alone."""
