"""What the operator and the runtime agree on: the standard library and pydantic only.

The runtime, which reads what the operator writes, owns these definitions. A runtime of an older
release may run under a newer operator, so readers ignore fields that they do not know and refuse
only a higher ``schema_version``.
"""
