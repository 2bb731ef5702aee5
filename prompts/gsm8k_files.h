#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "prompts/prompt_source.h"

namespace temper::prompts {

// Limits on a file from elsewhere. GSM8K's own files have 7,473 lines and 4.2 MB at most.
inline constexpr int64_t kMaxFileBytes = int64_t{256} << 20;
inline constexpr size_t kMaxLineBytes = size_t{64} << 10;
inline constexpr size_t kMaxProblems = 1'000'000;

struct Gsm8kFileOptions {
  std::string path;           // train.jsonl or test.jsonl
  std::string prompt_suffix;  // after the question; empty: none
  uint64_t problems = 0;      // first so many; 0: all
};

// One GSM8K file in memory: a JSON object a line with the strings "question" and "answer", the
// answer ending with "#### <number>". Other fields are ignored, blank lines skipped.
class Gsm8kFile final : public PromptSource {
 public:
  // Returns: InvalidArgument (no such file: says which public data set it belongs to; the file has
  // no problems), DataLoss with "path:line:" (not JSON, not an object, a field missing, no string
  // or empty, no final answer), ResourceExhausted (a limit above).
  static absl::StatusOr<std::unique_ptr<Gsm8kFile>> Create(const Gsm8kFileOptions& options);

  std::optional<uint64_t> size() const override { return problems_.size(); }
  absl::StatusOr<Problem> Get(uint64_t index) const override;

 private:
  explicit Gsm8kFile(std::vector<Problem> problems) : problems_(std::move(problems)) {}
  const std::vector<Problem> problems_;
};

// Whether `folder` holds GSM8K's two files, train.jsonl and test.jsonl. InvalidArgument names the
// one that is missing and says which public data set it belongs to.
absl::Status CheckGsm8kFolder(const std::string& folder);

// Reads one line. `place` ("path:line") begins every message. Errors as Gsm8kFile::Create.
absl::StatusOr<Problem> ParseGsm8kLine(std::string_view line, const std::string& place);

}  // namespace temper::prompts
