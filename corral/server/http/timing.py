"""The header `Server-Timing` (W3C, Server Timing): where the time went until an answer began."""

from collections.abc import Sequence

from corral.inference.recent import Report


def server_timing(reports: Sequence[Report]) -> str:
    """The header's value for the first of the answers that a request got; empty where no model was asked.

    Durations are in milliseconds. What a whole answer took is there, too, where it is not streamed.
    """
    if not reports:
        return ""
    report = reports[-1]
    cached = f"{report.cached_tokens} of {report.prompt_tokens} tokens cached"
    phases = (
        ("queue", report.queue_duration, ""),
        ("load", report.load_duration, ""),
        ("plan", report.plan_duration, ""),
        ("room", report.room_duration, ""),
        ("prompt", report.prompt_duration, cached if report.prompt_tokens else ""),
        ("first", report.first_token_duration, "first token, from the beginning"),
        ("generation", report.generation_duration, f"{report.generated_tokens} tokens"),
    )
    return ", ".join(
        f"{name};dur={duration / 1e6:.3f}" + (f';desc="{sentence}"' if sentence else "")
        for name, duration, sentence in phases
        if duration
    )
