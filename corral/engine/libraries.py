"""Which package of the system has a library that the engine does not find."""

import re

_NOT_FOUND = re.compile(r"(?P<file>[\w.+-]+\.so[\w.]*): cannot open shared object file")
"""What the loader of Linux says, glibc's and musl's alike up to here."""
_PACKAGES = {
    "libgomp.so.1": "libgomp1 on Debian and Ubuntu, libgomp on Fedora, Arch and Alpine",
    "libstdc++.so.6": "libstdc++6 on Debian and Ubuntu, libstdc++ on Fedora and Alpine",
    "libvulkan.so.1": "libvulkan1 on Debian and Ubuntu, vulkan-loader on Fedora, Arch and Alpine",
    "libcuda.so.1": "the driver of NVIDIA",
}


def advice(text: str) -> str:
    """What to install when a program ended with this text; empty where no library is missing."""
    found = _NOT_FOUND.search(text)
    if found is None:
        return ""
    package = _PACKAGES.get(found["file"], "your system's package that has it")
    return f"{found['file']} is missing on this machine: install {package}"
