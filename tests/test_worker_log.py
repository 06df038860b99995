"""What is read from a worker's log: the first error, whether memory was short, whether all is loaded."""

from pathlib import Path

import pytest

from corral.engine.llama.log import LOADED, WorkerLog

START = """\
0.00.000.321 I srv          init: initializing ...
0.00.000.332 I cmn  common_param: common_params_print_info: verbosity = 3 (adjust with the `-lv N` CLI arg)
0.00.002.117 I srv    load_model: loading model '/models/sha256-1'
"""
END = """\
0.00.003.300 E llama_model_load_from_file_impl: failed to load model
0.00.003.304 E cmn  common_init_: failed to load model '/models/sha256-1'
0.00.003.305 E srv    load_model: failed to load model, '/models/sha256-1'
0.00.003.308 I srv    operator(): operator(): cleaning up before exit...
0.00.003.737 E srv          init: exiting due to model loading error
"""

FIRST_ERRORS = {
    "an architecture": (
        START + "0.00.003.274 E llama_model_load: error loading model: unknown model architecture: 'wonder9'\n" + END,
        "error loading model: unknown model architecture: 'wonder9'",
    ),
    "an adapter": (
        START
        + "0.00.004.806 E gguf_init_from_reader: bad GGUF version: 0\n"
        + "0.00.004.833 E gguf_init_from_reader: failed to read header\n"
        + "0.00.004.928 E cmn  common_init_: failed to load lora adapter '/models/sha256-2'\n"
        + END,
        "failed to load lora adapter '/models/sha256-2': bad GGUF version: 0",
    ),
    "a projector": (
        START
        + "0.00.002.992 E mtmd_get_memory_usage: error: Failed to load CLIP model from /models/sha256-3\n\n"
        + "0.00.008.946 E srv    load_model: failed to load multimodal model, '/models/sha256-3'\n",
        "failed to load multimodal model, '/models/sha256-3': error: Failed to load CLIP model from /models/sha256-3",
    ),
    "a warning before": (
        "0.00.000.400 W load: error in a template is no error\n0.00.001.000 E srv  load_model: no such file\n",
        "no such file",
    ),
    "an older program": (
        (
            "llama_model_load: error loading model: unknown model architecture: 'wonder9'\n"
            "main: exiting due to model loading error\n"
        ),
        "error loading model: unknown model architecture: 'wonder9'",
    ),
    "a program of its own kind": ("hello\nerror: not today\nerror: nor tomorrow\n", "error: not today"),
    "only the end": ("0.00.003.737 E srv          init: exiting due to model loading error\n", ""),
    "no error": (START, ""),
    "nothing": ("", ""),
    "no text": ("\xff\xfe\x00\n", ""),
}


@pytest.fixture
def log(tmp_path: Path) -> WorkerLog:
    return WorkerLog(tmp_path / "worker.log")


@pytest.mark.parametrize("case", FIRST_ERRORS)
def test_the_first_error_is_found_and_shown_without_clock_and_function(log: WorkerLog, case: str) -> None:
    text, expected = FIRST_ERRORS[case]
    log.path.write_text(text, encoding="latin-1")
    assert log.first_error() == expected


def test_a_log_that_is_not_there_says_nothing(log: WorkerLog) -> None:
    found = (log.first_error(), log.last_error(), log.last_line(), log.template_error(), log.size())
    assert found == ("", "", "", "", 0)
    assert not log.has_loaded()
    assert not log.is_out_of_memory()


@pytest.mark.parametrize(
    "line",
    [
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 23040.00 MB)",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 24159191040",
        "ggml_backend_buft_alloc_buffer_n_default: failed to allocate CPU buffer of size 24159191040",
        "alloc_tensor_range: failed to allocate CUDA0 buffer of size 1048576",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed: out of memory",
        "CUDA error: out of memory",
        "ROCm error: out of memory",
        "ggml_vulkan: Device memory allocation of size 4294967296 failed.",
        "ggml_metal_buffer_init: error: failed to allocate buffer, size = 4096.00 MiB",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
        "llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
@pytest.mark.parametrize("clock", ["", "0.00.206.830 E "])
def test_lines_that_report_a_lack_of_memory(log: WorkerLog, line: str, clock: str) -> None:
    log.path.write_text(START + clock + line + "\n" + END)
    assert log.is_out_of_memory()


@pytest.mark.parametrize(
    "text",
    [
        """\
0.00.001.000 I load_tensors: CPU buffer allocated 12 MiB
0.00.001.001 E cmn  common_init_: failed to load lora adapter 'a'
""",
        "0.00.001.000 E llama_model_load: error loading model: unknown model architecture: 'out of memory'\n",
        "0.00.001.000 W llama_kv_cache: failed to allocate buffer of size 12, trying another\n",
        """\
0.00.001.000 E llama_model_load: error loading model: no such tensor
0.00.001.001 E ggml_aligned_malloc: insufficient memory (attempted to allocate 1.00 MB)
""",
        "failed to load lora adapter: unable to open file allocated elsewhere\n",
        "",
    ],
)
def test_other_failures_are_no_lack_of_memory(log: WorkerLog, text: str) -> None:
    log.path.write_text(text)
    assert not log.is_out_of_memory()


def test_the_mark_of_a_loaded_model_is_found_whatever_is_printed_after_it(log: WorkerLog) -> None:
    log.path.write_bytes(b"loading\n" + LOADED + b" = 4\n" + b"more\n" * 1000)
    assert log.has_loaded()


def test_the_mark_of_a_loaded_model_is_found_in_whatever_parts_it_comes(log: WorkerLog) -> None:
    for end in range(1, len(LOADED)):
        grown = WorkerLog(log.path)
        log.path.write_bytes(b"x" * 5000 + LOADED[:end])
        assert not grown.has_loaded()
        with open(log.path, "ab") as file:
            file.write(LOADED[end:] + b"y" * 5000)
        assert grown.has_loaded()


def test_what_was_searched_is_not_searched_again(log: WorkerLog) -> None:
    log.path.write_bytes(b"x" * 100)
    assert not log.has_loaded()
    log.path.write_bytes(LOADED + b"x" * 100)
    assert not log.has_loaded(), "these places were looked at before"


def test_the_last_error_is_that_of_the_latest_lines(log: WorkerLog) -> None:
    log.path.write_text("error: once upon a time\n" + "fine\n" * 1000 + "error: now\n0.01.000.000 I done\n")
    assert (log.last_error(), log.last_line()) == ("error: now", "done")


TRIED = """\
0.00.012.556 W render_message_to_json: Neither string content nor typed content is supported by the template.
0.00.042.750 E srv          init: init: chat template parsing error: Unable to generate parser for this template.
------------
While executing FilterExpression at line 1, column 13 in source:
...{{ messages | wonder }}...
               ^
"""


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "0.00.024.969 E common_chat_templates_init: error: Unknown statement: include\n",
            "Unknown statement: include",
        ),
        (TRIED + "Error: Unknown (built-in) filter 'wonder'\n", "Unknown (built-in) filter 'wonder'"),
        (TRIED + "Error: Jinja Exception: not with me\n", "not with me"),
        (TRIED, ""),
    ],
)
def test_why_a_template_cannot_be_run_is_read_after_all_is_loaded(log: WorkerLog, printed: str, reason: str) -> None:
    log.path.write_bytes(b"Error: of another kind\n" + LOADED + b" = 4\n" + printed.encode())
    assert log.template_error() == reason
