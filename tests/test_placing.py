"""Where a model is to lie, as tables: devices and a model in, layers for each device and a sentence out."""

from pathlib import Path

import msgspec
import pytest

from corral.engine.base import RunnerSpec
from corral.engine.placement import Bytes, Parts, Placement, Ratios
from corral.machine.gpus import Gpu, listed
from corral.machine.memory import GIB, Memory
from corral.serving.decisions import Evict, RunnerState, SchedulerLimits, Start, decide, replaced
from corral.serving.figures import Figures
from corral.serving.placing import Devices, place
from corral.serving.steps import after_out_of_memory

MIB = 1 << 20

DENSE = Parts(layers=(100 * MIB,) * 32, experts=(0,) * 32, output=200 * MIB)
"""3.3 GiB, with a cache of 4 KiB a token and layer, 16 MiB a layer for the usual context."""
MIXTURE = Parts(layers=(20 * MIB,) * 32, experts=(180 * MIB,) * 32, output=200 * MIB)

SPEC = RunnerSpec(
    model="m", num_ctx=4096, slots=4, weights_bytes=DENSE.weights, cache_bytes_per_token=32 * 4096, parts=DENSE
)


def gpus(*free: float, total: float = 8) -> tuple[Gpu, ...]:
    return tuple(Gpu(f"CUDA{number}", "A GPU", int(total * GIB), int(size * GIB)) for number, size in enumerate(free))


def planned(
    *free: float, parts: Parts = DENSE, overhead: float = 0, spread: bool = False, contexts: int = 4, **changes: object
) -> tuple[RunnerSpec, Placement]:
    spec = msgspec.structs.replace(SPEC, parts=parts, **changes)
    pools = [number * spec.num_ctx for number in range(contexts, 0, -1)]
    found = place(spec, parts, Devices(gpus(*free), int(overhead * GIB), spread), pools)
    assert found.placement is not None
    return found, found.placement


