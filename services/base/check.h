#pragma once

// Checks for our own bugs only: never for what a peer, a file, a device or a user can cause.

namespace temper::base {

// Prints the failed condition with its place and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const char* why);

}  // namespace temper::base

// Ends the process if `condition` is false; `why` says which of our assumptions broke.
#define TEMPER_CHECK(condition, why)                                                    \
  do {                                                                                  \
    if (!(condition)) ::temper::base::CheckFailed(__FILE__, __LINE__, #condition, why); \
  } while (false)
