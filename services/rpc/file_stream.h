#pragma once

// Files that come in a stream of chunks, read to its end and verified part by part.

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "services/base/file_parts.h"
#include "services/base/status_macros.h"
#include "services/rpc/status.h"

namespace temper::rpc {

// Reads `stream`, which runs under `context`, to its end. `keep` is given each chunk that `check`
// has taken; its first error, as one of `check`, cancels the stream. Chunk: v1.FileChunk.
// Returns: that error, the stream's own, or that of FilePartsCheck::Finish.
template <typename Chunk>
absl::Status ReadFileParts(grpc::ClientReaderInterface<Chunk>* stream, grpc::ClientContext* context,
                           base::FilePartsCheck* check,
                           absl::FunctionRef<absl::Status(const Chunk&)> keep) {
  Chunk chunk;
  absl::Status taken;
  while (taken.ok() && stream->Read(&chunk)) {
    taken = check->Add({.name = chunk.name(),
                        .offset_bytes = chunk.offset_bytes(),
                        .size_bytes = chunk.size_bytes(),
                        .xxh3 = chunk.xxh3(),
                        .payload = chunk.payload()});
    if (taken.ok()) taken = keep(chunk);
  }
  if (!taken.ok()) context->TryCancel();
  const absl::Status ended = FromGrpcStatus(stream->Finish());
  TEMPER_RETURN_IF_ERROR(taken);
  TEMPER_RETURN_IF_ERROR(ended);
  return check->Finish();
}

}  // namespace temper::rpc
