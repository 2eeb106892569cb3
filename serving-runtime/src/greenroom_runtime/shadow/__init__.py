"""What a shadow sees, and the shadow itself.

The supervisor (``__main__``, ``supervisor`` and what they import) is the standard library only: it is the
first process of a container that must not end, and whatever it imports costs memory and can fail.
"""
