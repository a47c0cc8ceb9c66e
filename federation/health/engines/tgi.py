"""TGI's metrics page. It tells neither of its KV cache nor of first tokens: those stay unknown."""

from __future__ import annotations

from federation.health.engines.page import EngineMetrics, read_page

PREFIXES = (
    "tgi_queue_size",
    "tgi_batch_current_size",
    "tgi_request_mean_time_per_token_duration",
    "tgi_request_duration",
    "tgi_request_inference_duration",
    "tgi_request_input_length_sum",
    "tgi_request_generated_tokens_sum",
)


def parse(text: str) -> EngineMetrics:
    page = read_page(text, PREFIXES)
    return EngineMetrics(
        queue_depth=page.total("tgi_queue_size"),
        running_requests=page.total("tgi_batch_current_size"),
        time_per_output_token=page.histogram("tgi_request_mean_time_per_token_duration"),
        # The second one leaves the wait in the queue out; better than nothing for old versions.
        end_to_end=page.histogram("tgi_request_duration", "tgi_request_inference_duration"),
        prompt_tokens_total=page.total("tgi_request_input_length_sum"),
        generation_tokens_total=page.total("tgi_request_generated_tokens_sum"),
    )
