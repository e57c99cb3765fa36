// braid serve: the HTTP server.

#include <fmt/format.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/resource.h>

#include <memory>

#include "apps/commands.h"
#include "apps/serve_options.h"
#include "apps/terminal.h"
#include "server/engine_backend.h"
#include "server/server.h"

namespace braid::apps {
namespace {

// Lines go out on a thread of their own, and the oldest are dropped when nobody reads them: whoever
// reads the log never holds up an answer.
class RequestLog {
 public:
  explicit RequestLog(server::LogFormat format)
      : format_(format),
        pool_(std::make_shared<spdlog::details::thread_pool>(8192, 1)),
        logger_(std::make_shared<spdlog::async_logger>(
            "requests", std::make_shared<spdlog::sinks::stdout_sink_mt>(), pool_,
            spdlog::async_overflow_policy::overrun_oldest)) {
    logger_->set_pattern("%v");
    logger_->flush_on(spdlog::level::info);
  }

  void write(const server::ExchangeRecord& record) {
    if (format_ != server::LogFormat::kNone) logger_->info("{}", log_line(record, format_));
  }

 private:
  server::LogFormat format_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<spdlog::async_logger> logger_;
};

constexpr const char* kExamples = R"(
Examples:
  braid serve models/qwen3-moe --lora sql=adapters/sql --lora pirate=adapters/pirate
  curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \
       -d '{"model": "sql", "messages": [{"role": "user", "content": "Who ordered most?"}]}'

The adapter is chosen by "model": the base model's name, an adapter's, or "base:adapter"; or by
"lora_path". Adapters come and go while the server runs:
  curl localhost:8000/v1/load_lora_adapter -d '{"lora_name": "v2", "lora_path": "v2"}'   # --adapter-root
  curl -X PUT localhost:8000/v1/adapters/v2 -F adapter_config=@adapter_config.json \
       -F adapter_model=@adapter_model.safetensors                                        # no shared disk
  curl localhost:8000/v1/adapters

The routes are those of the OpenAI API, with vLLM's and SGLang's additions: docs/server.md.
SIGTERM ends the server once the requests under way are answered.)";

// The usual soft limit of 1024 descriptors is less than --max-connections.
void raise_descriptor_limit() {
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

void run(ServeOptions& options) {
  raise_descriptor_limit();
  if (auto status = complete(options); !status) leave(status.error().message, kUsage);
  server::StepRelay relay;
  options.engine.config.on_step = relay.on_step();
  auto engine = open_engine(options.engine);
  if (!engine) leave(engine.error().message);
  server::EngineBackend backend(**engine, relay);
  RequestLog log(log_format(options));
  server::Server server(options.server, backend,
                        [&log](const server::ExchangeRecord& record) { log.write(record); });
  server.handle_signals();
  if (auto status = server.listen(); !status) leave(status.error().message);
  write_err(fmt::format("braid: serving {} at {} on {}\n", options.server.model_names.front(),
                        server.url(), (*engine)->device()));
  server.run();
  write_err("braid: stopped\n");
}

}  // namespace

void add_serve(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("serve", "Serve a model and its adapters over HTTP (OpenAI API)");
  auto options = std::make_shared<ServeOptions>();
  add_serve_options(*command, *options);
  command->footer(kExamples);
  command->callback([options] { run(*options); });
}

}  // namespace braid::apps