CASES: dict[str, tuple[dict[str, object], tuple[float, ...], dict[str, int], int, int]] = {
    # what differs, free GiB of each device, layers for each device, contexts of the pool, layers whose experts stay
    "whole on one": ({}, (8,), {"CUDA0": 33}, 4, 0),
    "whole on the one with most room": ({}, (5, 7), {"CUDA1": 33}, 4, 0),
    "whole on the one that was asked for": ({"main_gpu": 0}, (7, 8), {"CUDA0": 33}, 4, 0),
    "with a smaller pool before a layer is left out": ({}, (5,), {"CUDA0": 33}, 2, 0),
    "over two where one does not suffice": ({}, (3, 3), {"CUDA0": 16, "CUDA1": 17}, 3, 0),
    "by what each has free": ({}, (1.5, 4), {"CUDA1": 27, "CUDA0": 6}, 2, 0),
    "spread though one suffices": ({"spread": True}, (8, 8), {"CUDA0": 16, "CUDA1": 17}, 4, 0),
    "as many layers as fit": ({}, (2,), {"CUDA0": 13}, 1, 0),
    "fewer with an overhead": ({"overhead": 1}, (2,), {"CUDA0": 7}, 1, 0),
    "none where one does not fit": ({}, (0.5,), {}, 1, 0),
    "none with num_gpu 0": ({"num_gpu": 0}, (8,), {}, 1, 0),
    "as num_gpu says": ({"num_gpu": 9}, (8,), {"CUDA0": 9}, 4, 0),
    "as num_gpu says, whether it fits or not": ({"num_gpu": 99}, (2,), {"CUDA0": 33}, 1, 0),
    "experts before layers": ({"parts": MIXTURE}, (4,), {"CUDA0": 33}, 1, 20),
    "all experts and some layers": ({"parts": MIXTURE}, (1,), {"CUDA0": 10}, 1, 32),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_lies(case: str) -> None:
    changes, free, layers, contexts, cpu_moe = CASES[case]
    spec, placement = planned(*free, **changes)  # type: ignore[arg-type]  # a table's values
    assert {share.device: share.layers for share in placement.shares} == layers
    assert (spec.pool // spec.num_ctx, placement.cpu_moe) == (contexts, cpu_moe)
    for share in placement.shares:
        if "whether it fits" not in case:
            assert share.bytes.total <= gpus(*free)[share.index].free - 128 * MIB
    assert sum(placement.split) == placement.layers


def test_the_reason_says_what_was_free_and_what_would_have_fitted() -> None:
    _, placement = planned(4.5, num_ctx=32768, contexts=1, overhead=0.5)
    assert placement.reason == (
        "17 of 33 layers on CUDA0: 4.3 GB free of 8.6 GB on CUDA0 after 536 MB overhead; all of it takes 7.9 GB "
        "with a context of 32768; a context of 4096 instead of 32768 would fit all"
    )
    assert planned(8)[1].reason == "all 33 layers on CUDA0"
    assert planned(3, 3)[1].reason == "all 33 layers on CUDA0 (16), CUDA1 (17)"


LIMITS = SchedulerLimits(max_loaded=9, first_contexts=4)


def at(held: dict[str, float], users: int = 0, keep_alive: float = 300) -> RunnerState:
    sizes = tuple((name, int(size * GIB)) for name, size in held.items())
    other = msgspec.structs.replace(SPEC, model=f"other {sizes} {users} {keep_alive}")
    return RunnerState(spec=other, held=sizes, users=users, keep_alive=keep_alive)


def decided(loaded: list[RunnerState], *free: float, available: float = 64, **changes: object) -> object:
    spec = msgspec.structs.replace(SPEC, **changes)
    return decide(spec, loaded, Memory(64 * GIB, int(available * GIB), gpus(*free)), LIMITS)


def test_who_is_evicted_is_on_the_device_that_is_short() -> None:
    there, elsewhere = at({"CUDA0": 5}), at({"CUDA1": 5}, keep_alive=1)
    short = "CUDA0 has no room for another model beside it"
    assert decided([elsewhere, there], 8, 5) == Evict(1, short)
    assert isinstance(decided([there, at({})], 8, 8), Start), "the other device has room"
    assert isinstance(decided([there], 8, num_gpu=0), Start), "it is in nobody's way in main memory"
    assert isinstance(decided([at({})], 2), Start), "those that hold nothing there are no help"
    assert decided([at({"CUDA0": 5}, 1), at({"CUDA0": 1})], 8) == Evict(1, short), "an idle one before a busy one"
    assert isinstance(decided([at({})], 2, available=1), Evict), "what stays in main memory has to fit there"


def test_a_model_under_which_a_device_failed_does_without() -> None:
    found = decide(SPEC, [], Memory(64 * GIB, 64 * GIB, gpus(8)), LIMITS, unusable="a GPU failed: it is lost")
    assert isinstance(found, Start)
    assert found.spec.placement is not None
    assert found.spec.placement.shares == ()
    assert found.spec.placement.reason == "in main memory: a GPU failed: it is lost"
    assert found.spec.pool == 4 * 4096


def test_after_running_out_of_memory_less_is_tried_in_few_steps() -> None:
    memory = Memory(64 * GIB, 64 * GIB, gpus(8))
    started = decide(msgspec.structs.replace(SPEC, num_ctx=8192), [], memory, LIMITS)
    assert isinstance(started, Start)
    spec, tried = started.spec, []
    while step := after_out_of_memory(spec, 8192, lambda one, layers: replaced(one, layers, memory, LIMITS, Ratios())):
        tried.append(step.what)
        assert step.spec != spec
        spec = step.spec
    assert tried == [
        *("a pool of 8192 tokens", "a context of 4096"),
        *("16 of 33 layers on GPUs", "8 of 33 layers on GPUs", "4 of 33 layers on GPUs", "main memory only"),
    ]


def test_the_engines_figures_correct_the_next_estimate(tmp_path: Path) -> None:
    spec, placement = planned(8, contexts=1)
    share = placement.shares[0]
    said = {"CUDA0": Bytes(share.bytes.weights, share.bytes.cache // 2, share.bytes.compute * 9), "CPU": Bytes(1)}
    figures = Figures(tmp_path / "state" / "figures.json")
    figures.engine = "cuda"
    assert figures.learn(spec, said, "cuda")
    figures.save()
    read = Figures(tmp_path / "state" / "figures.json")
    assert read.of(spec) == Ratios(), "another engine holds other buffers"
    read.engine = "cuda"
    known = read.of(spec)
    assert (round(known.weights, 2), round(known.cache, 2), known.compute) == (1.0, 0.5, 4.0)
    again = place(spec, DENSE, Devices(gpus(8), ratios=known), [spec.pool]).placement
    assert again is not None
    assert abs(again.shares[0].bytes.cache - share.bytes.cache // 2) < MIB
    assert figures.of(msgspec.structs.replace(spec, model="another")) == Ratios()
    (tmp_path / "state" / "figures.json").write_text("{")
    broken = Figures(tmp_path / "state" / "figures.json")
    broken.engine = "cuda"
    assert broken.of(spec) == Ratios(), "a broken file is forgotten"


def test_devices_are_read_of_what_a_llama_server_prints() -> None:
    lines = [
        "ggml_cuda_init: found 2 devices",
        "Available devices:",
        "  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23600 MiB free)",
        "  Vulkan1: llvmpipe (LLVM 15.0.6, 256 bits) (2048 MiB, 4096 MiB free)",
        "  (none)",
        'DEVICES [["MTL0", "Apple M4", 100, 90, true]]',
    ]
    assert listed(lines) == (
        Gpu("CUDA0", "NVIDIA GeForce RTX 4090", 24080 * MIB, 23600 * MIB),
        Gpu("Vulkan1", "llvmpipe (LLVM 15.0.6, 256 bits)", 2048 * MIB, 2048 * MIB),
        Gpu("MTL0", "Apple M4", 100, 90, shared=True),
    )
