"""The prediction log: what was answered, to whom and by which version, without ever slowing an answer.

``log`` is the part that the request path calls; ``writer`` the thread behind it; ``segments`` and ``stdout``
are where its lines go, ``shipping`` with ``http`` or ``object_store`` takes segments further. ``ledger``
accounts for every record.
"""
