"""How much memory this process may have."""

import contextlib
from pathlib import Path

import psutil
import torch

CONTAINER = (  # files with the limit of a container, and with what it uses: of version 2 and of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory(device="cpu"):
    """Return how many bytes this process may have: what it has, and what the machine, the container or limits leave."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[1]
    process = psutil.Process()
    left = [psutil.virtual_memory().available]
    for limit, used in CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # there is no container, or its limit is "max"
            left.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    if hasattr(psutil, "RLIMIT_AS") and process.rlimit(psutil.RLIMIT_AS)[0] > 0:
        left.append(process.rlimit(psutil.RLIMIT_AS)[0] - process.memory_info().vms)
    return max(0, min(left)) + process.memory_info().rss
