"""The last step before a shadow process: ``PARENT DATA_BYTES COMMAND…`` bounds itself and becomes that.

A process of its own does so, since code between fork and exec, in a parent with threads, may stand still.
"""

import os
import resource
import sys

from greenroom_runtime.models.child import Policy, stand_back


def main() -> None:
    """Die with the supervisor, be the kernel's first choice when memory ends, and take no more than that."""
    parent, data_bytes, *command = sys.argv[1:]
    stand_back(int(parent), policy=Policy.NICE)
    if int(data_bytes):
        resource.setrlimit(resource.RLIMIT_DATA, (int(data_bytes), int(data_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash loop would fill the disk
    try:
        os.execv(command[0], command)  # noqa: S606 a list, and no shell
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
