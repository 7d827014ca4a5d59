// Runs the CUDA kernels of csrc/ on the host against the CPU backend.
//
//   kernels --list
//   kernels [warp|gradient|merge|rank ...] [--order forward|reverse|shuffled] [--seed N]
//           [--workers N] [--poison BYTE] [--cases DRAWN] [--planted SITE]
//
// Exit code 0: everything equal; 1: something differs; 3: CUDA would have hung or failed.
#include "cases.h"
#include "simt.h"

int main(int count, char** words) {
  std::vector<std::string> chosen;
  simt::Settings& settings = simt::settings;
  const std::pair<const char*, void (*)()> all[] = {
      {"warp", warp_cases}, {"gradient", gradient_cases}, {"merge", merge_cases}, {"rank", rank_cases}};
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--list") {
      for (const auto& [name, cases] : all) std::puts(name);
      return 0;
    }
    if (word.rfind("--", 0) != 0) {
      chosen.push_back(word);
      continue;
    }
    if (i + 1 == count) return std::fprintf(stderr, "%s needs a value\n", word.c_str()), 2;
    const std::string value = words[++i];
    if (word == "--order") {
      settings.order = value == "reverse"    ? simt::Settings::reverse
                       : value == "shuffled" ? simt::Settings::shuffled
                                             : simt::Settings::forward;
    } else if (word == "--seed") {
      settings.seed = std::stoul(value);
    } else if (word == "--workers") {
      settings.workers = std::stoi(value);
    } else if (word == "--poison") {
      settings.poison = static_cast<unsigned char>(std::stoi(value));
    } else if (word == "--cases") {
      cases::drawn = std::stoi(value);
    } else if (word == "--planted") {
      settings.planted = std::stoi(value);
    } else {
      return std::fprintf(stderr, "unknown option %s\n", word.c_str()), 2;
    }
  }
  for (const auto& [name, cases] : all) {
    bool wanted = chosen.empty();
    for (const std::string& word : chosen) wanted |= word == name;
    if (wanted) cases();
  }
  std::printf("%d checks, %d differ\n", cases::checks, cases::failures);
  return cases::failures != 0 || cases::checks == 0;
}
