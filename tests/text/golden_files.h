#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace braid::text::test {

// The files that tools/goldens/make_tokenizers.py writes; its README describes them. Both throw
// std::runtime_error on a file that is not of the format.
std::vector<std::string> read_texts(const std::filesystem::path& path);
std::vector<std::vector<int32_t>> read_ids(const std::filesystem::path& path);

// Where `make test` puts them.
std::filesystem::path tokenizer_goldens();

}  // namespace braid::text::test
