// The metrics as Prometheus reads them: under our own names, and by option under those of vLLM and
// SGLang, whose dashboards and gateways are in use.

#include <fmt/format.h>

#include <chrono>

#include "server/metrics.h"

namespace braid::server {
namespace {

std::string label_value(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

// `key="value"`
std::string label(std::string_view key, std::string_view value) {
  return fmt::format("{}=\"{}\"", key, label_value(value));
}

}  // namespace

class MetricsText {
 public:
  MetricsText(const Metrics& metrics, int32_t num_connections)
      : m_(metrics),
        stats_(metrics.backend_.stats()),
        adapters_(metrics.backend_.adapters()),
        num_connections_(num_connections) {}

  std::string text() && {
    own();
    if (m_.vllm_) vllm();
    if (m_.sglang_) sglang();
    return std::move(out_);
  }

 private:
  void head(std::string_view name, std::string_view type, std::string_view help) {
    out_ += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
  }
  void sample(std::string_view name, std::string_view labels, double value) {
    out_ += labels.empty() ? fmt::format("{} {}\n", name, value)
                           : fmt::format("{}{{{}}} {}\n", name, labels, value);
  }
  void gauge(std::string_view name, std::string_view help, double value,
             std::string_view labels = {}) {
    head(name, "gauge", help);
    sample(name, labels, value);
  }
  void counter(std::string_view name, std::string_view help, double value,
               std::string_view labels = {}) {
    head(name, "counter", help);
    sample(name, labels, value);
  }
  void histogram_samples(std::string_view name, std::string_view labels, const Histogram& h) {
    int64_t sum = 0;
    const std::string comma = labels.empty() ? "" : ",";
    for (size_t i = 0; i < h.bounds().size(); ++i) {
      sum += h.counts()[i];
      out_ +=
          fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, h.bounds()[i], sum);
    }
    out_ += fmt::format("{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, labels, comma, h.total());
    sample(fmt::format("{}_sum", name), labels, h.sum());
    sample(fmt::format("{}_count", name), labels, static_cast<double>(h.total()));
  }
  void histogram(std::string_view name, std::string_view help, const Histogram& h,
                 std::string_view labels) {
    head(name, "histogram", help);
    histogram_samples(name, labels, h);
  }

  // One family with a sample for each adapter that was asked for.
  template <class Get>
  void counter_of_adapters(std::string_view name, std::string_view help, const Get& get) {
    head(name, "counter", help);
    for (const auto& [adapter, counts] : m_.of_adapter_)
      sample(name, label("adapter", adapter), static_cast<double>(get(counts)));
  }
  void histogram_of_adapters(std::string_view name, std::string_view help,
                             Histogram ServedCounts::*member) {
    head(name, "histogram", help);
    for (const auto& [adapter, counts] : m_.of_adapter_)
      histogram_samples(name, label("adapter", adapter), counts.*member);
  }

  double kv_use() const {
    return stats_.kv_blocks_total == 0
               ? 0.0
               : static_cast<double>(stats_.kv_blocks_used) / stats_.kv_blocks_total;
  }
  double cache_hit_rate() const {
    const auto cached = static_cast<double>(stats_.cached_tokens);
    const double all = cached + static_cast<double>(stats_.prompt_tokens);
    return all > 0 ? cached / all : 0.0;
  }

  void own() {
    gauge("braid_requests_running", "Requests in the engine's batch.", stats_.running);
    gauge("braid_requests_waiting", "Requests accepted and not running.", stats_.queued);
    gauge("braid_connections", "Open connections of clients.", num_connections_);
    counter("braid_steps_total", "Steps of the engine.", static_cast<double>(stats_.steps));
    counter("braid_device_seconds_total", "Seconds that a GPU worked on steps.",
            stats_.device_seconds);
    counter("braid_preemptions_total", "Requests that had to give back their KV blocks.",
            static_cast<double>(stats_.preemptions));
    head("braid_kv_blocks", "gauge", "KV blocks: held by requests, kept for prefix hits, all.");
    sample("braid_kv_blocks", label("state", "used"), stats_.kv_blocks_used);
    sample("braid_kv_blocks", label("state", "cached"), stats_.kv_blocks_cached);
    sample("braid_kv_blocks", label("state", "total"), stats_.kv_blocks_total);
    own_adapters();

    counter_of_adapters("braid_prompt_tokens_total", "Tokens of prompts, cached ones included.",
                        [](const ServedCounts& c) { return c.prompt_tokens; });
    counter_of_adapters("braid_cached_tokens_total", "Of them, those from the prefix cache.",
                        [](const ServedCounts& c) { return c.cached_tokens; });
    counter_of_adapters("braid_generated_tokens_total", "Tokens generated.",
                        [](const ServedCounts& c) { return c.generated_tokens; });
    head("braid_requests_total", "counter", "Requests that have ended; each sample is one.");
    for (const auto& [adapter, counts] : m_.of_adapter_) {
      for (size_t i = 0; i < counts.finished_by_reason.size(); ++i) {
        sample(
            "braid_requests_total",
            label("adapter", adapter) + "," + label("reason", name(static_cast<FinishReason>(i))),
            static_cast<double>(counts.finished_by_reason[i]));
      }
    }
    histogram_of_adapters("braid_queue_seconds", "From acceptance to the first step.",
                          &ServedCounts::queue_seconds);
    histogram_of_adapters("braid_first_token_seconds", "From acceptance to the first token.",
                          &ServedCounts::first_token_seconds);
    histogram_of_adapters("braid_inter_token_seconds", "Between tokens.",
                          &ServedCounts::inter_token_seconds);
    histogram_of_adapters("braid_request_seconds", "From acceptance to the last token.",
                          &ServedCounts::total_seconds);
    head("braid_http_requests_total", "counter",
         "Answers by route and status; status 0: the client left before one.");
    for (const auto& [key, value] : m_.http_requests_) {
      sample("braid_http_requests_total",
             label("route", key.first) + "," + label("status", std::to_string(key.second)),
             static_cast<double>(value));
    }
  }

