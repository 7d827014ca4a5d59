// What a library of the kernels tells of its launches.
#include "launches.h"

namespace launches {
std::set<std::string> seen;
}

// All lines so far, each ended by a newline; the text is good until the next call.
extern "C" const char* launched() {
  static std::string text;
  text.clear();
  for (const std::string& line : launches::seen) text += line + '\n';
  return text.c_str();
}
