#include "checkpoint/quant_config.h"

#include <string>

#include "base/json.h"
#include "checkpoint/safetensors_header.h"

namespace braid {
namespace {

// The string under a key, or "" where there is none.
Result<std::string> text_at(const Json& object, const char* key) {
  if (!object.contains(key) || object[key].is_null()) return std::string();
  if (!object[key].is_string()) {
    return fail(ErrorCode::kCorrupt, "quantization setting {} is not a string", key);
  }
  return object[key].get<std::string>();
}

Result<QuantMethod> parse_fp8(const Json& settings) {
  auto fmt_name = text_at(settings, "fmt");
  if (!fmt_name) return pass_on(fmt_name);
  if (!fmt_name->empty() && *fmt_name != "e4m3") {
    return fail(ErrorCode::kUnsupported, "fp8 fmt {} is not known to this build, it knows \"e4m3\"",
                quote_name(*fmt_name));
  }
  auto scheme = text_at(settings, "activation_scheme");
  if (!scheme) return pass_on(scheme);
  if (!scheme->empty() && *scheme != "dynamic") {
    return fail(ErrorCode::kUnsupported,
                "fp8 activation_scheme {} is not known to this build, it knows \"dynamic\"",
                quote_name(*scheme));
  }
  const Json block =
      settings.contains("weight_block_size") ? settings["weight_block_size"] : Json();
  if (block != Json::array({128, 128})) {
    return fail(ErrorCode::kUnsupported,
                "fp8 weight_block_size {} is not known to this build, it knows [128,128]",
                block.dump().substr(0, 60));
  }
  return QuantMethod::kFp8Block128;
}

Result<QuantMethod> parse_modelopt(const Json& settings) {
  auto algorithm = text_at(settings, "quant_algo");
  if (!algorithm) return pass_on(algorithm);
  if (*algorithm != "NVFP4" && *algorithm != "W4A16_NVFP4" && *algorithm != "MIXED_PRECISION") {
    return fail(
        ErrorCode::kUnsupported,
        "ModelOpt quant_algo {} is not known to this build, it knows NVFP4, W4A16_NVFP4 and "
        "MIXED_PRECISION",
        quote_name(*algorithm));
  }
  if (settings.contains("group_size") && !settings["group_size"].is_null() &&
      settings["group_size"] != 16) {
    return fail(ErrorCode::kUnsupported,
                "ModelOpt group_size {} is not known to this build, it knows 16",
                settings["group_size"].dump().substr(0, 60));
  }
  return QuantMethod::kModelOptNvfp4;
}

Result<QuantMethod> parse_quantization_config(const Json& settings) {
  if (settings.is_null()) return QuantMethod::kNone;
  if (!settings.is_object()) {
    return fail(ErrorCode::kCorrupt, "quantization_config is not an object");
  }
  auto method = text_at(settings, "quant_method");
  if (!method) return pass_on(method);
  if (*method == "fp8") return parse_fp8(settings);
  if (*method == "modelopt" || *method == "modelopt_fp4") return parse_modelopt(settings);
  if (*method == "compressed-tensors") {
    auto format = text_at(settings, "format");
    if (!format) return pass_on(format);
    if (*format == "nvfp4-pack-quantized") return QuantMethod::kCompressedTensorsNvfp4;
    return fail(ErrorCode::kUnsupported,
                "compressed-tensors format {} is not known to this build, it knows "
                "\"nvfp4-pack-quantized\"",
                quote_name(*format));
  }
  return fail(ErrorCode::kUnsupported,
              "quant_method {} is not known to this build, it knows fp8, modelopt and "
              "compressed-tensors",
              quote_name(*method));
}

}  // namespace

Result<QuantMethod> parse_quant_method(const Json& quantization_config,
                                       const Json& hf_quant_config) {
  auto method = parse_quantization_config(quantization_config);
  if (!method || hf_quant_config.is_null()) return method;
  if (!hf_quant_config.is_object() || !hf_quant_config.contains("quantization") ||
      !hf_quant_config["quantization"].is_object()) {
    return fail(ErrorCode::kCorrupt, "hf_quant_config.json has no quantization object");
  }
  auto modelopt = parse_modelopt(hf_quant_config["quantization"]);
  if (!modelopt) return pass_on(modelopt, "hf_quant_config.json");
  if (*method != QuantMethod::kNone && *method != *modelopt) {
    return fail(ErrorCode::kCorrupt,
                "quantization_config and hf_quant_config.json name different methods; remove one");
  }
  return modelopt;
}

}  // namespace braid