  void own_adapters() {
    int32_t on_disk = 0, in_host = 0, in_slot = 0;
    for (const AdapterInfo& info : adapters_) {
      on_disk += info.tier == AdapterTier::kDisk;
      in_host += info.tier == AdapterTier::kHost;
      in_slot += info.tier == AdapterTier::kSlot;
    }
    head("braid_adapters", "gauge", "Registered adapters by where their factors are.");
    sample("braid_adapters", label("tier", "disk"), on_disk);
    sample("braid_adapters", label("tier", "host"), in_host);
    sample("braid_adapters", label("tier", "slot"), in_slot);
    gauge("braid_adapter_slots_used", "Adapter slots that hold an adapter.",
          stats_.adapter_slots_used);
    gauge("braid_adapter_slots", "Adapter slots.", stats_.adapter_slots_total);
    counter("braid_adapter_swaps_total", "Adapters that came into a slot.",
            static_cast<double>(stats_.adapter_swaps));
    counter("braid_adapter_slot_evictions_total", "Adapters that left a slot to make room.",
            static_cast<double>(stats_.adapter_slot_evictions));
    counter("braid_adapter_copied_bytes_total", "Bytes of factors copied to the GPU.",
            static_cast<double>(stats_.adapter_copied_bytes));
    gauge("braid_adapter_host_bytes", "Factors in host memory.",
          static_cast<double>(stats_.adapter_host_bytes));
    const auto each = [&](std::string_view family, std::string_view type, std::string_view help,
                          const auto& get) {
      head(family, type, help);
      size_t num_written = 0;
      for (const AdapterInfo& info : adapters_) {
        if (num_written++ == m_.max_adapters_) break;
        sample(family, label("adapter", info.name), static_cast<double>(get(info)));
      }
    };
    each("braid_adapter_loads_total", "counter", "Times the adapter was read.",
         [](const AdapterInfo& info) { return info.loads; });
    each("braid_adapter_evictions_total", "counter", "Times it left host memory.",
         [](const AdapterInfo& info) { return info.evictions; });
    each("braid_adapter_load_seconds", "gauge", "Seconds its last load took.",
         [](const AdapterInfo& info) { return info.load_seconds; });
    each("braid_adapter_running", "gauge", "Its requests in the batch.",
         [](const AdapterInfo& info) { return info.counts.running; });
    each("braid_adapter_waiting", "gauge", "Its requests that wait.",
         [](const AdapterInfo& info) { return info.counts.waiting; });
  }

  // Comma-separated names of adapters whose count is not zero.
  template <class Get>
  std::string names_where(const Get& get) const {
    std::string names;
    for (const AdapterInfo& info : adapters_) {
      if (get(info) <= 0) continue;
      if (!names.empty()) names += ',';
      names += info.name;
    }
    return names;
  }

