#include "prompts/gsm8k_files.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::prompts {
namespace {

absl::Status NoSuchFile(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(
      path,
      ": no such file. It belongs to the public data set GSM8K (grade school math, MIT "
      "licence), which has two files, train.jsonl (7,473 problems) and test.jsonl (1,319); "
      "put both into one folder and name that folder in dataset.path"));
}

absl::StatusOr<std::string> ReadDataFile(const std::string& path) {
  auto contents = base::ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(contents.status())) return NoSuchFile(path);
  return contents;
}

absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* field,
                                        const std::string& place) {
  const auto found = object.find(field);
  if (found == object.end()) {
    return absl::DataLossError(absl::StrCat(place, ": the field \"", field, "\" is missing"));
  }
  if (!found->is_string() || found->get_ref<const std::string&>().empty()) {
    return absl::DataLossError(
        absl::StrCat(place, ": the field \"", field, "\" is not a text, or empty"));
  }
  return found->get<std::string>();
}

}  // namespace

absl::Status CheckGsm8kFolder(const std::string& folder) {
  for (const char* file : {"train.jsonl", "test.jsonl"}) {
    const std::string path = absl::StrCat(folder, "/", file);
    if (!base::PathExists(path)) return NoSuchFile(path);
  }
  return absl::OkStatus();
}

absl::StatusOr<Problem> ParseGsm8kLine(std::string_view line, const std::string& place) {
  if (line.size() > kMaxLineBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(place, ": the line has ", line.size(), " bytes, more than ", kMaxLineBytes));
  }
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) {
    return absl::DataLossError(
        absl::StrCat(place, ": not JSON: ", std::string(line.substr(0, 60))));
  }
  if (!object.is_object()) {
    return absl::DataLossError(absl::StrCat(place, ": not a JSON object"));
  }
  Problem problem;
  TEMPER_ASSIGN_OR_RETURN(problem.question, StringField(object, "question", place));
  TEMPER_ASSIGN_OR_RETURN(problem.answer_text, StringField(object, "answer", place));
  auto truth = TruthOf(problem.answer_text);
  if (!truth.ok()) {
    return absl::DataLossError(absl::StrCat(place, ": ", truth.status().message()));
  }
  problem.truth = *std::move(truth);
  return problem;
}

absl::StatusOr<std::unique_ptr<Gsm8kFile>> Gsm8kFile::Create(const Gsm8kFileOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(const std::string contents, ReadDataFile(options.path));
  std::vector<Problem> problems;
  std::string_view rest = contents;
  for (size_t line_number = 1; !rest.empty(); ++line_number) {
    if (options.problems > 0 && problems.size() == options.problems) break;
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (std::ranges::all_of(line, absl::ascii_isspace)) continue;
    const std::string place = absl::StrCat(options.path, ":", line_number);
    if (problems.size() == kMaxProblems) {
      return absl::ResourceExhaustedError(
          absl::StrCat(place, ": more than ", kMaxProblems, " problems"));
    }
    TEMPER_ASSIGN_OR_RETURN(Problem problem, ParseGsm8kLine(line, place));
    problem.id = problems.size();
    problem.prompt = PromptText(problem.question, options.prompt_suffix);
    problems.push_back(std::move(problem));
  }
  if (problems.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(options.path, ": the file has no problems"));
  }
  return std::unique_ptr<Gsm8kFile>(new Gsm8kFile(std::move(problems)));
}

absl::StatusOr<Problem> Gsm8kFile::Get(uint64_t index) const {
  if (index >= problems_.size()) {
    return absl::OutOfRangeError(
        absl::StrCat("problem ", index, " of ", problems_.size(), " was asked for"));
  }
  return problems_[index];
}

}  // namespace temper::prompts
