#include "model/torch_status.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

std::string FirstLine(const char* what, std::string_view message) {
  return base::Cat(what, ": ", message.substr(0, message.find('\n')));
}

}  // namespace

absl::Status RunTorch(const char* what, absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(FirstLine(what, error.what_without_backtrace()));
  } catch (const c10::NotImplementedError& error) {
    return absl::UnimplementedError(FirstLine(what, error.what_without_backtrace()));
  } catch (const c10::ValueError& error) {
    return absl::InvalidArgumentError(FirstLine(what, error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    // The CPU allocator's failure is a plain Error; only its words tell.
    const std::string message = FirstLine(what, error.what_without_backtrace());
    if (absl::StrContains(message, "not enough memory") ||
        absl::StrContains(message, "can't allocate memory")) {
      return absl::ResourceExhaustedError(message);
    }
    return absl::InvalidArgumentError(message);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(FirstLine(what, "out of memory"));
  } catch (const std::exception& error) {
    return absl::InternalError(FirstLine(what, error.what()));
  }
}

}  // namespace temper::model
