#pragma once

#include <string>

#include "scan/scan_result.h"

namespace temper::scan {

// The scan as one HTML page that stands alone: no scripts, no fonts, nothing fetched. What comes
// from files (paths, names) is escaped.
std::string ToHtml(const ScanResult& result);

}  // namespace temper::scan
