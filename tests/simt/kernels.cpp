// Runs the CUDA kernels of csrc/ on the host against the CPU backend.
//
//   kernels --list
//   kernels [NAME ...] [--order forward|reverse|shuffled] [--seed N]
//           [--workers N] [--poison BYTE] [--cases DRAWN] [--planted SITE]
//
// Exit code 0: everything equal; 1: something differs; 3: CUDA would have hung or failed.
#include "cases.h"
#include "simt.h"

int main(int count, char** words) {
  std::vector<std::string> chosen;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--list") {
      for (const auto& [name, run] : cases::Suite::all()) std::puts(name.c_str());
      return 0;
    }
    if (word.rfind("--", 0) != 0) {
      chosen.push_back(word);
      continue;
    }
    if (i + 1 == count) return std::fprintf(stderr, "%s needs a value\n", word.c_str()), 2;
    if (!cases::set_option(word, words[++i])) {
      return std::fprintf(stderr, "unknown option %s %s\n", word.c_str(), words[i]), 2;
    }
  }
  for (const auto& [name, run] : cases::Suite::all()) {
    bool wanted = chosen.empty();
    for (const std::string& word : chosen) wanted |= word == name;
    if (wanted) run();
  }
  std::printf("%d checks, %d differ\n", cases::checks, cases::failures);
  return cases::failures != 0 || cases::checks == 0;
}