  void vllm() {
    const std::string model = label("model_name", m_.model_names_.front()) + ",engine=\"0\"";
    const ServedCounts& all = m_.all_;
    gauge("vllm:num_requests_running", "Requests in the batch.", stats_.running, model);
    gauge("vllm:num_requests_waiting", "Requests that wait.", stats_.queued, model);
    gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", kv_use(), model);
    gauge("vllm:gpu_cache_usage_perc", "The same under its older name.", kv_use(), model);
    counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.",
            static_cast<double>(stats_.prompt_tokens + stats_.cached_tokens), model);
    counter("vllm:prefix_cache_hits_total", "Tokens found in it.",
            static_cast<double>(stats_.cached_tokens), model);
    counter("vllm:num_preemptions_total", "Preemptions.", static_cast<double>(stats_.preemptions),
            model);
    counter("vllm:prompt_tokens_total", "Tokens of prompts.",
            static_cast<double>(all.prompt_tokens), model);
    counter("vllm:generation_tokens_total", "Tokens generated.",
            static_cast<double>(all.generated_tokens), model);
    head("vllm:request_success_total", "counter", "Requests that have ended.");
    const auto ended = [&](std::string_view reason, FinishReason which) {
      sample("vllm:request_success_total", model + "," + label("finished_reason", reason),
             static_cast<double>(all.finished_by_reason[static_cast<size_t>(which)]));
    };
    ended("stop", FinishReason::kStop);
    ended("length", FinishReason::kLength);
    ended("abort", FinishReason::kCancelled);
    histogram("vllm:time_to_first_token_seconds", "To the first token.", all.first_token_seconds,
              model);
    histogram("vllm:inter_token_latency_seconds", "Between tokens.", all.inter_token_seconds,
              model);
    histogram("vllm:request_time_per_output_token_seconds", "A request's mean between tokens.",
              all.token_seconds, model);
    histogram("vllm:e2e_request_latency_seconds", "Whole requests.", all.total_seconds, model);
    histogram("vllm:request_queue_time_seconds", "In the queue.", all.queue_seconds, model);
    histogram("vllm:request_prefill_time_seconds", "First step to first token.",
              all.prefill_seconds, model);
    histogram("vllm:request_decode_time_seconds", "First token to last.", all.decode_seconds,
              model);
    histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", all.prompt_sizes, model);
    histogram("vllm:request_generation_tokens", "Tokens of a reply.", all.reply_sizes, model);
    histogram("vllm:request_params_n", "n of requests.", m_.params_n_, model);
    histogram("vllm:request_params_max_tokens", "max_tokens of requests.", m_.params_max_tokens_,
              model);
    gauge("vllm:cache_config_info", "Facts of the KV cache.", 1,
          fmt::format("{},num_gpu_blocks=\"{}\"", model, stats_.kv_blocks_total));
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    gauge("vllm:lora_requests_info", "Adapters in use; the value is the time of this report.",
          std::chrono::duration<double>(now).count(),
          label("max_lora", std::to_string(stats_.adapter_slots_total)) + "," +
              label("running_lora_adapters",
                    names_where([](const AdapterInfo& i) { return i.counts.running; })) +
              "," + label("waiting_lora_adapters", names_where([](const AdapterInfo& i) {
                            return i.counts.waiting;
                          })));
  }

  void sglang() {
    const std::string model = label("model_name", m_.model_names_.front());
    const ServedCounts& all = m_.all_;
    gauge("sglang:num_running_reqs", "Requests in the batch.", stats_.running, model);
    gauge("sglang:num_queue_reqs", "Requests that wait.", stats_.queued, model);
    gauge("sglang:token_usage", "Share of the KV cache in use, 0 to 1.", kv_use(), model);
    gauge("sglang:cache_hit_rate", "Share of prompt tokens found in the prefix cache.",
          cache_hit_rate(), model);
    counter("sglang:cached_tokens_total", "Tokens found in the prefix cache.",
            static_cast<double>(stats_.cached_tokens), model);
    counter("sglang:prompt_tokens_total", "Tokens of prompts.",
            static_cast<double>(all.prompt_tokens), model);
    counter("sglang:generation_tokens_total", "Tokens generated.",
            static_cast<double>(all.generated_tokens), model);
    counter("sglang:num_requests_total", "Requests that have ended.",
            static_cast<double>(all.requests), model);
    counter(
        "sglang:num_aborted_requests_total", "Requests that were aborted.",
        static_cast<double>(all.finished_by_reason[static_cast<size_t>(FinishReason::kCancelled)]),
        model);
    histogram("sglang:time_to_first_token_seconds", "To the first token.", all.first_token_seconds,
              model);
    histogram("sglang:inter_token_latency_seconds", "Between tokens.", all.inter_token_seconds,
              model);
    histogram("sglang:e2e_request_latency_seconds", "Whole requests.", all.total_seconds, model);
    histogram("sglang:queue_time_seconds", "In the queue.", all.queue_seconds, model);
    histogram("sglang:prompt_tokens_histogram", "Tokens of a prompt.", all.prompt_sizes, model);
    histogram("sglang:generation_tokens_histogram", "Tokens of a reply.", all.reply_sizes, model);
    gauge("sglang:lora_pool_slots_used", "Adapter slots that hold an adapter.",
          stats_.adapter_slots_used, model);
    gauge("sglang:lora_pool_slots_total", "Adapter slots.", stats_.adapter_slots_total, model);
    gauge("sglang:lora_pool_utilization", "Share of them in use.",
          stats_.adapter_slots_total == 0
              ? 0.0
              : static_cast<double>(stats_.adapter_slots_used) / stats_.adapter_slots_total,
          model);
  }

  const Metrics& m_;
  EngineStats stats_;
  std::vector<AdapterInfo> adapters_;
  int32_t num_connections_;
  std::string out_;
};

std::string Metrics::text(int32_t num_connections) const {
  return MetricsText(*this, num_connections).text();
}

}  // namespace braid::server
