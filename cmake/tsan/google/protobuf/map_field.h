// Stands before Protobuf's own header in builds for the thread sanitizer, and includes it.
//
// Protobuf gives MapFieldBase one member more when it is compiled for that sanitizer. Debian's
// library was not, so every message with a map would have two layouts in one program.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>  // the standard library's headers shall still see what they are compiled for

#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include_next <google/protobuf/map_field.h>
#pragma pop_macro("__SANITIZE_THREAD__")
