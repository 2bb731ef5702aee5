#include "cli/model_output.h"

#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/io/loader.h"
#include "model/io/safetensors_writer.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

using model::ModelReader;
using model::StoredTensor;
using model::TensorData;

absl::Status WriteWeights(
    const ModelReader& reader, const std::string& path,
    absl::FunctionRef<absl::Status(const StoredTensor&, TensorData&)> change) {
  std::vector<model::TensorSpec> specs;
  for (const StoredTensor& stored : reader.tensors()) {
    specs.push_back({.name = stored.name, .shape = stored.shape, .storage = stored.storage});
  }
  TEMPER_ASSIGN_OR_RETURN(const auto writer,
                          model::SafetensorsWriter::Create(path, std::move(specs)));
  for (const StoredTensor& stored : reader.tensors()) {
    TEMPER_ASSIGN_OR_RETURN(TensorData tensor, reader.Read(stored.name));
    TEMPER_RETURN_IF_ERROR(change(stored, tensor));
    TEMPER_RETURN_IF_ERROR(writer->Append(tensor.values));
  }
  return writer->Commit();
}

// Configuration, tokenizer and chat template.
absl::Status WriteOtherFiles(const ModelReader& reader, const std::string& model,
                             const std::string& dir) {
  if (reader.is_directory()) return model::CopyModelFiles(model, dir);
  TEMPER_ASSIGN_OR_RETURN(const auto tokenizer, model::LoadTokenizer(model));
  TEMPER_ASSIGN_OR_RETURN(const model::ChatTemplate chat, model::LoadChatTemplate(model));
  return model::SaveModelFiles(dir, {.config = reader.config(),
                                     .tensors = {},
                                     .tokenizer_json = tokenizer->ToTokenizerJson(),
                                     .chat_template = chat.source,
                                     .storage = reader.tensors().front().storage});
}

}  // namespace

absl::Status CheckAbsent(const std::string& out) {
  if (!base::PathExists(out)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(out, " exists; nothing is overwritten"));
}

absl::Status WriteChangedModel(
    const ModelReader& reader, const std::string& model, std::string out,
    absl::FunctionRef<absl::Status(const StoredTensor&, TensorData&)> change) {
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  TEMPER_RETURN_IF_ERROR(CheckAbsent(out));
  const std::string partial = absl::StrCat(out, ".partial-", ::getpid());
  const auto write = [&]() -> absl::Status {
    TEMPER_RETURN_IF_ERROR(base::MakeDirectories(partial));
    TEMPER_RETURN_IF_ERROR(WriteWeights(reader, partial + "/model.safetensors", change));
    TEMPER_RETURN_IF_ERROR(WriteOtherFiles(reader, model, partial));
    TEMPER_RETURN_IF_ERROR(CheckAbsent(out));
    return base::RenameDurably(partial, out);
  };
  const absl::Status written = write();
  if (!written.ok()) (void)base::RemoveAll(partial);  // the first error is the one to tell
  return written;
}

}  // namespace temper::cli
