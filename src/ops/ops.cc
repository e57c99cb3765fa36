#include "ops/ops.h"

#include "base/check.h"
#include "cpu/attention.h"
#include "cpu/elementwise.h"
#include "cpu/linear.h"
#include "cpu/moe.h"
#include "reference/reference.h"

namespace braid::ops {
namespace {

// The one place where an op chooses its implementation.
template <class Cpu, class Plain, class... Args>
void run(const Context& context, Cpu cpu, Plain plain, const Args&... args) {
  switch (context.backend) {
    case Backend::kCpu:
      BRAID_CHECK(context.pool != nullptr);
      return cpu(*context.pool, args...);
    case Backend::kReference:
      return plain(args...);
  }
  BRAID_UNREACHABLE(static_cast<int>(context.backend));
}

void require(const char* op, const std::string& why_unsupported) {
  if (why_unsupported.empty()) return;
  throw InternalError(fmt::format("{}: {}", op, why_unsupported));
}

}  // namespace

void linear(const Context& context, std::span<const kernels::LinearParams> problems) {
  for (const kernels::LinearParams& p : problems) require("linear", why_unsupported(p));
  if (context.backend == Backend::kCpu) {
    BRAID_CHECK(context.pool != nullptr);
    return cpu::linear(*context.pool, problems, context.rounding);
  }
  for (const kernels::LinearParams& p : problems) reference::linear(p, context.rounding);
}

void router(const Context& context, const kernels::RouterParams& p) {
  require("router", why_unsupported(p));
  if (p.num_tokens > 0) run(context, cpu::router, reference::router, p);
}

void moe(const Context& context, const kernels::MoeParams& p) {
  require("moe", why_unsupported(p));
  if (p.num_tokens > 0) run(context, cpu::moe, reference::moe, p, context.rounding);
}

void rope_kv_write(const Context& context, const kernels::RopeKvWriteParams& p) {
  require("rope_kv_write", why_unsupported(p));
  if (p.num_tokens > 0)
    run(context, cpu::rope_kv_write, reference::rope_kv_write, p, context.rounding);
}

void attention(const Context& context, const kernels::AttentionParams& p) {
  require("attention", why_unsupported(p));
  if (p.num_sequences > 0) run(context, cpu::attention, reference::attention, p, context.rounding);
}

void rms_norm(const Context& context, const kernels::RmsNormParams& p) {
  require("rms_norm", why_unsupported(p));
  if (p.num_tokens > 0) run(context, cpu::rms_norm, reference::rms_norm, p, context.rounding);
}

void embedding(const Context& context, const kernels::EmbeddingParams& p) {
  require("embedding", why_unsupported(p));
  if (p.num_tokens > 0) run(context, cpu::embedding, reference::embedding, p, context.rounding);
}

void silu_mul(const Context& context, const kernels::SiluMulParams& p) {
  if (p.num_elements > 0) run(context, cpu::silu_mul, reference::silu_mul, p, context.rounding);
}

}  // namespace braid::ops
