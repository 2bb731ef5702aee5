#pragma once

// A scan as JSON: one file for programs, and the lines of standard output. docs/scan.md lists the
// fields.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scan/scan_result.h"

namespace temper::scan {

// The whole scan: the text of scan.json, an object.
std::string ToJson(const ScanResult& result);

// The same as lines, each an object with "kind": scan, static, sensitivity, label, advice, suspect,
// fault.
std::vector<std::string> ToJsonLines(const ScanResult& result);

// What others read of a scan.json.
struct ScanFile {
  std::string model_hash;
  std::string sequences_hash;
  std::vector<double> multipliers;  // by layer
  ModelProfile profile;             // by layer
};

// Reads what ToJson wrote, from anywhere. Errors: InvalidArgument, naming the path, if there is no
// such file; ResourceExhausted above 64 MiB; DataLoss for text that is not JSON (a truncated file),
// is nested deeper than 16 levels, or lacks a field or has one of another type or range (by name);
// layers must be 0 .. n-1 in order, multipliers finite and >= 0.
absl::StatusOr<ScanFile> ReadScanFile(const std::string& path);

}  // namespace temper::scan
