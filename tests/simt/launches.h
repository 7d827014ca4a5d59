// Which paths of the kernels a program launched, from the launches' own arguments.
//
// A line is `kernel<types>` and the choices that a launch made, as name=value. What the choices of a kernel's
// arguments are is said in launches_NAME.h, which stands behind csrc/NAME.cu in the converted source.
#pragma once

#include <set>
#include <sstream>
#include <string>

namespace launches {

extern std::set<std::string> seen;  // in launched.cpp

// A kernel's name and types: `warp_kernel<unsigned char, float>`.
template <auto kKernel>
std::string name_of() {
  const std::string text = __PRETTY_FUNCTION__;  // "... [with auto kKernel = warp_kernel<...>; ...]"
  const size_t start = text.find("kKernel = ") + 10;
  return text.substr(start, text.find_first_of(";]", start) - start);
}

struct Choices {
  std::ostringstream words;
  template <class Value>
  Choices& add(const char* name, const Value& value) {
    words << ' ' << name << '=' << value;
    return *this;
  }
};

template <auto kKernel, class Arguments>
void note(const Arguments& arguments) {
  Choices choices;
  choices_of(arguments, choices);  // of launches_NAME.h, in the namespace of the arguments
  seen.insert(name_of<kKernel>() + '\t' + choices.words.str());
}

// Of the enumerations of csrc/warp_tile.h.
constexpr const char* kScans[] = {"planes", "interleaved", "strided", "float"};
constexpr const char* kWrites[] = {"planes", "channels_last", "strided"};

inline const char* alignment(const void* pointer) {
  return !pointer ? "none" : reinterpret_cast<uintptr_t>(pointer) % 16 ? "odd" : "aligned";
}

}  // namespace launches
