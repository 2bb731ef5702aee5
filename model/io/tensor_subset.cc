#include "model/io/tensor_subset.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_join.h"
#include "model/io/gguf.h"
#include "model/io/gguf_model.h"
#include "model/io/loader.h"
#include "model/io/safetensors.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

absl::StatusOr<TensorMap> ReadSome(const std::string& path, const ModelConfig& config,
                                   const std::set<std::string>& names) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return ReadSafetensorsDirectory(path, &names);
  TEMPER_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  return TensorsFromGguf(*file, config, &names);
}

}  // namespace

absl::StatusOr<TensorMap> LoadTensors(const std::string& path, const ModelConfig& config,
                                      const std::set<std::string>& names) {
  TEMPER_ASSIGN_OR_RETURN(TensorMap tensors, ReadSome(path, config, names));
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    if (!names.contains(expected.name)) continue;
    const auto found = tensors.find(expected.name);
    if (found == tensors.end()) {
      return absl::DataLossError(base::Cat(path, ": tensor ", expected.name, " is missing"));
    }
    if (found->second.shape != expected.shape) {
      return absl::DataLossError(base::Cat(path, ": tensor ", expected.name, " has shape [",
                                           absl::StrJoin(found->second.shape, ", "),
                                           "], the configuration asks for [",
                                           absl::StrJoin(expected.shape, ", "), "]"));
    }
  }
  return tensors;
}

}  // namespace temper::model
