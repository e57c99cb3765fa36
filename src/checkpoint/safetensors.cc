#include "checkpoint/safetensors.h"

#include <set>
#include <system_error>
#include <utility>

#include "base/json.h"
#include "checkpoint/safetensors_header.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

bool file_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// tensor name -> shard file name
Result<std::map<std::string, std::string>> read_index(const fs::path& path,
                                                      const FileAccess& access) {
  auto text = read_file(path, JsonLimits().max_bytes, access);
  if (!text) return pass_on(text);
  auto json = parse_json(*text);
  if (!json) return pass_on(json, path.string());
  if (!json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object()) {
    return fail(ErrorCode::kCorrupt, "{}: no weight_map object", path.string());
  }
  std::map<std::string, std::string> shard_of_tensor;
  for (const auto& [tensor, value] : (*json)["weight_map"].items()) {
    if (!value.is_string()) {
      return fail(ErrorCode::kCorrupt, "{}: weight_map entry {} is not a string", path.string(),
                  quote_name(tensor));
    }
    const auto& shard = value.get_ref<const std::string&>();
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\\\0", 3)) != shard.npos) {
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor {} is in shard {}, a file name in the same folder is expected",
                  path.string(), quote_name(tensor), quote_name(shard));
    }
    shard_of_tensor.emplace(tensor, shard);
  }
  return shard_of_tensor;
}

}  // namespace

Result<Safetensors> Safetensors::open_file(const fs::path& file, const FileAccess& access) {
  auto mapped = MappedFile::open(file, access);
  if (!mapped) return pass_on(mapped);
  auto contents = parse_safetensors((*mapped)->bytes());
  if (!contents) return pass_on(contents, file.string());
  Safetensors out;
  out.files_.push_back(std::move(*mapped));
  out.tensors_ = std::move(contents->tensors);
  out.metadata_ = std::move(contents->metadata);
  return out;
}

Result<Safetensors> Safetensors::open_folder(const fs::path& folder, const std::string& stem,
                                             const FileAccess& access) {
  const fs::path index_path = folder / (stem + ".safetensors.index.json");
  const fs::path single_path = folder / (stem + ".safetensors");
  if (!file_exists(index_path)) {
    if (file_exists(single_path)) return open_file(single_path, access);
    return fail(ErrorCode::kNotFound, "{}: neither {} nor {} is there", folder.string(),
                single_path.filename().string(), index_path.filename().string());
  }
  auto index = read_index(index_path, access);
  if (!index) return pass_on(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : *index) shards.insert(shard);
  if (file_exists(single_path) && !shards.contains(single_path.filename().string())) {
    return fail(ErrorCode::kCorrupt, "{}: both {} and {}, which does not name it; remove one",
                folder.string(), single_path.filename().string(), index_path.filename().string());
  }

  Safetensors out;
  for (const std::string& shard : shards) {
    auto part = open_file(folder / shard, access);
    if (!part) return pass_on(part);
    for (auto& [tensor, view] : part->tensors_) {
      const auto entry = index->find(tensor);
      if (entry == index->end()) {
        return fail(ErrorCode::kCorrupt, "{}: tensor {} is not in {}", (folder / shard).string(),
                    quote_name(tensor), index_path.filename().string());
      }
      if (entry->second != shard) {
        return fail(ErrorCode::kCorrupt, "{}: tensor {} is here, {} has it in {}",
                    (folder / shard).string(), quote_name(tensor), index_path.filename().string(),
                    quote_name(entry->second));
      }
      out.tensors_.emplace(tensor, std::move(view));
    }
    if (out.files_.empty()) out.metadata_ = std::move(part->metadata_);
    out.files_.push_back(std::move(part->files_.front()));
  }
  for (const auto& [tensor, shard] : *index) {
    if (!out.tensors_.contains(tensor)) {
      return fail(ErrorCode::kCorrupt, "{}: tensor {} is not in its shard {}", index_path.string(),
                  quote_name(tensor), quote_name(shard));
    }
  }
  return out;
}

const TensorView* Safetensors::find(const std::string& name) const {
  const auto entry = tensors_.find(name);
  return entry == tensors_.end() ? nullptr : &entry->second;
}

}  // namespace braid
