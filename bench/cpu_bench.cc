// The CPU kernels at the demo model's shapes (30 layers of hidden 576, 8 experts of 192, top 8),
// each layer with its own weights so that none stays in a cache from step to step. For each kernel
// and batch: time of all layers, GB/s of weights, share of the read rate, and the ratio with one
// adapter a token.
//
//     braid_cpu_bench [threads] [rank] [largest batch]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "cpu/read_rate.h"
#include "cpu/thread_pool.h"
#include "ops/ops.h"

namespace braid {
namespace {

constexpr int32_t kLayers = 30, kHidden = 576, kKvWidth = 192, kWidth = 192, kExperts = 8;
constexpr int32_t kVocab = 49152;

// Memory of matrices and factors that lives as long as the run.
class Store {
 public:
  WeightMatrix matrix(WeightFormat format, int32_t rows, int32_t cols) {
    WeightMatrix w = {.format = format, .rows = rows, .cols = cols, .global_scale = 0.01f};
    const size_t bytes = weight_bytes(format, rows, cols);
    std::vector<uint8_t>& data = bytes_.emplace_back(bytes);
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random_() & 0x3f);
    w.data = data.data();
    std::vector<float>& scale = scales_.emplace_back(
        static_cast<size_t>((rows + 127) / 128) * static_cast<size_t>((cols + 127) / 128), 0.01f);
    w.block_scale = format == WeightFormat::kFp8Block128 ? scale.data() : nullptr;
    if (format == WeightFormat::kNvfp4) {
      w.group_scale = data.data() + static_cast<size_t>(rows) * static_cast<size_t>(cols) / 2;
    }
    return w;
  }

  LoraPair lora(int32_t rank, int32_t in, int32_t out) {
    if (rank == 0) return {};
    const auto factor = [&](int32_t n) {
      std::vector<Bf16>& f =
          factors_.emplace_back(static_cast<size_t>(rank) * static_cast<size_t>(n));
      for (Bf16& x : f) x = to_bf16(static_cast<float>(random_() % 1000) * 1e-5f);
      return f.data();
    };
    return {.a = factor(in), .b_t = factor(out), .rank = rank, .scaling = 1.0f};
  }

