#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "quant/weight_matrix.h"

namespace braid {

// The files around the weights of a quantised checkpoint, and the folder they are made in.

// Errors  kInvalidArgument  out_dir is a file, or a folder that is not empty
Status check_out_dir(const std::filesystem::path& out_dir);

// A new empty folder beside out_dir. Errors  kIo
Result<std::filesystem::path> make_temporary_folder(const std::filesystem::path& out_dir);

// Renames a finished folder to out_dir, which is not there or empty. Errors  kIo
Status publish_folder(const std::filesystem::path& temporary, const std::filesystem::path& out_dir);

// Copies the folder's files but weights, their index, and the two files that
// write_quantized_config writes. Sub-folders and hidden files (stamps of tools) are left out.
// Errors  kIo
Status copy_other_files(const std::filesystem::path& from, const std::filesystem::path& to);

// Writes config.json with a quantization_config, and for NVFP4 hf_quant_config.json as ModelOpt
// does. `kept` are the modules that are not quantised.
//
// Errors  those of read_json_file  kIo
Status write_quantized_config(const std::filesystem::path& from, const std::filesystem::path& to,
                              WeightFormat format, const std::vector<std::string>& kept);

}  // namespace braid
