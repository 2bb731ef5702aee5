#pragma once

// Writing a changed copy of a model as a Hugging Face directory.

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "model/io/model_reader.h"
#include "model/io/tensor_data.h"

namespace temper::cli {

// InvalidArgument, with the path, if something is at `out`.
absl::Status CheckAbsent(const std::string& out);

// Writes `out`: every tensor of `reader` (opened from the path `model`) as change(name, tensor)
// leaves it, in the type it was stored in (float32 where a GGUF file has blocks of integers). Files
// beside the weights are copied from a directory, made from a GGUF file. The directory is written
// under "<out>.partial-<pid>" and renamed at the end; on an error nothing remains. One tensor is in
// memory at a time, in float32.
// Errors: InvalidArgument for an existing `out`; those of `change`, model/io/loader.h and
// services/base/files.h.
absl::Status WriteChangedModel(
    const model::ModelReader& reader, const std::string& model, std::string out,
    absl::FunctionRef<absl::Status(const model::StoredTensor&, model::TensorData&)> change);

}  // namespace temper::cli