 private:
  std::mt19937 random_{1};
  std::vector<std::vector<uint8_t>> bytes_;
  std::vector<std::vector<float>> scales_;
  std::vector<std::vector<Bf16>> factors_;
};

double median_seconds(const std::function<void()>& body) {
  std::vector<double> seconds;
  for (int run = 0; run < 9; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + 4, seconds.end());
  return seconds[4];
}

struct Layer {
  WeightMatrix q, k, v, o;
  std::vector<kernels::ExpertWeights> experts;
  std::vector<LoraPair> q_lora, k_lora, v_lora, o_lora;  // [slots]
  std::vector<std::vector<ExpertLora>> expert_loras;     // [slots][E]
  std::vector<const ExpertLora*> lora_of_slot;           // [slots]
};

void run(int32_t num_threads, int32_t rank, int32_t largest_batch) {
  cpu::ThreadPool pool(num_threads);
  const ops::Context context = {.pool = &pool};
  const double read_rate = cpu::measure_read_rate(pool);
  fmt::print("{} threads read {:.1f} GB/s; LoRA rank {}\n", num_threads, read_rate * 1e-9, rank);
  fmt::print("{:<14}{:<14}{:>4}{:>10}{:>8}{:>8}{:>10}{:>8}\n", "kernel", "format", "T", "ms",
             "GB/s", "floor", "LoRA ms", "ratio");
  constexpr int32_t kMaxTokens = 64, kSlots = 8;
  std::vector<float> x(kMaxTokens * kHidden), y(size_t{kMaxTokens} * kVocab), k(x), v(x);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
  std::vector<int32_t> slots, ids;
  for (int32_t t = 0; t < kMaxTokens; ++t) {
    slots.push_back(t % kSlots);
    for (int32_t e = 0; e < kExperts; ++e) ids.push_back(e);
  }
  const std::vector<float> weights(size_t{kMaxTokens} * kExperts, 1.0f / kExperts);

  const auto report = [&](const char* kernel, WeightFormat format, int32_t tokens, size_t bytes,
                          const std::function<void(bool with_lora)>& body) {
    body(false);
    const double base = median_seconds([&] { body(false); });
    const double rate = static_cast<double>(bytes) / base;
    fmt::print("{:<14}{:<14}{:>4}{:>10.3f}{:>8.2f}{:>7.1f}%", kernel, name(format), tokens,
               base * 1e3, rate * 1e-9, 100 * rate / read_rate);
    if (rank > 0) {
      body(true);
      const double lora = median_seconds([&] { body(true); });
      fmt::print("{:>10.3f}{:>8.3f}", lora * 1e3, base / lora);
    }
    fmt::print("\n");
  };

  for (const WeightFormat format :
       {WeightFormat::kFp8Block128, WeightFormat::kNvfp4, WeightFormat::kBf16}) {
    Store store;
    std::vector<Layer> layers(kLayers);
    size_t moe_bytes = 0, linear_bytes = 0;
    for (Layer& layer : layers) {
      layer.q = store.matrix(format, kHidden, kHidden);
      layer.k = store.matrix(format, kKvWidth, kHidden);
      layer.v = store.matrix(format, kKvWidth, kHidden);
      layer.o = store.matrix(format, kHidden, kHidden);
      for (int32_t e = 0; e < kExperts; ++e) {
        layer.experts.push_back({store.matrix(format, kWidth, kHidden),
                                 store.matrix(format, kWidth, kHidden),
                                 store.matrix(format, kHidden, kWidth)});
      }
      for (int32_t s = 0; s < kSlots; ++s) {
        layer.q_lora.push_back(store.lora(rank, kHidden, kHidden));
        layer.k_lora.push_back(store.lora(rank, kHidden, kKvWidth));
        layer.v_lora.push_back(store.lora(rank, kHidden, kKvWidth));
        layer.o_lora.push_back(store.lora(rank, kHidden, kHidden));
        std::vector<ExpertLora>& experts = layer.expert_loras.emplace_back();
        for (int32_t e = 0; e < kExperts; ++e) {
          experts.push_back({store.lora(rank, kHidden, kWidth), store.lora(rank, kHidden, kWidth),
                             store.lora(rank, kWidth, kHidden)});
        }
      }
      for (const auto& experts : layer.expert_loras) layer.lora_of_slot.push_back(experts.data());
      moe_bytes += kExperts * (2 * weight_bytes(format, kWidth, kHidden) +
                               weight_bytes(format, kHidden, kWidth));
      linear_bytes +=
          2 * weight_bytes(format, kHidden, kHidden) + 2 * weight_bytes(format, kKvWidth, kHidden);
    }
    for (const int32_t tokens : {1, 2, 4, 8, 16, 64}) {
      if (tokens > largest_batch) continue;
      const auto problem = [&](const WeightMatrix& w, const std::vector<LoraPair>& lora, float* out,
                               bool with_lora) {
        return kernels::LinearParams{.x = x.data(),
                                     .x_stride = kHidden,
                                     .w = w,
                                     .y = out,
                                     .y_stride = w.rows,
                                     .num_tokens = tokens,
                                     .lora_of_slot = with_lora ? lora.data() : nullptr,
                                     .adapter_slot_of_token = slots.data(),
                                     .num_slots = kSlots};
      };
      report("qkv and o", format, tokens, linear_bytes, [&](bool with_lora) {
        for (const Layer& layer : layers) {
          const kernels::LinearParams qkv[] = {problem(layer.q, layer.q_lora, y.data(), with_lora),
                                               problem(layer.k, layer.k_lora, k.data(), with_lora),
                                               problem(layer.v, layer.v_lora, v.data(), with_lora)};
          ops::linear(context, qkv);
          const kernels::LinearParams o = problem(layer.o, layer.o_lora, y.data(), with_lora);
          ops::linear(context, std::span(&o, 1));
        }
      });
      report("moe", format, tokens, moe_bytes, [&](bool with_lora) {
        for (const Layer& layer : layers) {
          ops::moe(context, {.x = x.data(),
                             .experts = layer.experts.data(),
                             .topk_ids = ids.data(),
                             .topk_weights = weights.data(),
                             .y = y.data(),
                             .num_tokens = tokens,
                             .top_k = kExperts,
                             .num_experts = kExperts,
                             .hidden_size = kHidden,
                             .moe_intermediate_size = kWidth,
                             .lora_of_slot = with_lora ? layer.lora_of_slot.data() : nullptr,
                             .adapter_slot_of_token = slots.data(),
                             .num_slots = kSlots});
        }
      });
    }
    if (format != WeightFormat::kBf16) continue;
    const WeightMatrix head = store.matrix(format, kVocab, kHidden);
    for (const int32_t tokens : {1, 8}) {
      report("lm_head", format, tokens, weight_bytes(head), [&](bool) {
        const kernels::LinearParams p = {.x = x.data(),
                                         .x_stride = kHidden,
                                         .w = head,
                                         .y = y.data(),
                                         .y_stride = kVocab,
                                         .num_tokens = tokens};
        ops::linear(context, std::span(&p, 1));
      });
    }
  }
}

}  // namespace
}  // namespace braid

int main(int argc, char** argv) {
  braid::run(argc > 1 ? std::atoi(argv[1]) : 2, argc > 2 ? std::atoi(argv[2]) : 8,
             argc > 3 ? std::atoi(argv[3]) : 64);
}
