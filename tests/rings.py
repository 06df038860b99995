"""Which test modules are slow. All others are the quick ring, which `scripts/quick` runs for every change.

python -m tests.rings    # the files of the quick ring
"""

from pathlib import Path

TESTS = Path(__file__).parent

REAL_ENGINE = "loads models into the real engine"
REGISTRY = "starts a real registry"
PIP = "runs pip"
FUZZ = "reads random bytes for some seconds"
CHILDREN = "converts and quantises in child processes"
CLIENTS = "installs other projects' clients, and runs them against the real engine"
BROWSER = "clicks and types in a real browser"
REQUESTS = "makes up hundreds of requests"
SHELLS = "types into real shells"
TERMINAL = "opens dozens of terminals"
CRASHES = "ends, kills or starves servers and engines, and waits for what follows"

SLOW = {
    "test_autoscaler_real": "starts Ray and its autoscaler, and loads models into the real engine",
    "test_broken_template": REAL_ENGINE,
    "test_bundle": "starts many Pythons",
    "test_bundle_parts": REAL_ENGINE,
    "test_bundle_real": "makes bundles, and runs them on fresh systems",
    "test_cage": REAL_ENGINE,
    "test_changed_files": CRASHES,
    "test_cluster": CRASHES,
    "test_cluster_real": "starts Ray on machines of its own, and loads models into the real engine",
    "test_cli_create": CHILDREN,
    "test_cli_prompt": REAL_ENGINE,
    "test_cli_recorded": REAL_ENGINE,
    "test_cli_screens": "types a hundred commands",
    "test_cli_server": REAL_ENGINE,
    "test_client_agents": CLIENTS,
    "test_client_anthropic": CLIENTS,
    "test_client_frameworks": CLIENTS,
    "test_client_java": CLIENTS,
    "test_client_openai": CLIENTS,
    "test_clients": REAL_ENGINE,
    "test_completion_shells": SHELLS,
    "test_conversation_real": REAL_ENGINE,
    "test_conversation_terminal": TERMINAL,
    "test_conversations_survive": REAL_ENGINE,
    "test_connecting": "holds up the event loop for seconds",
    "test_container": "builds a container",
    "test_cut_cable": "makes a network, cuts it, and waits until that is noticed",
    "test_convert_adapters": REAL_ENGINE,
    "test_convert_minilm": REAL_ENGINE,
    "test_convert_reference": REAL_ENGINE,
    "test_convert_tokenizers": REAL_ENGINE,
    "test_create_computed": CHILDREN,
    "test_derived": CHILDREN,
    "test_embedding": REAL_ENGINE,
    "test_engine_builds": "compiles, and runs pip",
    "test_engine_process": CRASHES,
    "test_engine_wheels": "runs pip, and loads models into the real engine",
    "test_every_token": REAL_ENGINE,
    "test_faults": CRASHES,
    "test_fuzz": FUZZ,
    "test_gpu_vulkan": REAL_ENGINE,
    "test_gpus": CRASHES,
    "test_hanging_worker": CRASHES,
    "test_hostile_gguf": REAL_ENGINE,
    "test_images_by_url": "starts a server, and has one hang",
    "test_images_server": REAL_ENGINE,
    "test_keys": REQUESTS,
    "test_known_holes": REQUESTS,
    "test_listing": "has a store changed in dozens of ways",
    "test_llamafile": REAL_ENGINE,
    "test_loop_watch": CRASHES,
    "test_metrics": REAL_ENGINE,
    "test_native_api": REAL_ENGINE,
    "test_newcomer": "installs Corral, and fetches a model",
    "test_no_secrets": REQUESTS,
    "test_numeric_settings": REAL_ENGINE,
    "test_openapi_cases": REQUESTS,
    "test_packages": PIP,
    "test_page": BROWSER,
    "test_page_input": BROWSER,
    "test_page_keys": BROWSER,
    "test_page_manners": BROWSER,
    "test_page_real": REAL_ENGINE,
    "test_page_upstreams": BROWSER,
    "test_published_engine": REAL_ENGINE,
    "test_published_plan": "makes a model of every published layout, again and again",
    "test_published_server": REAL_ENGINE,
    "test_quantize_real": REAL_ENGINE,
    "test_quarantine": CRASHES,
    "test_real_parking": REAL_ENGINE,
    "test_real_speculation": REAL_ENGINE,
    "test_tune_real": REAL_ENGINE,
    "test_real_draft": REAL_ENGINE,
    "test_real_engine": REAL_ENGINE,
    "test_real_engine_client": REAL_ENGINE,
    "test_real_engine_loads": REAL_ENGINE,
    "test_registry_auth": REGISTRY,
    "test_registry_crash": REGISTRY,
    "test_registry_encryption": REGISTRY,
    "test_registry_hostile": REGISTRY,
    "test_registry_hub": REGISTRY,
    "test_registry_proxies": REGISTRY,
    "test_registry_pull": REGISTRY,
    "test_registry_push": REGISTRY,
    "test_registry_server": REGISTRY,
    "test_repetition": REAL_ENGINE,
    "test_rerank": REAL_ENGINE,
    "test_run_terminal": TERMINAL,
    "test_runaway_template": CRASHES,
    "test_search": "starts a server and a stand-in of the hub for most tests",
    "test_seeing_the_prompt": REAL_ENGINE,
    "test_server_faults": CRASHES,
    "test_service": "starts a systemd, which starts a server",
    "test_shared_folder": CRASHES,
    "test_soak": REQUESTS,
    "test_sounds_server": REAL_ENGINE,
    "test_sources_archive": REGISTRY,
    "test_sources_mirrors": REGISTRY,
    "test_sources_pypi": PIP,
    "test_spare": REAL_ENGINE,
    "test_strangers": "makes a network, and asks everything from the other end of it",
    "test_strict_templates": REAL_ENGINE,
    "test_structured": REAL_ENGINE,
    "test_template_goldens_native": REAL_ENGINE,
    "test_template_hostile_jinja": REAL_ENGINE,
    "test_thinking": REAL_ENGINE,
    "test_tools": REAL_ENGINE,
    "test_tools_conversation": REAL_ENGINE,
    "test_transcripts": REAL_ENGINE,
    "test_truncation": REAL_ENGINE,
    "test_upstreams": "asks a server that lies in fifty ways, and waits for those that are silent",
    "test_upstreams_dialects": "starts servers, and waits for a new key to be read",
    "test_upstreams_real": REAL_ENGINE,
    "test_upstreams_routing": "starts two servers for most tests",
    "test_upstreams_said": "starts a server for most tests",
}
"""Modules that take long, and why."""


def modules() -> dict[str, Path]:
    """Every test module by its name."""
    return {file.stem: file for file in sorted(TESTS.glob("test_*.py"))}


def quick() -> list[Path]:
    """The files of the quick ring."""
    return [file for name, file in modules().items() if name not in SLOW]


def engine() -> list[Path]:
    """The files of modules that need the real engine; clients, whose installation takes time, last."""
    return [file for why in (REAL_ENGINE, CLIENTS) for name, file in modules().items() if SLOW.get(name) == why]


def rest() -> list[Path]:
    """The files of all other modules, whether quick or slow: they can run beside those."""
    return [file for file in modules().values() if file not in engine()]


if __name__ == "__main__":
    print(*quick(), sep="\n")
