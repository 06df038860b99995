"""How llama.cpp is configured: for this very processor and, where that fails, for less."""

from collections.abc import Iterable, Sequence

import msgspec

COMMON = (
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",  # it would be fetched
    "LLAMA_OPENSSL=OFF",
    "LLAMA_LLGUIDANCE=OFF",  # it would be fetched, and compiled by Rust
    "GGML_CCACHE=OFF",
)
"""One program that needs nothing beside it and fetches nothing while it is made."""

PROCESSOR = {
    "GGML_SSE42": ("sse4_2",),
    "GGML_AVX": ("avx",),
    "GGML_AVX2": ("avx2",),
    "GGML_BMI2": ("bmi2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_AVX_VNNI": ("avx_vnni",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"),
    "GGML_AVX512_VBMI": ("avx512vbmi",),
    "GGML_AVX512_VNNI": ("avx512_vnni",),
    "GGML_AVX512_BF16": ("avx512_bf16",),
}
"""llama.cpp's options and the features that a processor has to list for each. AMX is left out: virtual machines list
it and end a program that uses it."""

WIDE = tuple(option for option in PROCESSOR if "512" in option or "VNNI" in option)
"""What goes first when a build for the listed features is ended, too."""


class Level(msgspec.Struct, frozen=True):
    """One way to compile; `options` are CMake's."""

    name: str
    options: tuple[str, ...]


def levels(features: Iterable[str]) -> Sequence[Level]:
    """The ways to try, best first. `features` are those that the system lists of the processor; empty: none listed."""
    listed = frozenset(features)
    found = [Level("native", ("GGML_NATIVE=ON",))]
    if "sse4_2" in listed:
        has = {option: listed.issuperset(names) for option, names in PROCESSOR.items()}
        found.append(Level("listed", _options(has)))
        if any(has[option] for option in WIDE):
            found.append(Level("plain", _options({option: has[option] and option not in WIDE for option in has})))
    else:
        found.append(Level("plain", ("GGML_NATIVE=OFF",)))
    return found


def _options(has: dict[str, bool]) -> tuple[str, ...]:
    return ("GGML_NATIVE=OFF", *(f"{option}={'ON' if on else 'OFF'}" for option, on in has.items()))
