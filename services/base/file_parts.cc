#include "services/base/file_parts.h"

#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::base {

absl::Status FilePartsCheck::Begin(const FilePart& part) {
  const auto limit = max_bytes_.find(part.name);
  if (limit == max_bytes_.end()) {
    return absl::InvalidArgumentError(Cat("a file named \"", part.name, "\" may not come"));
  }
  if (whole_.contains(part.name)) return absl::DataLossError(Cat(part.name, " comes twice"));
  if (part.size_bytes > limit->second) {
    return absl::ResourceExhaustedError(
        Cat(part.name, " has ", part.size_bytes, " bytes, at most ", limit->second, " may come"));
  }
  open_ = std::string(part.name);
  size_bytes_ = part.size_bytes;
  xxh3_ = part.xxh3;
  received_bytes_ = 0;
  hash_ = StreamHash();
  return absl::OkStatus();
}

absl::Status FilePartsCheck::Add(const FilePart& part) {
  if (open_.empty()) TEMPER_RETURN_IF_ERROR(Begin(part));
  if (part.name != open_ || part.size_bytes != size_bytes_ || part.xxh3 != xxh3_) {
    return absl::DataLossError(Cat("a part of ", part.name, " (", part.size_bytes, " bytes, hash ",
                                   part.xxh3, ") came where ", open_, " (", size_bytes_,
                                   " bytes, hash ", xxh3_, ") is not whole"));
  }
  if (part.offset_bytes != received_bytes_) {
    return absl::DataLossError(Cat("a part of ", open_, " begins at byte ", part.offset_bytes,
                                   ", those before it end at ", received_bytes_));
  }
  if (part.payload.size() > size_bytes_ - received_bytes_) {
    return absl::DataLossError(Cat("a part of ", open_, " ends at byte ",
                                   received_bytes_ + part.payload.size(), ", the file at ",
                                   size_bytes_));
  }
  if (part.payload.empty() && size_bytes_ > 0) {
    return absl::DataLossError(Cat("a part of ", open_, " at byte ", received_bytes_, " is empty"));
  }
  hash_.Update(part.payload);
  received_bytes_ += part.payload.size();
  if (received_bytes_ < size_bytes_) return absl::OkStatus();
  if (hash_.Digest64() != xxh3_) {
    return absl::DataLossError(
        Cat(open_, " has hash ", hash_.Digest64(), ", its parts say ", xxh3_));
  }
  whole_.insert(open_);
  open_.clear();
  return absl::OkStatus();
}

absl::Status FilePartsCheck::Finish() const {
  if (open_.empty()) return absl::OkStatus();
  return absl::DataLossError(
      Cat(open_, " ended after ", received_bytes_, " of ", size_bytes_, " bytes"));
}

}  // namespace temper::base
